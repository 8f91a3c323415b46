"""FRePo's falling step size, mirror images and augmentation."""

import copy
import math

import pytest
import torch

from engine import augment
from engine.accel import pick_accel
from engine.data.base import Dataset
from engine.distill import frepo, make_distiller
from engine.distill.base import cosine, on_device
from engine.distill.frepo import margin_loss, regression_loss
from engine.networks import make_network
from engine.spec import build_spec


def dataset(name="cifar10"):
    """Noise under the name of a dataset, which says whether a mirrored image keeps its class."""
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 255, (120, 3, 8, 8), generator=generator, dtype=torch.uint8)
    labels = torch.arange(120) % 3
    return Dataset(name, "Noise", tuple("abc"), images, labels, images[:9], labels[:9], (0.5,) * 3, (0.3,) * 3)


def start(data, **values):
    distiller = make_distiller("frepo")
    spec = {"dataset": "tiny", "width": 8, "depth": 2, "batch_real": 16, "deterministic": True, "ipc": 2}
    distiller.setup(build_spec("distill", method="frepo", **{**spec, **values}), data, pick_accel("cpu", True))
    return distiller


def test_the_step_size_falls_to_a_tenth_along_a_cosine():
    assert [cosine(p) for p in (0.0, 1.0)] == pytest.approx([1.0, 0.1])
    assert cosine(0.5) == pytest.approx(0.55) and cosine(0.25) == pytest.approx(
        0.1 + 0.45 * (1 + math.cos(math.pi / 4))
    )


def test_steps_late_in_the_budget_are_smaller_unless_asked_otherwise(home):
    """Of one state, a step at the end of the budget moves everything a tenth as far as one at its beginning."""
    data = dataset()
    for values, ratio in (({}, 0.1), ({"cosine": False}, 1.0)):
        distiller = start(data, **values)
        before = distiller.synthetic()
        state, moves = copy.deepcopy(distiller.state_dict()), []
        for progress in (0.0, 1.0):
            distiller.load_state_dict(copy.deepcopy(state))
            distiller.progress = progress
            distiller.step()
            made = distiller.synthetic()
            moves.append((made.images - before.images, made.labels - before.labels))
        for early, late in zip(*moves, strict=True):
            torch.testing.assert_close(late, ratio * early, rtol=1e-2, atol=1e-6)


def test_a_step_with_mirror_images_is_regression_from_both(home):
    """The gradient that reaches the images is that of regression from them and their mirror images, in float64."""
    distiller = start(dataset(), mirror=True, augment=False, lr_img=1e-3)
    x, y = (t.detach().clone() for t in (distiller.images, distiller.labels))
    distiller.step()
    net = distiller.pool[0]
    network = make_network(*distiller.key).double()
    network.load_state_dict(net["params"])
    x, y = x.double().requires_grad_(), y.double().requires_grad_()
    both, labels = torch.cat([x, x.flip(3)]), torch.cat([y, y])
    loss = regression_loss(network.features(both), labels, net["real"].double(), net["targets"].double())
    gx, gy = torch.autograd.grad(loss + margin_loss(labels), (x, y))
    assert (distiller.images.grad - gx).norm() < 1e-2 * gx.norm()
    assert (distiller.labels.grad - gy).norm() < 1e-2 * gy.norm()


def test_an_augmented_step_is_regression_from_augmented_images(home, monkeypatch):
    """Its gradient goes back through the very augmentation that the step drew, and networks train under others."""
    distiller = start(dataset(), mirror=False, lr_img=1e-3)
    x, y = (t.detach().double().requires_grad_() for t in (distiller.images, distiller.labels))
    drawn, seen = [], []

    def watched(*arguments):
        drawn.append(augment.draw(*arguments))
        return drawn[-1]

    monkeypatch.setattr(frepo, "draw", watched)
    net_step = distiller._net_step
    distiller._net_step = lambda params, images, labels: seen.append(images) or net_step(params, images, labels)
    distiller.step()
    net = distiller.pool[0]
    network = make_network(*distiller.key).double()
    network.load_state_dict(net["params"])
    shown = augment.apply(x, augment.Draw(drawn[0].kind, drawn[0].values.double()))
    loss = regression_loss(network.features(shown), y, net["real"].double(), net["targets"].double())
    gx, gy = torch.autograd.grad(loss + margin_loss(y), (x, y))
    assert (distiller.images.grad - gx).norm() < 1e-2 * gx.norm()
    assert (distiller.labels.grad - gy).norm() < 1e-2 * gy.norm()
    distiller._train(net, 2)
    now = distiller.images.detach()
    for images, own in zip(seen, drawn[1:], strict=True):
        torch.testing.assert_close(images, augment.apply(now, own))


def test_images_are_not_mirrored_where_that_changes_their_class(home):
    distillers = [start(dataset("svhn"), mirror=mirror) for mirror in (True, False)]
    for distiller in distillers:
        for _ in range(10):
            distiller.step()
    assert torch.equal(*(d.synthetic().images for d in distillers))


def test_a_state_that_was_read_to_the_cpu_goes_back_to_the_device():
    state = {"views": [{"params": {"w": torch.ones(2)}, "augmentations": [["flip", torch.ones(1, 1)], []]}], "ticks": 3}
    moved = on_device(state, torch.device("meta"))
    (view,) = moved["views"]
    assert view["params"]["w"].is_meta and view["augmentations"][0][1].is_meta
    assert moved["ticks"] == 3 and view["augmentations"][0][0] == "flip" and view["augmentations"][1] == []
