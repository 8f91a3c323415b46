"""Gradient matching under siamese augmentation and by other distances, against plain loops in float64."""

import pytest
import torch
import torch.nn.functional as F

from engine.accel import pick_accel
from engine.augment import Draw, apply, draw
from engine.data.base import Dataset
from engine.distill import make_distiller
from engine.distill.dc import gradient_distance
from engine.distill.images import class_batch, new_seed
from engine.errors import Refused
from engine.networks import make_network
from engine.runs.validate import check
from engine.spec import build_spec

CLASSES, IPC, REAL = 3, 2, 5


def random(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def plain_distance(synthetic, real, distance):
    """One class's distance, written out; both are lists of gradients."""
    if distance == "rows":
        total = 0.0
        for a, b in zip(synthetic, real, strict=True):
            for x, y in zip(a, b, strict=True) if a.ndim > 1 else ():
                x, y = x.flatten(), y.flatten()
                total = total + 1 - x @ y / (x.norm() * y.norm() + 1e-6)
        return total
    a, b = (torch.cat([g.flatten() for g in gradients]) for gradients in (synthetic, real))
    if distance == "cosine":
        return 1 - a @ b / (a.norm() * b.norm() + 1e-6)
    return ((a - b) ** 2).sum()


@pytest.mark.parametrize("distance", ["rows", "cosine", "squared"])
def test_distances_are_sums_over_classes(distance):
    shapes = {"conv": (4, 2, 3, 3), "bias": (4,), "linear": (3, 8)}
    a = {k: random(CLASSES, *s, seed=i) for i, (k, s) in enumerate(shapes.items())}
    b = {k: random(CLASSES, *s, seed=9 + i) for i, (k, s) in enumerate(shapes.items())}
    expected = sum(
        plain_distance([g[c] for g in a.values()], [g[c] for g in b.values()], distance) for c in range(CLASSES)
    )
    assert gradient_distance(a, b, distance).item() == pytest.approx(expected.item(), rel=1e-10)


@pytest.fixture
def data():
    g = torch.Generator().manual_seed(0)
    images = torch.randint(0, 255, (120, 1, 8, 8), generator=g, dtype=torch.uint8)
    labels = torch.arange(120) % CLASSES
    return Dataset("tiny", "Tiny", tuple("abc"), images, labels, images[:9], labels[:9], (0.5,), (0.3,))


def start(data, method="dsa", **values):
    distiller = make_distiller(method)
    spec = {"dataset": "tiny", "width": 8, "depth": 2, "batch_real": REAL, "deterministic": True}
    spec = build_spec("distill", method=method, **{**spec, **values})
    distiller.setup(spec, data, pick_accel("cpu", True))
    return distiller


@pytest.mark.parametrize("method", ["dc", "dsa"])
@pytest.mark.parametrize("distance", ["rows", "squared"])
def test_an_iteration_is_the_papers(home, data, method, distance):
    """Two updates of the images with training between them: class by class, with autograd, in double precision."""
    distiller = start(data, method, ipc=IPC, distance=distance, inner_loop=3, lr_img=0.1, lr_net=0.05)
    generator = torch.Generator().set_state(distiller.generator.get_state())
    images, labels = distiller.synthetic().images.double(), torch.arange(CLASSES).repeat_interleave(IPC)
    momentum = torch.zeros_like(images)

    def augmentation(rows=1):
        return draw("color_crop_cutout_scale_rotate", generator, 8, rows) if method == "dsa" else None

    def under(drawn, x):
        return apply(x, drawn) if drawn else x

    network = make_network(*distiller.key, seed=new_seed(generator)).double()
    weights = list(network.parameters())
    for update in range(2):
        drawn = [augmentation() for _ in range(CLASSES)]
        leaf, total = images.clone().requires_grad_(), 0.0
        for c in range(CLASSES):
            real = data.normalise(data.train_images[class_batch(data, c, REAL, generator)]).double()
            loss = F.cross_entropy(network(under(drawn[c], real)), torch.full((REAL,), c))
            target = torch.autograd.grad(loss, weights)
            own = labels == c
            loss = F.cross_entropy(network(under(drawn[c], leaf[own])), labels[own])
            gradients = torch.autograd.grad(loss, weights, create_graph=True)
            total = total + plain_distance(gradients, target, distance)
        (gradient,) = torch.autograd.grad(total, leaf)
        momentum = 0.5 * momentum + gradient
        images = images - 0.1 * momentum
        assert distiller.step().loss == pytest.approx(total.item(), rel=1e-4)
        torch.testing.assert_close(distiller.synthetic().images.double(), images, rtol=0, atol=1e-3 * gradient.std())
        for _ in range(3 if update == 0 else 0):
            order = torch.randperm(len(images), generator=generator)
            loss = F.cross_entropy(network(under(augmentation(len(images)), images[order])), labels[order])
            for p, g in zip(weights, torch.autograd.grad(loss, weights), strict=True):
                p.data -= 0.05 * g
    distiller.step()  # the iteration is over: a fresh network
    fresh = make_network(*distiller.key, seed=new_seed(generator))
    torch.testing.assert_close(distiller.params["head.bias"].detach(), fresh.head.bias.detach(), rtol=0, atol=0.3)


def test_the_augmentations_of_a_view_are_those_its_gradients_saw(home, data):
    """What the bank keeps for a class is the gradient on real images under the augmentation kept beside it."""
    distiller = start(data, variant="bank", batch_real=60)  # more than a class has: every look sees all of it
    for _ in range(8):
        distiller.step()
    view = distiller.bank.views[-1]
    network = make_network(*distiller.key)
    network.load_state_dict(view["params"])
    kinds = set()
    for c, (kind, values) in enumerate(view["augmentations"]):
        kinds.add((kind, *values.flatten().tolist()))
        real = apply(data.normalise(data.train_images[data.by_class[c]]), Draw(kind, values))
        loss = F.cross_entropy(network(real), torch.full((len(real),), c))
        expected = torch.autograd.grad(loss, list(network.parameters()))
        for name, g in zip(view["params"], expected, strict=True):
            torch.testing.assert_close(view["classes"][c][name], g, rtol=1e-3, atol=1e-5)
    assert len(kinds) == CLASSES  # one of its own for each class


def test_the_bank_is_refused_before_the_run_where_the_network_is_trained():
    for method in ("dc", "dsa"):
        with pytest.raises(Refused, match="1 image per class"):
            check(build_spec("distill", dataset="digits", method=method, ipc=10, variant="bank"))
        check(build_spec("distill", dataset="digits", method=method, ipc=10, variant="bank", outer_loop=1))
