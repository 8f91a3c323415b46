"""Trajectory matching against a plain implementation, and the experts that it records."""

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch.func import functional_call

from engine.accel import pick_accel
from engine.data import load
from engine.data.base import Dataset
from engine.distill import experts as experts_module
from engine.distill import make_distiller
from engine.distill.experts import Experts
from engine.errors import Refused
from engine.networks import make_network
from engine.runs.validate import check
from engine.spec import build_spec
from engine.students.train import make_plan
from engine.synthetic import SyntheticSet

SMALL = {
    "dataset": "tiny",
    "method": "mtt",
    "width": 8,
    "depth": 2,
    "batch_real": 16,
    "expert_images": 64,
    "expert_rate": 0.1,
    "experts": 2,
    "syn_steps": 4,
    "deterministic": True,
}


def make_data(seed=0):
    g = torch.Generator().manual_seed(seed)
    images = torch.randint(0, 256, (200, 1, 8, 8), generator=g, dtype=torch.uint8)
    labels = torch.arange(200) % 4
    return Dataset("tiny", "Tiny", tuple("abcd"), images, labels, images[:40], labels[:40], (0.5,), (0.3,))


@pytest.fixture
def data():
    return make_data()


def make_spec(**values):
    return build_spec("distill", **{**SMALL, **values})


def start(data, **values):
    spec, distiller = make_spec(**values), make_distiller("mtt")
    distiller.setup(spec, data, pick_accel("cpu", spec.deterministic, compile=False))
    return distiller


def expert_set(data, deterministic=True, zca=None, **values):
    return Experts(make_spec(**values), data, pick_accel("cpu", deterministic, compile=False), zca)


def record(experts, steps):
    """So many training steps of the experts."""
    for _ in range(steps):
        next(experts._work, None)


# ---- the method -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("zca", [False, True])
def test_one_step_is_the_papers_equation(home, data, zca):
    """Images' and step size's gradient in float64, with batches smaller than the set and augmentation."""
    distiller = start(data, ipc=2, batch_syn=3, zca=zca)
    distiller.experts.record(600.0)
    single = distiller.experts.weights
    distiller.experts.weights = lambda *at: {k: w.double() for k, w in single(*at).items()}
    distiller.images, distiller.raw = distiller.images.double(), distiller.raw.double()
    groups = [{"params": [distiller.images], "lr": 1e-3}, {"params": [distiller.raw], "lr": 1e-3}]
    distiller.optimiser = torch.optim.SGD(groups)
    before, raw = distiller.images.clone(), distiller.raw.clone().requires_grad_()
    distiller.generator.manual_seed(5)
    loss = distiller._match()

    distiller.generator.manual_seed(5)
    expert = int(torch.randint(2, (1,), generator=distiller.generator))
    epoch = int(torch.randint(2, (1,), generator=distiller.generator))
    images = before.clone().requires_grad_()
    network = make_network("convnet", 1, 8, 4, width=8, depth=2)
    begin = distiller.experts.weights(expert, epoch)
    target = distiller.experts.weights(expert, epoch + 2)
    weights = {k: w.clone().requires_grad_() for k, w in begin.items()}
    batches = list(distiller._batches(images))
    assert [len(x) for x, _ in batches] == [3, 3, 2, 3]  # the whole set, then from the start in another order
    for x, y in batches:
        slopes = torch.autograd.grad(
            F.cross_entropy(functional_call(network, weights, (x,)), y), list(weights.values()), create_graph=True
        )
        weights = {k: w - F.softplus(raw) * g for (k, w), g in zip(weights.items(), slopes, strict=True)}

    def flat(named):
        return torch.cat([w.flatten() for w in named.values()])

    plain = (flat(weights) - flat(target)).norm() ** 2 / (flat(begin) - flat(target)).norm() ** 2
    assert loss == pytest.approx(plain.item(), rel=1e-10)
    to_images, to_raw = torch.autograd.grad(plain, [images, raw])
    torch.testing.assert_close(distiller.images.grad, to_images, rtol=1e-8, atol=1e-12)
    torch.testing.assert_close(distiller.raw.grad, to_raw, rtol=1e-8, atol=1e-12)


