from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from engine import augment
from engine.accel import Accel
from engine.errors import Refused
from engine.networks import make_network
from engine.students import train_student, train_students
from engine.students.train import Pace, _targets, make_plan, train_slices
from engine.synthetic import fit_zca
from tests.students.conftest import make_data, make_set


def run(plan, seeds):
    slices, fractions = train_slices(plan, seeds), []
    while True:
        try:
            fractions.append(next(slices))
        except StopIteration as end:
            return end.value, fractions


def short(plan, **changes):
    """``plan`` in float64 with a small network and a shortened protocol."""
    protocol = replace(plan.protocol, **changes)
    targets = plan.targets.double() if plan.targets.is_floating_point() else plan.targets
    return replace(plan, protocol=protocol, width=4, images=plan.images.double(), targets=targets)


def plain_sgd(plan, seed, epochs):
    """The protocol of the papers' code, written out with nothing of ours but the network and the augmentation."""
    network = make_network("convnet", plan.images.shape[1], plan.images.shape[2], plan.classes, 4, seed=seed).double()
    generator = torch.Generator().manual_seed(seed)
    rate, velocity = 0.01, None
    for epoch in range(epochs):
        if epoch == epochs // 2 + 1:
            rate, velocity = 0.001, None
        for chosen in torch.randperm(len(plan.images), generator=generator).split(plan.protocol.batch):
            images = plan.images[chosen]
            if plan.strategy:
                drawn = augment.draw(plan.strategy, generator, images.shape[2], len(images))
                images = augment.apply(images, drawn)
            loss = F.cross_entropy(network(images), plan.targets[chosen])
            gradients = torch.autograd.grad(loss, list(network.parameters()))
            with torch.no_grad():
                steps = [g + 5e-4 * p for g, p in zip(gradients, network.parameters(), strict=True)]
                velocity = steps if velocity is None else [0.9 * v + s for v, s in zip(velocity, steps, strict=True)]
                for parameter, step in zip(network.parameters(), velocity, strict=True):
                    parameter -= rate * step
    return dict(network.named_parameters())


@pytest.mark.parametrize("protocol", ["dc", "dsa"])
def test_training_is_the_papers(data, cpu, protocol):
    plan = short(make_plan(make_set(data, 3), data, protocol, accel=cpu), epochs=6, batch=4)
    group, _ = run(plan, [5])
    for name, expected in plain_sgd(plan, 5, 6).items():
        assert torch.allclose(group.parameters[name], expected, rtol=1e-9, atol=1e-12), name


def test_adam_follows_the_cosine(data, cpu):
    plan = make_plan(make_set(data), data, "frepo", "convnet", cpu)
    plan = replace(short(plan, steps=((1, 9),), warmup=3), strategy=None)
    group, _ = run(plan, [2])
    network = make_network("convnet", 1, 8, 3, 4, seed=2).double()
    optimiser = torch.optim.Adam(network.parameters())
    generator = torch.Generator().manual_seed(2)
    for step in range(9):
        factor = (step + 1) / 3 if step < 3 else 0.5 * (1 + torch.cos(torch.tensor(torch.pi * (step - 3) / 6)).item())
        optimiser.param_groups[0]["lr"] = 3e-4 * factor
        chosen = torch.randperm(len(plan.images), generator=generator)
        optimiser.zero_grad()
        (0.5 * (network(plan.images[chosen]) - plan.targets[chosen]).square().mean()).backward()
        optimiser.step()
    for name, expected in network.named_parameters():
        assert torch.allclose(group.parameters[name], expected, rtol=1e-6, atol=1e-9), name


@pytest.mark.parametrize(("protocol", "network"), [("dsa", "convnet"), ("frepo", "convnet"), ("dc", "lenet")])
def test_an_ensemble_is_the_loop(cpu, protocol, network):
    data = make_data(size=16)
    plan = make_plan(make_set(data), data, protocol, network, cpu)
    shortened = {"epochs": 4} if protocol != "frepo" else {"steps": ((1, 4),)}
    plan = short(plan, **shortened)
    together, _ = run(plan, [3, 4, 7])
    assert plan.groups([3, 4, 7], ensemble=True) == [[3, 4, 7]] and plan.groups([3, 4], ensemble=False) == [[3], [4]]
    images = torch.randn(5, 1, 16, 16, dtype=torch.float64)
    for i, seed in enumerate((3, 4, 7)):
        alone, _ = run(plan, [seed])
        for name, parameter in alone.parameters.items():
            assert torch.allclose(together.parameters[name][i], parameter, rtol=1e-7, atol=1e-10), (seed, name)
        assert torch.equal(together.predict(images)[i], alone.predict(images)[0])


