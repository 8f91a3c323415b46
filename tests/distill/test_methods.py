"""What the methods do, on a tiny dataset: they learn, they resume, they refuse, they notice an explosion."""

import copy

import pytest
import torch

from engine.accel import Accel, _Compiled, pick_accel
from engine.data.base import Dataset
from engine.distill import Diverged, make_distiller
from engine.distill.bank import Bank
from engine.errors import Refused
from engine.methods import METHODS
from engine.spec import build_spec

SMALL = {"dataset": "tiny", "network": "convnet", "width": 8, "depth": 2, "deterministic": True, "batch_real": 16}
BRIEF = {"network": "mlp", "lr_step": 0.1, "lr_img": 0.05}
VARIANTS = [
    ("dm", {"variant": "bank"}),
    ("dm", {"variant": "plain"}),
    ("datadam", {"variant": "bank", "lr_img": 0.2, "power": 4.0}),
    ("datadam", {"variant": "plain", "ipc": 2, "power": 1.0}),
    ("dc", {"variant": "bank"}),
    ("dc", {"variant": "plain", "ipc": 2, "inner_loop": 2}),
    ("dc", {"distance": "cosine"}),
    ("dsa", {"variant": "bank"}),
    ("dsa", {"variant": "plain", "ipc": 2, "inner_loop": 2}),
    ("dd", {**BRIEF, "initial": "random", "ipc": 2, "distill_steps": 2, "distill_epochs": 1}),
    ("dd", {**BRIEF, "initial": "fixed", "init": "noise", "distill_epochs": 2, "clip": True}),
    ("dd", {**BRIEF, "initial": "random-pretrained", "source_steps": 2, "pool": 3, "distill_epochs": 1, "n_nets": 2}),
    ("rat", {"network": "mlp", "init": "noise", "total": 2, "window": 2, "lr_net": 0.01, "lr_img": 0.1}),
    (
        "rat",
        {
            "network": "mlp",
            "total": 3,
            "window": 1,
            "inner": "sgd",
            "lr_net": 0.3,
            "lr_img": 0.1,
            "ipc": 4,
            "batch_syn": 12,
            "augment": True,
        },
    ),
    ("frepo", {"ipc": 2, "lr_img": 0.01}),
    ("frepo", {"ipc": 1, "lr_img": 0.01, "factor": 2}),
    ("dm", {"variant": "bank", "ipc": 1, "factor": 2}),
    (
        "mtt",
        {"ipc": 2, "syn_steps": 4, "batch_syn": 5, "experts": 2, "step_size": 0.1, "lr_step": 0.05, "lr_img": 300.0},
    ),
    ("mtt", {"syn_steps": 2, "experts": 1, "step_size": 0.3, "lr_step": 0.1, "lr_img": 300.0, "augment": False}),
    ("frepo", {"ipc": 2, "lr_img": 0.03, "zca": True}),
]