def test_whitening_is_that_of_its_code(home):
    """Its code adds 0.1 to the eigenvalues of pixels in [0, 1]; their mean is 0.066 in CIFAR-10."""
    digits = load("digits")
    whitened = start(digits, zca=True).zca.whiten(digits.normalise(digits.train_images[:2000])).flatten(1)
    pixels = digits.train_images[digits.distil_indices].flatten(1).double() / 255
    values = torch.linalg.eigvalsh(torch.cov(pixels.T, correction=0)).flip(0)
    spread = torch.linalg.eigvalsh(torch.cov(whitened.double().T, correction=0)).flip(0)
    wanted = values / (values + 0.1 * values.mean() / 0.066)
    torch.testing.assert_close(spread[:20], wanted[:20], rtol=0.15, atol=0.02)


def test_the_step_size_is_learned_and_stays_positive(home, data):
    distiller = start(data, step_size=0.02, lr_step=0.0)
    assert distiller.synthetic().step_sizes.tolist() == pytest.approx([0.02])
    distiller.experts.record(600.0)
    distiller.step()
    assert distiller.synthetic().step_sizes.tolist() == pytest.approx([0.02])
    for sign in (1.0, -1.0):  # however hard it is pushed
        distiller.raw.grad = torch.tensor(sign * 50)
        distiller.optimiser.param_groups[1]["lr"] = 1.0
        distiller.optimiser.step()
        assert distiller.synthetic().step_sizes.item() > 0


def test_a_deterministic_run_records_all_experts_before_its_first_update(home, data, monkeypatch):
    monkeypatch.setattr("engine.distill.mtt.SLICE", 0.0)  # one training step of an expert a time
    distiller = start(data)
    reports = [distiller.step() for _ in range(2 * 3 * 4 + 2)]
    preparing = [r for r in reports if r.loss is None]
    assert len(preparing) == 2 * 3 * 4 and all(r.step == 0 for r in preparing)
    assert preparing[0].note == "Recording expert 1 of 2, 8%" and preparing[-2].note.startswith(
        "Recording expert 2 of 2"
    )
    assert [r.step for r in reports[-2:]] == [1, 2] and not reports[-1].note
    assert reports[-1].extras["experts"] == 2 and reports[-1].extras["step_size"] > 0


def test_otherwise_the_first_segment_is_matched_as_soon_as_it_is_there(home, data, monkeypatch):
    monkeypatch.setattr("engine.distill.mtt.SLICE", 0.0)
    distiller = start(data, deterministic=False)
    reports = [distiller.step() for _ in range(10)]
    first = next(r for r in reports if r.loss is not None)
    assert first.note == "Distilling while expert 1 of 2 is recorded." and first.extras["experts"] == 0
    while not distiller.experts.complete:
        distiller.step()
    assert distiller.step().note == ""


def test_segments_end_at_recorded_epochs(home, data):
    for values in ({"max_start": 3}, {"expert_epochs": 3}):
        problem = r"end after epoch 4, but 3 are recorded.*\(max_start\)"
        with pytest.raises(Refused, match=problem):
            check(make_spec(dataset="digits", **values))
        with pytest.raises(Refused, match=problem):
            start(data, **values)
    start(data, max_start=3, epochs=4)


# ---- the experts ----------------------------------------------------------------------------------------------------


def test_experts_are_found_again_and_hold_what_was_trained(home, data):
    experts = expert_set(data)
    experts.record(600.0)
    files = sorted(experts.folder.glob("*"))
    assert [f.name for f in files] == ["000.safetensors", "001.safetensors"]
    kept = load_file(files[0])
    initial = make_network("convnet", 1, 8, 4, width=8, depth=2, seed=experts_module.FIRST_SEED)
    for name, parameter in initial.named_parameters():
        assert kept[name].dtype == torch.float16 and kept[name].shape == (4, *parameter.shape)
        assert torch.equal(kept[name][0], parameter.detach().half())
    again = expert_set(data)
    assert again.complete and torch.equal(
        again.weights(1, 3)["head.weight"], load_file(files[1])["head.weight"][3].float()
    )
    more = expert_set(data, experts=3)
    assert more.recorded == [0, 1] and not more.complete


def test_an_expert_learns_the_real_images(home):
    g = torch.Generator().manual_seed(0)
    labels = torch.arange(240) % 4
    images = (torch.rand(240, 1, 8, 8, generator=g) * 60 + 60 * labels.view(-1, 1, 1, 1)).byte()
    data = Dataset("tiny", "Tiny", tuple("abcd"), images, labels, images, labels, (0.4,), (0.3,))
    experts = expert_set(data, experts=1, epochs=6, expert_images=216, augment=False)
    experts.record(600.0)
    network = make_network("convnet", 1, 8, 4, width=8, depth=2)

    def loss(epoch):
        return F.cross_entropy(functional_call(network, experts.weights(0, epoch), (data.normalise(images),)), labels)

    assert loss(6) < loss(3) < 0.9 * loss(0)