def test_a_seed_does_not_depend_on_the_others(data, cpu):
    synthetic = make_set(data)
    alone = train_student(synthetic, data, "quick", seed=4, accel=cpu)
    among = train_students(synthetic, data, "quick", seeds=[2, 4], accel=cpu)
    assert not alone.training
    for ours, theirs, other in zip(alone.parameters(), among[1].parameters(), among[0].parameters(), strict=True):
        assert torch.equal(ours, theirs)
        assert ours.ndim == 1 or not torch.equal(ours, other)


def test_targets():
    hard = torch.tensor([0, 2])
    assert _targets(hard, 4, "cross-entropy") == (hard, "cross-entropy")
    centred, loss = _targets(hard, 40, "squared")
    assert loss == "squared" and centred[0, 0] == pytest.approx(0.975 / 2) and centred[0, 1] == pytest.approx(-0.0125)
    probabilities = torch.tensor([[0.25, 0.75], [1.0, 0.0]])
    assert _targets(probabilities, 2, "cross-entropy")[1] == "cross-entropy"
    assert _targets(probabilities, 2, "squared")[1] == "squared"
    assert _targets(probabilities - 0.5, 2, "cross-entropy")[1] == "squared"
    assert _targets(torch.tensor([[1.5, -0.5]]), 2, "cross-entropy")[1] == "squared"


def test_refusals(data, cpu):
    synthetic = make_set(data)
    with pytest.raises(Refused, match="quick, dc, dsa, frepo"):
        make_plan(synthetic, data, "best", accel=cpu)
    with pytest.raises(Refused, match="1×8×8.*3×8×8"):
        make_plan(synthetic, make_data(channels=3), "dc", accel=cpu)
    with pytest.raises(Refused, match="3 classes"):
        make_plan(synthetic, make_data(classes=4), "dc", accel=cpu)
    with pytest.raises(Refused, match="no network"):
        train_student(synthetic, data, "quick", network="transformer", accel=cpu)


def test_whitened_sets_train(data, cpu):
    zca = fit_zca(data.normalise(data.train_images), ratio=10)
    synthetic = make_set(data, 10)
    whitened = make_set(data, 10, images=zca.whiten(synthetic.images), zca=zca)
    network = train_student(whitened, data, "quick", accel=cpu)
    with torch.no_grad():
        guessed = network(whitened.prepare(data.test_images)).argmax(1)
    assert (guessed == data.test_labels).float().mean() > 0.5


def test_compiling_waits_for_slow_steps(monkeypatch):
    times = iter(range(0, 100, 2))
    monkeypatch.setattr("engine.students.train.time.perf_counter", lambda: next(times))
    pace = Pace()
    assert not pace.slow(10**6)
    for _ in range(5):
        with pace:
            pass
    assert pace.slow(23) and not pace.slow(22)


def test_the_compiled_step_computes_the_same(data):
    """Compiled in the foreground here; needs a C++ compiler, else the accelerator stays eager and nothing is tested."""
    accel = Accel(torch.device("cpu"), compile=True)
    plan = short(make_plan(make_set(data), data, "dc", "mlp", accel), epochs=2)
    group, _ = run(plan, [0])
    fast = group.program.fast_step
    fast.background = False
    arguments = (group.parameters, plan.images, plan.targets)
    (gradients, loss), (expected, wanted) = fast(*arguments), group.program.step(*arguments)
    if fast.failed:
        pytest.skip(fast.failed[:200])
    assert loss.item() == pytest.approx(wanted.item(), rel=1e-9)
    for name in expected:
        assert torch.allclose(gradients[name], expected[name], rtol=1e-7, atol=1e-10)
