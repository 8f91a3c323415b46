"""Every network under every protocol: it learns, repeats itself, and batches of seeds are the seeds alone."""

from dataclasses import replace

import pytest
import torch

from engine.errors import Refused
from engine.networks import make_network
from engine.spec import STUDENT_NETWORKS
from engine.students import evaluate
from engine.students.adversary import Adversary
from engine.students.fit import as_student, fit, train_one
from engine.students.protocols import PROTOCOLS, TRAINING, protocol_for
from engine.students.train import make_plan, make_real_plan
from engine.synthetic import Start, fit_zca
from tests.students.conftest import make_data, make_set
from tests.students.test_train import run

STEPS = {"vgg11": 20, "resnet18": 10, "resnet18-bn": 10, "alexnet": 20}
HEAVY = ("alexnet", "vgg11", "resnet18", "resnet18-bn")


def small(plan, network, **changes):
    """``plan`` narrow, and short enough for a test."""
    shortened = {"epochs": None, "steps": ((1, STEPS.get(network, 60)),), **changes}
    return replace(plan, width=8, protocol=replace(plan.protocol, **shortened))


def accuracy(module, plan):
    with torch.no_grad():
        return float((module(plan.images).argmax(1) == plan.targets).float().mean())


def finish(slices):
    while True:
        try:
            next(slices)
        except StopIteration as end:
            return end.value


@pytest.fixture(scope="module")
def sixteen():
    return make_data(size=16, count=60)


@pytest.mark.slow
@pytest.mark.parametrize("network", STUDENT_NETWORKS)
def test_it_learns_a_handful_of_images(sixteen, cpu, network):
    plan = make_plan(make_set(sixteen, 2), sixteen, "dc", network, cpu)
    # The protocol's rate is made for hundreds of epochs
    rate = plan.protocol.rate * {"vit": 1, "vgg11": 0.5}.get(network, 5)
    module = finish(train_one(small(plan, network, rate=rate, schedule="cosine"), seed=1))
    assert accuracy(module, plan) == 1.0
    assert not module.training


@pytest.mark.parametrize("network", [n for n in STUDENT_NETWORKS if n not in HEAVY])
@pytest.mark.parametrize("protocol", [*TRAINING])
def test_every_protocol_trains_every_network(sixteen, cpu, network, protocol):
    own = {"step_sizes": torch.full((2,), 0.1), "start": Start("random", "mlp", 8, 3)} if protocol == "dd" else {}
    plan = make_plan(make_set(sixteen, **own), sixteen, protocol, network, cpu)
    before = make_network(**{**plan.build(), "width": 8}, seed=3)
    module = finish(train_one(small(plan, network, steps=((1, 2),)), seed=3))
    again = finish(train_one(small(plan, network, steps=((1, 2),)), seed=3))
    moved = [not torch.equal(a, b) for a, b in zip(before.parameters(), module.parameters(), strict=True)]
    assert any(moved) and all(bool(torch.isfinite(p).all()) for p in module.parameters())
    for ours, theirs in zip(module.state_dict().values(), again.state_dict().values(), strict=True):
        assert torch.equal(ours, theirs)


@pytest.mark.parametrize("network", ["resnet18-bn", "vit", "edge-popup"])
def test_an_ensemble_is_the_loop(sixteen, cpu, network):
    plan = small(make_plan(make_set(sixteen), sixteen, "dc", network, cpu), network, steps=((1, 2),))
    plan = replace(plan, images=plan.images.double())
    together, _ = run(plan, [3, 4])
    images = torch.randn(4, 1, 16, 16, dtype=torch.float64)
    for i, seed in enumerate((3, 4)):
        alone, _ = run(plan, [seed])
        for name, parameter in alone.parameters.items():
            assert torch.allclose(together.parameters[name][i], parameter, rtol=1e-5, atol=1e-8), (seed, name)
        assert torch.equal(together.predict(images)[i], alone.predict(images)[0])


def test_edge_popup_learns_scores_and_leaves_its_weights_alone(sixteen, cpu):
    plan = small(make_plan(make_set(sixteen), sixteen, "dc", "edge-popup", cpu), "edge-popup")
    plan = replace(plan, options=(("keep", 0.3), ("weights", "signed")))
    module = finish(train_one(plan, seed=6))
    start = plan.make(6)
    for before, after in zip(start.buffers(), module.buffers(), strict=True):
        assert torch.equal(before, after)
    layers = [(a, b) for a, b in zip(start.modules(), module.modules(), strict=True) if hasattr(b, "mask")]
    assert len(layers) == 4
    for _, after in layers:
        assert after.mask().sum() == round(0.3 * after.scores.numel())
    assert any(not torch.equal(before.mask(), after.mask()) for before, after in layers)


def test_batch_statistics_are_those_of_the_training_images(sixteen, cpu):
    plan = small(make_plan(make_set(sixteen), sixteen, "dc", "resnet18-bn", cpu), "resnet18-bn", steps=((1, 2),))
    module = finish(train_one(plan, seed=0))
    first = module.body[1]
    with torch.no_grad():
        entering = module.body[0](plan.images)
    assert torch.allclose(first.running_mean, entering.mean((0, 2, 3)), atol=1e-5)
    assert torch.allclose(first.running_var, entering.var((0, 2, 3)), rtol=1e-3)


