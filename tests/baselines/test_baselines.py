import dataclasses

import pytest
import torch

from engine.accel import pick_accel
from engine.baselines import BASELINES, dynamics, features, herding, kcenter, kmeans, make_baseline, optimised
from engine.baselines.pick import random_set
from engine.data import load
from engine.data.base import Dataset
from engine.errors import Refused
from engine.spec import BASELINES as IDS

KINDS = {
    "random": "random",
    "optimised": "selected",
    "kmeans": "summarised",
    "kmeans-real": "selected",
    "average": "summarised",
    "herding": "selected",
    "kcenter": "selected",
    "ccs": "selected",
    "forgetting": "selected",
    "el2n": "selected",
}


@pytest.fixture(scope="module")
def accel():
    return pick_accel("cpu", compile=False)


@pytest.fixture(scope="module")
def data() -> Dataset:
    """Three classes of blobs, 60 images each, and a test set that nobody may look at."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(180) % 3
    images = torch.randint(0, 80, (180, 1, 16, 16), generator=generator)
    for c in range(3):
        images[labels == c, :, 4 * c : 4 * c + 6, 4:10] += 150
    return Dataset(
        "digits",
        "Blobs",
        ("a", "b", "c"),
        images.byte(),
        labels,
        images[:30].byte(),
        labels[:30],
        (0.3,),
        (0.25,),
    )


@pytest.fixture(autouse=True)
def quick(home, monkeypatch):
    monkeypatch.setattr(features, "MIN_STEPS", 8)
    monkeypatch.setattr(features, "BATCH", 16)
    monkeypatch.setattr(optimised, "WIDTH", 16)
    monkeypatch.setattr(dynamics, "MIN_STEPS", 8)
    monkeypatch.setattr(dynamics, "WIDTH", 8)


def test_every_kind_of_the_spec_is_there():
    assert set(BASELINES) == set(IDS) == set(KINDS)
    assert {id: b.kind for id, b in BASELINES.items()} == KINDS


@pytest.mark.parametrize("kind", IDS)
@pytest.mark.parametrize("ipc", [1, 4])
def test_shape_order_and_seed(kind, ipc, data, accel):
    heard = []
    made = make_baseline(kind, data, ipc, seed=3, accel=accel, progress=heard.append)
    assert made.images.shape == (3 * ipc, 1, 16, 16) and made.kind == KINDS[kind] and made.protocol == "dc"
    assert made.labels.tolist() == [c for c in range(3) for _ in range(ipc)]
    again = make_baseline(kind, data, ipc, seed=3, accel=accel)
    assert torch.equal(made.images, again.images)
    assert heard == sorted(heard) and all(0 <= part <= 1 for part in heard)
    assert made.provenance["baseline"] == kind and made.provenance["seconds"] >= 0


@pytest.mark.parametrize("kind", [kind for kind, made in KINDS.items() if made != "summarised"])
def test_real_images_are_distinct_and_never_held_out(kind, data, accel):
    most = min(len(members) for members in data.by_class)
    for ipc in (10, most):
        made = make_baseline(kind, data, ipc, accel=accel)
        indices = torch.tensor(made.provenance["indices"])
        assert len(indices.unique()) == 3 * ipc
        assert not set(indices.tolist()) & set(data.held_out.tolist())
        assert torch.equal(data.train_labels[indices], made.labels)
        assert torch.equal(made.images, data.normalise(data.train_images[indices]))


@pytest.mark.parametrize("kind", IDS)
def test_held_out_and_test_images_change_nothing(kind, data, accel):
    noise = torch.randint(0, 256, data.train_images.shape, generator=torch.Generator().manual_seed(9)).byte()
    images = data.train_images.clone()
    images[data.held_out] = noise[data.held_out]
    other = dataclasses.replace(data, train_images=images, test_images=noise[:30])
    assert torch.equal(other.held_out, data.held_out)
    one, two = (make_baseline(kind, d, 3, seed=1, accel=accel) for d in (data, other))
    assert torch.equal(one.images, two.images)


def test_another_seed_gives_another_set(data, accel):
    for kind in ("random", "optimised", "average"):
        one, two = (make_baseline(kind, data, 2, seed=s, accel=accel).images for s in (0, 1))
        assert not torch.equal(one, two)


def test_nothing_global_is_touched(data, accel):
    torch.manual_seed(5)
    state = torch.get_rng_state()
    for kind in IDS:
        make_baseline(kind, data, 2, accel=accel)
    assert torch.equal(torch.get_rng_state(), state)


def test_refusals(data, accel):
    with pytest.raises(Refused, match="55 images per class.*smallest class, a, has 54 .*Choose 1 to 54"):
        make_baseline("random", data, 55, accel=accel)
    with pytest.raises(Refused, match="random, optimised, kmeans"):
        make_baseline("best", data, 1, accel=accel)


# ---- each against a plain version -----------------------------------------------------------------------------------


def test_average_is_the_mean(data, accel):
    one = make_baseline("average", data, 1, accel=accel).images
    for c, members in enumerate(data.by_class):
        mean = data.train_images[members].double().mean(0) / 255
        assert torch.allclose(one[c].double(), (mean - 0.3) / 0.25, atol=1e-6)
    # Means of equal parts have the mean of the whole as theirs.
    three = make_baseline("average", data, 3, accel=accel).images.view(3, 3, 1, 16, 16).mean(1)
    assert torch.allclose(three, one, atol=1e-5)


def test_kmeans_of_one_is_the_mean_and_of_two_the_two_heaps(data, accel):
    assert torch.allclose(
        make_baseline("kmeans", data, 1, accel=accel).images,
        make_baseline("average", data, 1, accel=accel).images,
        atol=1e-5,
    )
    images = torch.full((40, 1, 16, 16), 50, dtype=torch.uint8)
    images[:10] = 200
    labels = torch.arange(40) % 2
    heaps = dataclasses.replace(data, classes=("a", "b"), train_images=images, train_labels=labels)
    made = make_baseline("kmeans", heaps, 2, accel=accel)
    values = sorted(set((made.pixels()[:2] * 255).round().flatten().int().tolist()))
    assert values == [50, 200]


def test_means_are_of_the_whole_class_however_large(data, accel, monkeypatch):
    monkeypatch.setattr(kmeans, "MAX_POINTS", 20)
    one, mean = (make_baseline(kind, data, 1, accel=accel).images for kind in ("kmeans", "average"))
    assert torch.allclose(one, mean, atol=1e-5)


def test_herding_matches_a_plain_version():
    points = torch.randn(60, 12, generator=torch.Generator().manual_seed(0))
    doubles = points.double()
    mean, taken = doubles.mean(0), []
    for k in range(20):
        best, best_distance = None, None
        total = sum((doubles[i] for i in taken), torch.zeros(12, dtype=torch.float64))
        for i in range(60):
            distance = float(((k + 1) * mean - total - doubles[i]).norm())
            if i not in taken and (best is None or distance < best_distance):
                best, best_distance = i, distance
        taken.append(best)
    assert herding.herd(points, 20).tolist() == taken
    assert sorted(herding.herd(points, 60).tolist()) == list(range(60))


def test_kcenter_matches_a_plain_version():
    points = torch.randn(60, 12, generator=torch.Generator().manual_seed(1))
    doubles = points.double()
    taken = [min(range(60), key=lambda i: float((doubles[i] - doubles.mean(0)).norm()))]
    while len(taken) < 20:
        rest = [i for i in range(60) if i not in taken]
        taken.append(max(rest, key=lambda i: min(float((doubles[i] - doubles[s]).norm()) for s in taken)))
    assert kcenter.spread(points, 20).tolist() == taken
    assert sorted(kcenter.spread(torch.zeros(7, 3), 7).tolist()) == list(range(7))


def test_nearest_images_are_those_nearest():
    points = torch.tensor([[0.0], [1.0], [5.0], [9.0]])
    assert kmeans.nearest_each(points, torch.tensor([[8.0], [0.2]])).tolist() == [3, 0]
    assert sorted(kmeans.nearest_each(points, torch.tensor([[0.1], [0.2], [0.3]])).tolist()) == [0, 1, 2]


def test_ridge_learns_what_is_linear():
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(60) % 3
    points = torch.eye(3)[labels] * 4 + 0.3 * torch.randn(60, 3, generator=generator)
    assert torch.equal(optimised.ridge(points[:30], labels[:30], points[30:], 3), labels[30:])


def test_ridge_from_either_side_is_the_same():
    generator = torch.Generator().manual_seed(1)
    points, others = torch.randn(40, 12, generator=generator), torch.randn(200, 12, generator=generator)
    labels = torch.arange(40) % 4
    centred, rest = points - points.mean(0), others - points.mean(0)
    kernel = centred @ centred.T
    penalty = optimised.RIDGE * kernel.diagonal().mean() + 1e-6
    targets = torch.nn.functional.one_hot(labels, 4).float() - 0.25
    wanted = rest @ centred.T @ torch.linalg.solve(kernel + penalty * torch.eye(40), targets)
    assert (optimised.ridge(points, labels, others, 4) == wanted.argmax(1)).float().mean() > 0.98


def test_the_optimised_set_scores_above_the_average_of_all(data, accel):
    notes = make_baseline("optimised", data, 1, accel=accel).provenance
    assert notes["score"] >= notes["score_of_kept"] and notes["candidates"] == 50 and notes["kept"] == 10


def test_features_are_kept_and_survive_a_damaged_file(data, accel, home, monkeypatch):
    trained = []
    train = features._train
    monkeypatch.setattr(features, "_train", lambda *args: trained.append(1) or train(*args))

    def found():
        return torch.cat(features.class_features(data, 0, accel, lambda part: None).by_class)

    first = found()
    assert torch.equal(first, found()) and len(trained) == 1
    (file,) = (home / "cache" / "features").iterdir()
    file.write_bytes(b"damaged")
    assert torch.equal(first, found()) and len(trained) == 2


@pytest.mark.slow
def test_features_separate_real_digits(accel, monkeypatch):
    monkeypatch.setattr(features, "MIN_STEPS", 60)
    monkeypatch.setattr(features, "BATCH", 64)
    digits = load("digits")
    points = features.class_features(digits, 0, accel, lambda part: None).by_class
    means = torch.stack([p.mean(0) for p in points])
    right = sum(int((torch.cdist(p, means).argmin(1) == c).sum()) for c, p in enumerate(points))
    assert right / sum(map(len, points)) > 0.9


def test_random_is_fair():
    labels = torch.zeros(20, dtype=torch.long)
    images = torch.zeros(20, 1, 8, 8, dtype=torch.uint8)
    data = Dataset("digits", "D", ("a",), images, labels, images[:1], labels[:1], (0.5,), (0.5,))
    drawn = torch.cat([random_set(data, 5, torch.Generator().manual_seed(s)) for s in range(400)])
    counts = drawn.bincount(minlength=20)[data.by_class[0]]
    assert int(counts.min()) > 60 and int(counts.max()) < 170
