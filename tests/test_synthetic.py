import dataclasses
import json

import pytest
import torch
from safetensors.torch import load_file, save_file

from engine.errors import Refused
from engine.synthetic import ZCA, Start, SyntheticSet, fit_zca, load_synthetic


def make(n=6, classes=3, **more):
    generator = torch.Generator().manual_seed(0)
    values = {
        "images": torch.randn(n, 3, 8, 8, generator=generator),
        "labels": torch.arange(n) % classes,
        "dataset": "cifar10",
        "classes": tuple("abcdefgh"[:classes]),
        "mean": (0.5, 0.4, 0.3),
        "std": (0.2, 0.3, 0.25),
    }
    return SyntheticSet(**{**values, **more})


def natural(n=400, side=8):
    """Images whose neighbouring pixels agree, as those of photographs do."""
    generator = torch.Generator().manual_seed(1)
    coarse = torch.randn(n, 3, 3, 3, generator=generator)
    smooth = torch.nn.functional.interpolate(coarse, size=(side, side), mode="bilinear")
    return smooth + 0.05 * torch.randn(n, 3, side, side, generator=generator)


def course(**more):
    """A set for three steps of two turns each from given weights."""
    start = Start("fixed", "mlp", 8, 3, weights={"head.weight": torch.randn(3, 4), "body.0.bias": torch.randn(2)})
    return make(step_sizes=torch.tensor([0.1, 0.2, 0.3]), turns=2, start=start, **more)


# ---- files ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("soft", [False, True])
@pytest.mark.parametrize("whitened", [False, True])
def test_round_trip(tmp_path, soft, whitened):
    more = {"labels": torch.rand(6, 3)} if soft else {}
    more |= {"zca": fit_zca(natural())} if whitened else {}
    first = make(**more, step_sizes=torch.tensor([0.1, 0.2]), provenance={"steps": 7}, kind="random", protocol="frepo")
    second = load_synthetic(first.save(tmp_path / "set"))
    for name in ("images", "labels", "step_sizes"):
        assert torch.equal(getattr(first, name), getattr(second, name))
    for name in ("dataset", "classes", "mean", "std", "kind", "protocol", "provenance"):
        assert getattr(first, name) == getattr(second, name)
    assert torch.equal(first.to_display(), second.to_display())
    assert sorted(p.name for p in (tmp_path / "set").iterdir()) == ["synthetic.json", "synthetic.safetensors"]
    assert load_synthetic(tmp_path / "set" / "synthetic.json").dataset == "cifar10"


def test_a_course_survives_the_round_trip(tmp_path):
    first = course()
    second = load_synthetic(first.save(tmp_path / "set"))
    assert (second.turns, second.start.initial, second.start.network) == (2, "fixed", "mlp")
    assert (second.start.width, second.start.depth, second.start.source) == (8, 3, "")
    assert second.start.weights.keys() == first.start.weights.keys()
    assert all(torch.equal(w, second.start.weights[k]) for k, w in first.start.weights.items())
    pretrained = make(step_sizes=torch.ones(1), start=Start("random-pretrained", "convnet", 8, 3, "usps", 40))
    third = load_synthetic(pretrained.save(tmp_path / "other")).start
    assert (third.initial, third.source, third.source_steps, third.weights) == ("random-pretrained", "usps", 40, {})


@pytest.mark.parametrize(
    "spoil",
    [
        lambda f: spoil_json(f, turns=4),
        lambda f: spoil_json(f, turns=0),
        lambda f: spoil_json(f, turns="2"),
        lambda f: spoil_json(f, start=[]),
        lambda f: spoil_json(f, start={"initial": "fixed"}),
        lambda f: spoil_json(f, start={"initial": "any", "network": "mlp", "width": 8, "depth": 3}),
        lambda f: spoil_json(f, start={"initial": "fixed", "network": "mlp", "width": 10**9, "depth": 3}),
        lambda f: spoil_json(f, start={"initial": "random", "network": "mlp", "width": 8, "depth": 3}),
        lambda f: spoil_tensor(f, "step_sizes", torch.ones(2, 2)),
        lambda f: spoil_tensor(f, "step_sizes", torch.tensor([0.1, torch.nan])),
        lambda f: spoil_tensor(f, "step_sizes", torch.ones(100_000)),
        lambda f: spoil_tensor(f, "start.head.weight", torch.full((3, 4), torch.inf)),
    ],
)
def test_a_damaged_course_is_refused_in_a_sentence(tmp_path, spoil):
    folder = course().save(tmp_path / "set")
    spoil(folder)
    with pytest.raises(Refused) as refused:
        load_synthetic(folder)
    assert str(refused.value).endswith(".")


def spoil_tensor(folder, name, tensor):
    path = folder / "synthetic.safetensors"
    save_file({**load_file(path), name: tensor}, path)


def spoil_json(folder, **changes):
    path = folder / "synthetic.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


