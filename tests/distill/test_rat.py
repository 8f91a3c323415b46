"""RaT-BPTT: Adam's steps and the way back through them are Adam's, and only the window is gone back through."""

import pytest
import torch
import torch.nn.functional as F
from torch.func import functional_call

from engine.accel import pick_accel
from engine.data.base import Dataset
from engine.distill import make_distiller, rat
from engine.distill.unroll import clipped, unroll
from engine.errors import Refused
from engine.networks import make_network
from engine.runs.validate import check
from engine.spec import build_spec

CLASSES, STEPS = 3, 4


def random(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.fixture
def network():
    return make_network("convnet-wide", 1, 8, CLASSES, width=4, seed=3).double()


@pytest.fixture
def loss(network):
    return lambda weights, x, y: F.cross_entropy(functional_call(network, weights, (x,)), y)


def young(network):
    weights = {k: p.detach() for k, p in network.named_parameters()}
    zeros = {name: {k: torch.zeros_like(w) for k, w in weights.items()} for name in ("m", "v")}
    return {"weights": weights, **zeros, "age": torch.zeros((), dtype=torch.float64)}


def test_its_steps_are_those_of_adam(network, loss):
    state, rate = young(network), torch.tensor(0.01, dtype=torch.float64)
    begin = {k: w.clone() for k, w in state["weights"].items()}
    advance = rat.adam(loss)
    optimiser = torch.optim.Adam(network.parameters(), lr=0.01)
    for step in range(STEPS):
        x, y = random(5, 1, 8, 8, seed=step), torch.arange(5) % CLASSES
        state = advance(state, x, y, rate)
        optimiser.zero_grad()
        F.cross_entropy(network(x), y).backward()
        optimiser.step()
    theirs, ours, first = (
        torch.cat([w.detach().flatten() for w in weights.values()])
        for weights in (dict(network.named_parameters()), state["weights"], begin)
    )
    # A few gradients here are as small as epsilon, which stands outside of torch's root
    assert float((ours - theirs).norm()) < 5e-3 * float((theirs - first).norm())


def test_the_gradient_is_that_of_autograd_through_adam(network, loss):
    """Algorithm 1 of Kingma & Ba, written out and differentiated as a whole, in float64."""
    x = random(5, 1, 8, 8).requires_grad_()
    y, rate = torch.arange(5) % CLASSES, 0.01
    weights = {k: p.detach().requires_grad_() for k, p in network.named_parameters()}
    m, v = ({k: 0.0 for k in weights} for _ in range(2))
    for t in range(1, STEPS + 1):
        slopes = torch.autograd.grad(loss(weights, x, y), list(weights.values()), create_graph=True)
        for (k, w), g in zip(list(weights.items()), slopes, strict=True):
            m[k], v[k] = 0.9 * m[k] + 0.1 * g, 0.999 * v[k] + 0.001 * g**2
            root = (v[k] / (1 - 0.999**t) + 1e-16) ** 0.5
            weights[k] = w - rate * m[k] / (1 - 0.9**t) / root
    target, goal = random(5, 1, 8, 8, seed=1), torch.arange(5) % CLASSES
    (expected,) = torch.autograd.grad(loss(weights, target, goal), x)

    batches = [(x, y)] * STEPS
    final, sweep = unroll(rat.adam(loss), young(network), batches, torch.full((STEPS,), rate).double())
    at = {k: w.detach().requires_grad_() for k, w in final["weights"].items()}
    slopes = torch.autograd.grad(loss(at, target, goal), list(at.values()))
    zeros = {name: {k: torch.zeros_like(w) for k, w in at.items()} for name in ("m", "v")}
    found = sweep({"weights": dict(zip(at, slopes, strict=True)), **zeros, "age": torch.zeros(()).double()})
    torch.testing.assert_close(sum(found.images), expected, rtol=1e-6, atol=1e-10)


def test_a_weight_that_was_never_moved_leaves_the_gradient_finite():
    """An input that is always zero: its weight's gradient and both of its averages are exactly zero."""
    advance = rat.adam(lambda w, x, y: (w["a"] * x).sum() ** 2)
    w = {"a": torch.ones(2)}
    state = {"weights": w, "m": {"a": torch.zeros(2)}, "v": {"a": torch.zeros(2)}, "age": torch.zeros(())}
    x, rate = torch.tensor([1.0, 0.0]), torch.tensor(0.1)
    _, sweep = unroll(advance, state, [(x, torch.zeros(1))], rate.view(1))
    back = sweep({**state, "weights": {"a": torch.ones(2)}})
    assert all(bool(t.isfinite().all()) for t in (back.state["weights"]["a"], back.state["v"]["a"], *back.images))


def test_the_gradient_is_no_longer_than_twice_its_moving_average():
    gradient = torch.tensor([3.0, 4.0])
    first, average = clipped(gradient, None)
    assert torch.equal(first, gradient) and average == 5
    second, average = clipped(100 * gradient, average)
    assert average == pytest.approx(0.9 * 5 + 0.1 * 500)
    assert float(second.norm()) == pytest.approx(2 * average)


def tiny():
    images = torch.randint(0, 256, (60, 1, 8, 8), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    return Dataset("tiny", "Tiny", tuple("abc"), images, torch.arange(60) % 3, images[:9], torch.arange(9) % 3,
                   (0.5,), (0.3,))  # fmt: skip


def start(**values):
    small = {"dataset": "tiny", "method": "rat", "width": 8, "depth": 2, "batch_real": 16, "deterministic": True}
    distiller = make_distiller("rat")
    distiller.setup(build_spec("distill", **{**small, **values}), tiny(), pick_accel("cpu", True))
    return distiller


def test_trainings_of_every_length_end_in_a_window(home):
    distiller = start(total=6, window=4)
    advances = []
    advance = distiller._advance
    distiller._advance = lambda *a: advances.append(torch.is_grad_enabled()) or advance(*a)
    lengths = set()
    for _ in range(20):
        advances.clear()
        report = distiller.step()
        assert sum(advances) == 4 and len(advances) == report.extras["trained"]
        lengths.add(len(advances))
    assert lengths == {4, 5, 6}


def test_a_step_sees_no_more_images_than_it_may(home):
    distiller = start(total=3, window=2, ipc=4, batch_syn=5)
    before = distiller.synthetic().images
    images, labels = distiller._batch()
    assert images.shape == (5, 1, 8, 8) and labels.shape == (5,)
    for image, label in zip(images, labels, strict=True):
        same = [i for i in range(12) if torch.equal(before[i], image.detach())]
        assert [int(distiller.classes[i]) for i in same] == [int(label)]


def test_a_window_longer_than_the_training_is_refused(home):
    with pytest.raises(Refused, match="window"):
        start(total=5, window=6)
    with pytest.raises(Refused, match="window"):
        check(build_spec("distill", dataset="digits", method="rat", total=5, window=6))
    with pytest.raises(Refused, match="from 1 to 200"):
        build_spec("distill", method="rat", total=201)