def test_evaluation_takes_any_network(sixteen, cpu):
    found = evaluate(make_set(sixteen, 5), sixteen, "quick", network="edge-popup", seeds=1, accel=cpu)
    assert found.network == "edge-popup" and 0 <= found.mean <= 1


def test_fit_learns_real_images_and_repeats_itself(sixteen, cpu):
    heard = []
    images, labels = sixteen.train_images, sixteen.train_labels
    first, again, other = (
        fit(images, labels, sixteen, "convnet", seed=s, steps=60, accel=cpu, tell=heard.append, width=8)
        for s in (0, 0, 1)
    )
    student = as_student(first, sixteen, "mine", network="convnet")
    found = (student.logits(sixteen.test_images).argmax(1) == sixteen.test_labels).float().mean()
    assert found > 0.9
    assert torch.equal(first.head.weight, again.head.weight) and not torch.equal(first.head.weight, other.head.weight)
    assert heard == sorted(heard[:60]) * 3 and heard[59] == 1.0
    assert student.name == "mine" and student.classes == sixteen.classes
    with pytest.raises(Refused, match="uint8"):
        fit(images.float(), labels, sixteen, "convnet", seed=0, accel=cpu)


def test_epochs_are_counted_in_passes(sixteen, cpu):
    heard = []
    fit(sixteen.train_images, sixteen.train_labels, sixteen, "mlp", seed=0, epochs=3, accel=cpu, tell=heard.append)
    assert len(heard) == 3  # 60 images in batches of 128


def test_light_augmentation_mirrors_only_where_the_class_stays(cpu):
    for channels, name, flips, shift in ((3, "squares", True, 2), (1, "squares", False, 2), (1, "mnist", False, 1)):
        data = replace(make_data(channels=channels, size=16, count=30), name=name)
        plan = make_real_plan(data.train_images, data.train_labels, data, "full", "mlp", cpu)
        assert (plan.flips, plan.shift, plan.strategy) == (flips, shift, "light")


def test_full_is_no_protocol_for_comparing_sets():
    assert "full" not in PROTOCOLS and TRAINING["full"].name == "full"
    full = protocol_for("full", "cifar10", "convnet")
    assert full.step_count(50_000) == 10 * 391
    assert protocol_for("full", "mnist", "convnet").step_count(60_000) == 3 * 469
    assert protocol_for("dc", "cifar10", "vit").optimiser == "adam"
    assert protocol_for("dc", "cifar10", "edge-popup").rate == pytest.approx(0.1)
    assert protocol_for("dsa", "cifar10", "convnet") is PROTOCOLS["dsa"]


# ---- adversarial training ----


@pytest.mark.parametrize("whitened", [False, True])
def test_the_attack_stays_in_its_ball_and_raises_the_loss(sixteen, cpu, whitened):
    plan = small(make_plan(make_set(sixteen, 4), sixteen, "dc", "convnet", cpu), "convnet")
    module = finish(train_one(plan, seed=0))
    zca = fit_zca(sixteen.normalise(sixteen.train_images), ratio=10) if whitened else None
    images = zca.whiten(plan.images) if zca else plan.images
    adversary = Adversary(8.0, 3, sixteen.mean, sixteen.std, zca)

    def loss(x):
        return torch.nn.functional.cross_entropy(module(zca.unwhiten(x) if zca else x), plan.targets)

    def gradient(x):
        x = x.detach().requires_grad_()
        return torch.autograd.grad(loss(x), x)[0]

    noise = 2 * torch.rand(images.shape, generator=torch.Generator().manual_seed(0)) - 1
    moved = adversary.attack(gradient, images, noise)
    pixels = [(zca.unwhiten(x) if zca else x) * 0.2 + 0.2 for x in (images, moved)]
    change = (pixels[1] - pixels[0]).abs().max()
    assert 0.5 * 8 / 255 < change <= 8 / 255 + 1e-4
    assert pixels[1].min() > -1e-4 and pixels[1].max() < 1 + 1e-4
    assert loss(moved) > loss(images) + 0.01
    assert loss(moved) > loss(adversary.attack(lambda x: -gradient(x), images, noise))


def test_adversarial_training_resists_the_attack(sixteen, cpu):
    plan = small(make_plan(make_set(sixteen, 8), sixteen, "full", "mlp", cpu), "mlp", steps=((1, 80),))
    hardened = replace(plan, adversary=Adversary(50.0, 5, sixteen.mean, sixteen.std))
    losses = []
    for one in (plan, hardened):
        module = finish(train_one(one, seed=2))

        def gradient(x, module=module):
            x = x.detach().requires_grad_()
            return torch.autograd.grad(torch.nn.functional.cross_entropy(module(x), plan.targets), x)[0]

        moved = hardened.adversary.attack(gradient, plan.images, torch.zeros_like(plan.images))
        losses.append(torch.nn.functional.cross_entropy(module(moved), plan.targets).item())
    assert losses[1] < losses[0]