@pytest.mark.parametrize("steps", [13, 14, 17, 23])  # at the second expert's beginning and within each of its epochs
def test_a_killed_recording_goes_on_where_it_was(home, data, tmp_path, monkeypatch, steps):
    whole = expert_set(data)
    whole.record(600.0)
    monkeypatch.setenv("LIMBECK_HOME", str(tmp_path / "other"))
    killed = expert_set(data)
    record(killed, steps)
    assert killed.folder != whole.folder and not killed.complete
    (killed.folder / ".half-written").write_bytes(b"x")
    again = expert_set(data)
    assert again.recorded == [0]
    taken = sum(1 for _ in again._work)
    assert taken == 24 - (steps - 1) // 4 * 4  # only the epoch that was not finished is trained again
    assert sorted(f.name for f in again.folder.glob("[0-9]*")) == ["000.safetensors", "001.safetensors"]
    for name in ("000.safetensors", "001.safetensors"):
        a, b = load_file(whole.folder / name), load_file(again.folder / name)
        assert all(torch.equal(a[k], b[k]) for k in a) and a.keys() == b.keys()


def test_damaged_files_are_recorded_anew(home, data):
    experts = expert_set(data)
    experts.record(600.0)
    good = load_file(experts.folder / "000.safetensors")["head.weight"].clone()  # of its own, not of the file
    (experts.folder / "000.safetensors").write_bytes(b"not a trajectory")
    (experts.folder / "000.part.safetensors").write_bytes(b"nor a part of one")
    again = expert_set(data)
    assert again.recorded == [1] and again.progress == "expert 2 of 2"
    again.record(600.0)
    assert torch.equal(load_file(experts.folder / "000.safetensors")["head.weight"], good)


def test_every_setting_that_matters_has_experts_of_its_own(home, data):
    first = expert_set(data).folder
    for values in ({"experts": 5}, {"lr_img": 3.0}, {"seed": 4}, {"syn_steps": 9}, {"ipc": 3}, {"step_size": 0.1}):
        assert expert_set(data, **values).folder == first, values
    changes = ({"epochs": 5}, {"expert_images": 100}, {"expert_rate": 0.2}, {"batch_real": 32}, {"augment": False})
    networks = ({"width": 16}, {"depth": 1}, {"network": "mlp"})
    others = [expert_set(data, **values).folder for values in (*changes, *networks)]
    others.append(expert_set(data, deterministic=False).folder)
    others.append(expert_set(make_data(seed=1)).folder)
    others.append(start(data, zca=True).experts.folder)
    assert len({first, *others}) == len(others) + 1


def test_diverging_experts_are_refused(home, data, monkeypatch):
    monkeypatch.setattr(experts_module, "place", lambda images, accel: images * torch.inf)
    with pytest.raises(Refused, match=r"diverge at a learning rate \(expert_rate\) of 0.1"):
        expert_set(data).record(60.0)


def test_experts_that_the_disk_cannot_hold_are_refused(home, data, monkeypatch):
    expert_set(data, experts=200)
    monkeypatch.setattr(experts_module.shutil, "disk_usage", lambda path: type("Usage", (), {"free": 1e6})())
    with pytest.raises(Refused, match=r"200 experts of 3 epochs take .* GB on disk"):
        expert_set(data, experts=200)


# ---- its protocol ---------------------------------------------------------------------------------------------------


def make_set(data, sizes):
    images, labels = torch.randn(4, 1, 8, 8), torch.arange(4)
    return SyntheticSet(images, labels, "tiny", data.classes, data.mean, data.std, protocol="mtt", step_sizes=sizes)


def test_students_train_at_the_rate_the_set_has_learned(data):
    assert make_plan(make_set(data, torch.tensor([0.03])), data, "mtt").rates()[0] == pytest.approx(0.03)
    assert make_plan(make_set(data, None), data, "mtt").rates()[0] == 0.01
    assert make_plan(make_set(data, torch.tensor([0.03])), data, "dsa").rates()[0] == 0.01
    with pytest.raises(Refused, match="learned step size is -0.1"):
        make_plan(make_set(data, torch.tensor([-0.1])), data, "mtt")