@pytest.mark.parametrize(
    "spoil",
    [
        lambda f: (f / "synthetic.json").unlink(),
        lambda f: (f / "synthetic.safetensors").unlink(),
        lambda f: (f / "synthetic.json").write_text("{"),
        lambda f: (f / "synthetic.json").write_text("[]"),
        lambda f: (f / "synthetic.json").write_bytes(b"\xff\xfe\x00"),
        lambda f: (f / "synthetic.safetensors").write_bytes(b"nonsense"),
        lambda f: (f / "synthetic.safetensors").write_bytes((f / "synthetic.safetensors").read_bytes()[:-50]),
        lambda f: save_file({"labels": torch.zeros(6, dtype=torch.int64)}, f / "synthetic.safetensors"),
        lambda f: spoil_json(f, kind="stolen"),
        lambda f: spoil_json(f, mean=[0.5]),
        lambda f: spoil_json(f, std=[0, 1, 1]),
        lambda f: spoil_json(f, classes=["a"]),
        lambda f: spoil_json(f, mean="high"),
        lambda f: spoil_json(f, classes=3),
        lambda f: spoil_json(f, zca_base=1.0),
    ],
)
def test_damaged_sets_are_refused_in_a_sentence(tmp_path, spoil):
    folder = make().save(tmp_path / "set")
    spoil(folder)
    with pytest.raises(Refused) as refusal:
        load_synthetic(folder)
    assert str(refusal.value).endswith(".") and str(tmp_path) not in str(refusal.value)


@pytest.mark.parametrize(
    "wrong",
    [
        {"images": torch.zeros(0, 3, 8, 8), "labels": torch.zeros(0, dtype=torch.int64)},
        {"images": torch.zeros(6, 3, 8)},
        {"images": torch.zeros(6, 3, 8, 8, dtype=torch.float64)},
        {"images": torch.full((6, 3, 8, 8), torch.nan)},
        {"labels": torch.arange(5)},
        {"labels": torch.arange(6)},
        {"labels": torch.full((6,), -1)},
        {"labels": torch.zeros(6, 2)},
        {"labels": torch.full((6, 3), torch.inf)},
        {"mean": (0.5,)},
        {"std": (0.2, 0.0, 0.2)},
        {"kind": "other"},
    ],
)
def test_impossible_sets_are_refused(wrong):
    with pytest.raises(Refused):
        make(**wrong)


def test_saving_over_a_set_replaces_it(tmp_path):
    make().save(tmp_path / "set")
    make(n=3).save(tmp_path / "set")
    assert len(load_synthetic(tmp_path / "set").images) == 3
    assert set(load_file(tmp_path / "set" / "synthetic.safetensors")) == {"images", "labels"}


# ---- spaces ---------------------------------------------------------------------------------------------------------


def test_real_images_come_back_from_the_space_of_the_set():
    real = torch.randint(0, 256, (6, 3, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(2))
    for zca in (None, fit_zca(natural())):
        there = dataclasses.replace(make(zca=zca), images=make(zca=zca).prepare(real))
        assert torch.equal(there.to_display(), real)


def test_hard_labels_of_soft_ones():
    assert make(n=2, labels=torch.tensor([[0.1, 0.9, 0.0], [-1.0, -2.0, -3.0]])).hard_labels.tolist() == [1, 0]


# ---- ZCA ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rank", [192, 20])
def test_unwhitening_undoes_whitening(rank):
    images = natural()
    zca = fit_zca(images, rank=rank)
    assert torch.allclose(zca.unwhiten(zca.whiten(images)), images, atol=1e-4)


def test_full_rank_is_the_textbook_transform():
    images = natural()
    flat = images.flatten(1).double()
    centred = flat - flat.mean(0)
    covariance = centred.T @ centred / len(flat)
    values, vectors = torch.linalg.eigh(covariance)
    values += 0.1 * values.mean()
    wanted = centred @ vectors @ torch.diag(values.rsqrt()) @ vectors.T
    assert torch.allclose(fit_zca(images).whiten(images).flatten(1).double(), wanted, atol=1e-3)


@pytest.mark.parametrize("rank", [100, 60, 40])
def test_low_rank_is_close_to_full(rank):
    """Of 192 values; with a rank below half of that the decomposition is randomised."""
    images = natural()
    full, low = fit_zca(images).whiten(images), fit_zca(images, rank=rank).whiten(images)
    assert float((full - low).norm() / full.norm()) < 0.05


def test_whitened_images_are_whiter():
    images = natural()

    def spread(x):
        flat = x.flatten(1) - x.flatten(1).mean(0)
        values = torch.linalg.eigvalsh(flat.T @ flat / len(flat))
        return float(values[-20:].max() / values[-20:].min())

    assert spread(images) > 2 and spread(fit_zca(images).whiten(images)) < 1.1


def test_zca_is_differentiable_and_leaves_shapes_alone():
    zca = ZCA(torch.eye(4)[:, :2], torch.tensor([1.0, 2.0]), 0.5, torch.zeros(4))
    x = torch.randn(3, 1, 2, 2, requires_grad=True)
    zca.whiten(x).sum().backward()
    assert zca.whiten(x).shape == x.shape and torch.allclose(x.grad[0].flatten(), torch.tensor([1.5, 2.5, 0.5, 0.5]))
