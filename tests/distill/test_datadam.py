"""Attention matching against the paper's equations written out, in float64."""

import pytest
import torch
from torch.func import functional_call

from engine.accel import pick_accel
from engine.data.base import Dataset
from engine.distill import make_distiller
from engine.distill.datadam import AttentionEmbedding, attention
from engine.distill.dm import matching_loss
from engine.errors import Refused
from engine.networks import make_network
from engine.runs.validate import check
from engine.spec import build_spec

CLASSES, IPC, REAL = 3, 2, 4


def random(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("power", [1, 4])
def test_a_map_is_the_normalised_sum_of_powers_over_channels(power):
    activations = random(2, 3, 2, 2)
    maps = attention(activations, power)
    for n in range(2):
        plain = [sum(abs(activations[n, c, i, j]) ** power for c in range(3)) for i in range(2) for j in range(2)]
        length = sum(a**2 for a in plain) ** 0.5
        torch.testing.assert_close(maps[n], torch.stack(plain) / length)


@pytest.mark.parametrize(("network", "depth"), [("convnet", 3), ("convnet-wide", 3), ("lenet", 3)])
def test_the_loss_and_its_gradient_are_the_papers(network, depth):
    """100 · (attention term + 0.01 · mean-embedding term), with activations caught by hooks as in the paper's code."""
    net = make_network(network, 1, 16, CLASSES, width=8, depth=depth, seed=1).double()
    images, real = random(CLASSES, IPC, 1, 16, 16).requires_grad_(), random(CLASSES, REAL, 1, 16, 16, seed=1)

    caught = []
    for module in net.modules():
        if isinstance(module, torch.nn.ReLU):
            module.register_forward_hook(lambda _, __, out: caught.append(out) if out.ndim == 4 else None)

    def seen(x):
        caught.clear()
        features = net.features(x)
        maps = []
        for f in caught[:-1]:
            summed = (f.abs() ** 4).sum(1).flatten(1)
            maps.append((summed / summed.norm(dim=1, keepdim=True)).mean(0))
        return maps, features.mean(0)

    expected = 0.0
    for c in range(CLASSES):
        (real_maps, real_mean), (maps, mean) = seen(real[c]), seen(images[c])
        assert len(maps) == (1 if network == "lenet" else depth - 1)
        attended = sum(((a.detach() - b) ** 2).sum() for a, b in zip(real_maps, maps, strict=True))
        expected = expected + 100 * (attended + 0.01 * ((real_mean.detach() - mean) ** 2).sum())
    (expected_gradient,) = torch.autograd.grad(expected, images)

    embedding = AttentionEmbedding(make_network(network, 1, 16, CLASSES, width=8, depth=depth).body, 4.0, 100.0)
    params = {k: p.detach() for k, p in net.named_parameters() if k.startswith("body.")}
    means = torch.stack([functional_call(embedding, params, (real[c],)).mean(0) for c in range(CLASSES)])
    ours = matching_loss(functional_call(embedding, params, (images.flatten(0, 1),)).view(CLASSES, IPC, -1), means)
    assert ours.item() == pytest.approx(expected.item(), rel=1e-9)
    torch.testing.assert_close(torch.autograd.grad(ours, images)[0], expected_gradient, rtol=1e-7, atol=1e-10)


def test_networks_without_layers_to_attend_to_are_refused(home):
    for values in ({"network": "mlp"}, {"network": "convnet", "depth": 1}):
        spec = build_spec("distill", dataset="digits", method="datadam", **values)
        with pytest.raises(Refused, match="two convolutional layers"):
            check(spec)
        images, labels = torch.zeros(90, 1, 28, 28, dtype=torch.uint8), torch.arange(90) % CLASSES
        data = Dataset("digits", "D", tuple("abc"), images, labels, images[:9], labels[:9], (0.5,), (0.3,))
        distiller = make_distiller("datadam")
        distiller.setup(spec, data, pick_accel("cpu", True))
        with pytest.raises(Refused, match="two convolutional layers"):
            distiller.step()
    check(build_spec("distill", dataset="digits", method="datadam", network="lenet"))