@pytest.fixture
def data():
    """Four classes of 8×8 grey images: a bright quarter each, in noise."""
    g = torch.Generator().manual_seed(0)
    images = torch.randint(0, 90, (240, 1, 8, 8), generator=g, dtype=torch.uint8)
    labels = torch.arange(240) % 4
    for i, c in enumerate(labels.tolist()):
        images[i, :, 4 * (c // 2) : 4 * (c // 2) + 4, 4 * (c % 2) : 4 * (c % 2) + 4] += 120
    return Dataset("tiny", "Tiny", tuple("abcd"), images, labels, images[:40], labels[:40], (0.3,), (0.2,))


def start(data, method, **values):
    distiller = make_distiller(method)
    distiller.setup(build_spec("distill", method=method, **{**SMALL, **values}), data, pick_accel("cpu", True))
    if method == "mtt":
        distiller.experts.record(600.0)  # all of them, so that every step is an update
    return distiller


@pytest.mark.parametrize(("method", "values"), VARIANTS[:-1])  # what is left of these images, whitened, is noise
def test_the_loss_falls(home, data, method, values):
    distiller = start(data, method, **values)
    losses = [distiller.step().loss for _ in range(50)]
    assert sum(losses[-10:]) < 0.9 * sum(losses[:10])


@pytest.mark.parametrize(("method", "values"), VARIANTS)
def test_an_interrupted_run_goes_on_as_if_nothing_had_happened(home, data, method, values):
    whole = start(data, method, **values)
    for _ in range(7):
        whole.step()
    state = copy.deepcopy(whole.state_dict())
    for _ in range(25):
        whole.step()
    resumed = start(data, method, **values)
    resumed.load_state_dict(state)
    for _ in range(25):
        resumed.step()
    assert torch.equal(whole.synthetic().images, resumed.synthetic().images)
    assert torch.equal(whole.synthetic().labels, resumed.synthetic().labels)


@pytest.mark.parametrize("method", ["dm", "datadam", "dd"])
def test_the_learning_rate_falls_to_a_tenth_over_the_budget(home, data, method):
    rates = {}
    for falls in (True, False):
        distiller = start(data, method, lr_img=0.08, cosine=falls)
        rates[falls] = []
        for distiller.progress in (0.0, 0.5, 1.0):
            distiller.step()
            rates[falls].append(distiller.optimiser.param_groups[0]["lr"])
    assert rates == {True: pytest.approx([0.08, 0.044, 0.008]), False: [0.08] * 3}


@pytest.mark.parametrize("method", METHODS)
def test_the_seed_decides(home, data, method):
    brief = {"total": 2, "window": 2} if method == "rat" else {}
    first, again, other = (start(data, method, seed=s, **brief) for s in (1, 1, 2))
    for _ in range(3):
        for distiller in (first, again, other):
            distiller.step()
    assert torch.equal(first.synthetic().images, again.synthetic().images)
    assert not torch.equal(first.synthetic().images, other.synthetic().images)


@pytest.mark.parametrize("init", ["real", "noise", "mean", "kmeans"])
def test_every_initialisation_gives_ipc_images_of_each_class(home, data, init):
    made = start(data, "dm", init=init, ipc=3).synthetic()
    assert made.images.shape == (12, 1, 8, 8)
    assert made.labels.tolist() == [0] * 3 + [1] * 3 + [2] * 3 + [3] * 3
    if init == "mean":  # the images are means of parts of their class, so their mean is the class mean
        used = data.normalise(data.train_images[data.by_class[0]]).mean(0)
        torch.testing.assert_close(made.images[:3].mean(0), used, atol=2e-2, rtol=0)


def test_images_are_not_taken_from_the_held_out_split(home, data):
    held = {data.train_images[i].numpy().tobytes() for i in data.held_out.tolist()}
    for image in start(data, "dm", ipc=20).synthetic().to_display():
        assert image.numpy().tobytes() not in held


@pytest.mark.parametrize("method", METHODS)
def test_an_exploding_learning_rate_is_noticed(home, data, method):
    distiller = start(data, method, init="noise", ipc=1, lr_img=10.0)
    with torch.no_grad():
        distiller.images.fill_(float("inf"))
    with pytest.raises(Diverged):
        for _ in range(3):
            distiller.step()


def test_more_images_than_a_class_has_is_refused(home, data):
    with pytest.raises(Refused, match="smallest class has 54"):
        start(data, "dm", ipc=55)


def test_the_bank_of_gradients_is_refused_beyond_one_image(home, data):
    with pytest.raises(Refused, match="1 image per class"):
        start(data, "dc", ipc=2, variant="bank")
    start(data, "dc", ipc=2, variant="bank", outer_loop=1)  # never trained, whatever the number of images


def test_whitened_images_are_shown_unwhitened(home, data):
    distiller = start(data, "frepo", ipc=2, zca=True)
    plain = start(data, "frepo", ipc=2, zca=False)
    shown, real = distiller.synthetic().to_display().int(), plain.synthetic().to_display().int()
    assert (shown - real).abs().max() <= 1
    assert not torch.allclose(distiller.synthetic().images, plain.synthetic().images)


def test_the_bank_replaces_its_oldest_view_and_drops_the_rough_first_one():
    begun = []

    def begin():
        begun.append(len(begun))
        return {"id": begun[-1]}

    bank = Bank(2, 1, 3, begin, lambda view, c, share: (view["id"], c, share), torch.Generator().manual_seed(0))
    bank.draw()
    assert [v["id"] for v in bank.views] == [0] and bank.views[0]["classes"][0][2] < 1
    for _ in range(3):
        bank.draw()
    assert [v["id"] for v in bank.views] == [1]
    for _ in range(6):
        bank.draw()
    assert [v["id"] for v in bank.views] == [2, 3]
    assert [c for _, c, _ in bank.views[0]["classes"]] == [0, 1, 2]


def test_every_view_of_the_bank_is_drawn():
    bank = Bank(3, 1, 1, dict, lambda view, c, share: c, torch.Generator().manual_seed(0))
    for _ in range(8):
        bank.draw()
    bank.refresh = 10**9  # keep the views that are there
    seen = {id(bank.draw()) for _ in range(60)}
    assert len(seen) == 3


@pytest.mark.slow
@pytest.mark.parametrize(("method", "values"), [("dc", {"variant": "bank"}), ("frepo", {})])
def test_the_compiled_step_computes_the_same(home, data, method, values, monkeypatch):
    """Compiled in the foreground here. Elsewhere the tests compile nothing: it takes the machine for seconds each."""
    programs = []

    def compiled(self, function, background=True, meanwhile=None):
        programs.append(_Compiled(function, False, meanwhile or function))
        return programs[-1]

    def images(accel):
        torch.manual_seed(0)
        distiller = make_distiller(method)
        distiller.setup(
            build_spec("distill", method=method, **{**SMALL, "deterministic": False, **values}), data, accel
        )
        for _ in range(3):
            distiller.step()
        return distiller.synthetic().images

    eager = images(Accel(torch.device("cpu")))
    monkeypatch.setattr(Accel, "compiled", compiled)
    fast = images(Accel(torch.device("cpu"), compile=True))
    assert programs and not [p.failed for p in programs if p.failed]
    torch.testing.assert_close(fast, eager, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("method", METHODS)
def test_a_step_in_bf16_goes_where_one_in_full_precision_goes(home, data, method):
    brief = {"rat": {"total": 2, "window": 2}, "mtt": {"syn_steps": 2, "experts": 1}}.get(method, {})
    spec = build_spec("distill", method=method, **{**SMALL, "deterministic": False, **brief})

    def step(bf16):
        torch.manual_seed(0)
        distiller = make_distiller(method)
        distiller.setup(spec, data, Accel(torch.device("cpu"), bf16=bf16))
        before = distiller.synthetic().images.clone()
        while (report := distiller.step()).loss is None:  # experts are being recorded
            pass
        return report.loss, (distiller.synthetic().images - before).flatten()

    (loss, moved), (rough, went) = step(False), step(True)
    assert rough != loss and rough == pytest.approx(loss, rel=0.1)
    assert float(torch.cosine_similarity(moved, went, dim=0)) > 0.8


LEARN = [("frepo", {"lr_img": 0.01}), ("dd", {**BRIEF, "distill_epochs": 1}), ("mtt", {"syn_steps": 2, "experts": 1})]


@pytest.mark.parametrize("method", METHODS)
def test_a_method_starts_from_the_images_it_is_given(home, data, method):
    brief = {"total": 2, "window": 2} if method == "rat" else {}
    distiller = start(data, method, **brief)
    images = torch.randn(4, 1, 8, 8)
    distiller.start_from(images.clone(), None, None)
    assert torch.equal(distiller.synthetic().images, images)
    assert distiller.synthetic().hard_labels.tolist() == [0, 1, 2, 3]
    distiller.step()
    assert not torch.equal(distiller.synthetic().images, images)


@pytest.mark.parametrize(("method", "values"), LEARN)
def test_what_is_learned_beside_the_images_is_handed_on(home, data, method, values):
    first = start(data, method, **values)
    for _ in range(5):
        first.step()
    made = first.synthetic()
    learned = made.labels if made.labels.is_floating_point() else None
    assert (learned is not None) == (method == "frepo") and (made.step_sizes is not None) == (method != "frepo")
    second = start(data, method, **{**values, "seed": 7})
    second.start_from(made.images, learned, made.step_sizes)
    again = second.synthetic()
    assert torch.equal(again.images, made.images) and torch.equal(again.labels, made.labels)
    if made.step_sizes is not None:
        assert torch.allclose(again.step_sizes, made.step_sizes, rtol=1e-5)
        assert not torch.allclose(start(data, method, **values).synthetic().step_sizes, made.step_sizes, rtol=1e-5)
