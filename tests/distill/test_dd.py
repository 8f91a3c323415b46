"""Dataset distillation: its gradient is the paper's, its sets are divided among the steps, its networks are kept."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch.func import functional_call

from engine.accel import pick_accel
from engine.data.base import Dataset
from engine.distill import dd, make_distiller, pretrained
from engine.errors import Refused
from engine.networks import make_network
from engine.runs.validate import check
from engine.spec import build_spec
from engine.students.evaluation import evaluate
from engine.synthetic import Start

SMALL = {"dataset": "tiny", "method": "dd", "network": "convnet", "width": 8, "depth": 2, "deterministic": True}
BUILD = {"name": "convnet", "channels": 1, "size": 8, "classes": 4, "width": 8, "depth": 2}


def make_data(channels=1, size=8, name="tiny", classes="abcd"):
    """A bright quarter for each class, in noise."""
    g = torch.Generator().manual_seed(0)
    images = torch.randint(0, 90, (240, channels, size, size), generator=g, dtype=torch.uint8)
    labels, half = torch.arange(240) % len(classes), size // 2
    for i, c in enumerate(labels.tolist()):
        images[i, :, half * (c // 2) : half * (c // 2 + 1), half * (c % 2) : half * (c % 2 + 1)] += 120
    normal = ((0.3,) * channels, (0.2,) * channels)
    return Dataset(name, name.title(), tuple(classes), images, labels, images[:40], labels[:40], *normal)


@pytest.fixture
def data():
    return make_data()


@pytest.fixture
def cpu():
    return pick_accel("cpu", True)


def start(data, **values):
    distiller = make_distiller("dd")
    distiller.setup(build_spec("distill", **{**SMALL, "batch_real": 16, **values}), data, pick_accel("cpu", True))
    return distiller


def in_double(distiller, real):
    """``distiller`` in float64, judged on the batch ``real``; the list of the weights that its steps begin at."""
    distiller.images = distiller.images.detach().double().requires_grad_()
    distiller.raw_rates = distiller.raw_rates.detach().double().requires_grad_()
    begin, begun = distiller._begin, []

    def recorded():
        begun.append({k: w.double() for k, w in begin().items()})
        return begun[-1]

    distiller._begin, distiller._real = recorded, lambda: real
    return begun


@pytest.mark.parametrize("values", [
    {"network": "mlp", "distill_steps": 2, "distill_epochs": 2, "ipc": 4, "n_nets": 2},
    {"initial": "fixed", "network": "lenet", "size": 16, "distill_epochs": 2, "lr_step": 0.3},
    {"distill_steps": 2, "distill_epochs": 1, "ipc": 2, "shared": True},
])  # fmt: skip
def test_the_gradient_is_that_of_the_loss_after_the_unrolled_steps(home, values):
    """Equations 1 to 4 of the paper, written out with autograd through everything, in float64."""
    data = make_data(size=values.pop("size", 8))
    distiller = start(data, **values)
    own, real = distiller.own, (torch.randn(6, 1, data.size, data.size).double(), torch.arange(6) % 4)
    begun = in_double(distiller, real)
    images = distiller.images.detach().clone().requires_grad_()
    raw = distiller.raw_rates.detach().clone().requires_grad_()
    report = distiller.step()

    network = make_network(distiller.spec.network, 1, data.size, 4, 8, 2)
    per_class = images.view(4, distiller.spec.ipc, 1, data.size, data.size)
    total = 0.0
    for weights in begun:
        weights = {k: w.clone().requires_grad_() for k, w in weights.items()}
        for t in range(own.distill_steps * own.distill_epochs):
            step = t % own.distill_steps
            x = per_class.flatten(0, 1) if own.shared else per_class[:, step :: own.distill_steps].flatten(0, 1)
            y = torch.arange(4).repeat_interleave(len(x) // 4)
            loss = F.cross_entropy(functional_call(network, weights, (x,)), y)
            slopes = torch.autograd.grad(loss, list(weights.values()), create_graph=True)
            rate = torch.log(1 + torch.exp(raw[t]))
            weights = {k: w - rate * g for (k, w), g in zip(weights.items(), slopes, strict=True)}
        total = total + F.cross_entropy(functional_call(network, weights, (real[0],)), real[1]) / len(begun)
    on_images, on_raw = torch.autograd.grad(total, (images, raw))

    assert len(begun) == own.n_nets and report.loss == pytest.approx(total.item(), rel=1e-9)
    torch.testing.assert_close(distiller.images.grad, on_images, rtol=1e-7, atol=1e-11)
    torch.testing.assert_close(distiller.raw_rates.grad, on_raw, rtol=1e-7, atol=1e-11)


def test_step_sizes_begin_where_asked_are_learned_and_stay_above_zero(home, data):
    distiller = start(data, distill_steps=2, ipc=2, lr_step=0.07, lr_img=0.5)
    first = distiller.synthetic().step_sizes
    torch.testing.assert_close(first, torch.full((6,), 0.07))
    for _ in range(5):
        distiller.step()
    sizes = distiller.synthetic().step_sizes
    assert bool((sizes > 0).all()) and len({round(s, 4) for s in sizes.tolist()}) > 1


def test_the_learning_rate_is_halved(home, data):
    distiller = start(data, halve=2, lr_img=0.08)
    seen = []
    for _ in range(5):
        distiller.step()
        seen.append(distiller.optimiser.param_groups[0]["lr"])
    assert seen == pytest.approx([0.08, 0.08, 0.04, 0.04, 0.02])


def test_gradients_far_longer_than_those_before_are_shortened(home, data):
    def grown(**values):
        distiller = start(data, initial="fixed", **values)
        lengths = []
        for scale in (1, 100):
            judge = distiller._judge
            distiller._judge = lambda *given, judge=judge, scale=scale: tuple(
                {k: scale * g for k, g in part.items()} if isinstance(part, dict) else part for part in judge(*given)
            )
            distiller.step()
            lengths.append([float(t.grad.norm()) for t in (distiller.images, distiller.raw_rates)])
        return [after / before for before, after in zip(*lengths, strict=True)]

    assert max(grown(clip=True)) < 30 < min(grown())


def test_a_run_ends_with_the_images_that_do_best_on_held_out_images(home, monkeypatch):
    monkeypatch.setattr(dd, "LOOK_EVERY", 1)
    data = make_data()
    hard = data.train_images.float() + 90 * torch.randn(data.train_images.shape, generator=torch.manual_seed(1))
    data = replace(data, train_images=hard.clamp(0, 255).to(torch.uint8))
    wild = {"initial": "fixed", "lr_img": 0.5, "keep_best": True}

    def right(distiller):
        found = evaluate(distiller.synthetic(), data, "dd", seeds=1, split="held-out", accel=pick_accel("cpu", True))
        return found.mean

    distiller, seen = start(data, **wild), []
    for step in range(16):
        distiller.progress = step / 16
        distiller.step()
        seen.append(right(distiller))
    best = max(seen[8:])
    assert max(seen[:8]) != best != seen[-1], "else this would show nothing"
    again = start(data, **wild)
    again.load_state_dict(distiller.state_dict())
    for one in (distiller, again):
        said = one.conclude()
        assert right(one) == best and f"update {9 + seen[8:].index(best)}:" in said and f"{best:.1%} right" in said
        assert one.images.grad is None, "it would be told as the shares of images that it does not belong to"


def test_without_a_look_the_last_images_are_the_result(home, data):
    distiller = start(data, initial="fixed", keep_best=True)
    distiller.step()
    before = distiller.images.detach().clone()
    assert distiller.conclude() == "" and torch.equal(distiller.images, before)


@pytest.mark.parametrize(("values", "words"), [
    ({"ipc": 3, "distill_steps": 2}, "3 images per class cannot be divided among 2"),
    ({"initial": "random-pretrained", "zca": True}, "not whitened"),
    ({"initial": "random", "keep_best": True}, "choose a fixed initial network"),
])  # fmt: skip
def test_what_does_not_fit_is_refused_before_and_at_the_start(home, data, values, words):
    with pytest.raises(Refused, match=words):
        start(data, **values)
    with pytest.raises(Refused, match=words):
        check(build_spec("distill", **{**SMALL, "dataset": "digits", **values}))


def test_a_longer_unroll_than_two_hundred_steps_cannot_be_asked_for():
    longest = build_spec("distill", method="dd", distill_steps=20, distill_epochs=10, ipc=20).parameters
    assert longest.distill_steps * longest.distill_epochs == 200
    for name, value in (("distill_steps", 21), ("distill_epochs", 11)):
        with pytest.raises(Refused, match=name):
            build_spec("distill", method="dd", **{name: value})


@pytest.mark.parametrize("initial", ["random", "fixed", "random-pretrained", "fixed-pretrained"])
def test_the_set_says_where_its_steps_begin(home, data, tmp_path, initial):
    made = start(data, initial=initial, source_steps=3, pool=2).synthetic()
    facts = made.start
    assert (facts.initial, facts.network, facts.width, facts.depth) == (initial, "convnet", 8, 2)
    assert facts.source == ("tiny" if "pretrained" in initial else "")
    assert set(facts.weights) == (set(make_network(**BUILD).state_dict()) if "fixed" in initial else set())


# ---- initial networks -----------------------------------------------------------------------------------------------


def test_fresh_networks_are_xavier_normal_without_biases():
    network = pretrained.fresh({"name": "mlp", "channels": 1, "size": 28, "classes": 10, "width": 8, "depth": 3}, 1)
    weight = network.body[1].weight
    assert weight.std().item() == pytest.approx((2 / (784 + 128)) ** 0.5, rel=0.02)
    assert not any(bool(p.any()) for p in network.parameters() if p.ndim == 1)
    again = pretrained.fresh({"name": "mlp", "channels": 1, "size": 28, "classes": 10, "width": 8, "depth": 3}, 1)
    assert torch.equal(weight, again.body[1].weight)


def test_pretrained_networks_have_learned_and_are_trained_once(home, data, cpu, monkeypatch):
    network = pretrained.pretrained(BUILD, data, 60, 5, cpu)
    with torch.no_grad():
        right = network(data.normalise(data.test_images)).argmax(1) == data.test_labels
    assert right.float().mean() > 0.8

    def never(*_):
        raise AssertionError("trained again")

    monkeypatch.setattr(pretrained, "_train", never)
    again = pretrained.pretrained(BUILD, data, 60, 5, cpu)
    assert all(torch.equal(a, b) for a, b in zip(network.parameters(), again.parameters(), strict=True))
    for changed in ((BUILD, data, 60, 6), (BUILD, data, 61, 5), ({**BUILD, "width": 4}, data, 60, 5),
                    (BUILD, make_data(name="other", classes="abc"), 60, 5)):  # fmt: skip
        with pytest.raises(AssertionError, match="trained again"):
            pretrained.pretrained(*changed, cpu)


def test_a_damaged_kept_network_is_trained_anew(home, data, cpu):
    first = pretrained.pretrained(BUILD, data, 3, 5, cpu)
    (path,) = (home / "cache" / "pretrained").iterdir()
    path.write_bytes(b"damaged")
    again = pretrained.pretrained(BUILD, data, 3, 5, cpu)
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), again.parameters(), strict=True))
    assert len(list((home / "cache" / "pretrained").iterdir())) == 1


def test_another_dataset_lends_its_images_in_the_shape_at_hand(monkeypatch):
    small, large = make_data(1, 8, "small"), make_data(3, 16, "large")
    monkeypatch.setattr("engine.data.load", lambda name, size: {"small": small, "large": large}[name])
    up, down = pretrained.source_dataset("small", large), pretrained.source_dataset("large", small)
    assert up.train_images.shape == (240, 3, 16, 16) and down.train_images.shape == (240, 1, 8, 8)
    assert len(up.mean) == 3 and up.normalise(up.train_images).std() == pytest.approx(1.0, abs=0.05)
    assert pretrained.source_dataset("", small) is small and pretrained.source_dataset("small", small) is small
    with pytest.raises(Refused, match="4 classes, not 3"):
        pretrained.source_dataset("small", make_data(name="other", classes="abc"))


def test_random_pretrained_networks_are_drawn_from_a_pool_that_students_do_not_get(home, data, cpu):
    distiller = start(data, initial="random-pretrained", source_steps=3, pool=2)
    for _ in range(6):
        distiller.step()
    assert len(distiller.pool) == 2
    kept = Start("random-pretrained", "convnet", 8, 2, "tiny", 3)
    for seed in range(3):
        student = pretrained.begin(kept, BUILD, seed, data, cpu)
        for weights in distiller.pool:
            assert not torch.equal(student.head.weight, weights["head.weight"])
