"""Each method's update against a slow, plain implementation of the paper's equation, in float64."""

import pytest
import torch
import torch.nn.functional as F
from torch.func import functional_call, grad, vmap

from engine.distill.dc import gradient_distance, loops
from engine.distill.dm import matching_loss
from engine.distill.frepo import RIDGE, margin_loss, regression_loss
from engine.networks import make_network

CLASSES, IPC = 3, 2


@pytest.fixture
def network():
    return make_network("convnet", 1, 8, CLASSES, width=4, depth=2, seed=3).double()


def random(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_distribution_matching_is_the_sum_of_squared_distances_of_class_means():
    features, real = random(CLASSES, IPC, 5), random(CLASSES, 4, 5, seed=1)
    plain = 0.0
    for c in range(CLASSES):
        for d in range(5):
            synthetic_mean = sum(features[c, j, d] for j in range(IPC)) / IPC
            plain += (sum(real[c, i, d] for i in range(4)) / 4 - synthetic_mean) ** 2
    assert matching_loss(features, real.mean(1)).item() == pytest.approx(plain.item(), rel=1e-12)


def plain_distance(synthetic, real):
    """Row by row, as equation 5 of the DC paper is written."""
    total = 0.0
    for a, b in zip(synthetic, real, strict=True):
        if a.ndim == 1:
            continue
        for row in range(len(a)):
            x, y = a[row].flatten(), b[row].flatten()
            total = total + 1 - (x @ y) / (x.norm() * y.norm() + 1e-6)
    return total


def test_gradient_matching_by_vmap_equals_class_by_class_autograd(network):
    params = {k: p.detach() for k, p in network.named_parameters()}
    images = random(CLASSES, IPC, 1, 8, 8).requires_grad_()
    real = random(CLASSES, 4, 1, 8, 8, seed=1)
    labels = torch.arange(CLASSES)

    expected = 0.0
    for c in range(CLASSES):
        weights = list(network.parameters())
        on_real = torch.autograd.grad(F.cross_entropy(network(real[c]), labels[c].repeat(4)), weights)
        loss = F.cross_entropy(network(images[c]), labels[c].repeat(IPC))
        on_synthetic = torch.autograd.grad(loss, weights, create_graph=True)
        expected = expected + plain_distance(on_synthetic, on_real)
    (expected_gradient,) = torch.autograd.grad(expected, images)

    def loss_of(params, x, y):
        return F.cross_entropy(functional_call(network, params, (x,)), y)

    per_class = vmap(grad(loss_of), in_dims=(None, 0, 0))
    target = per_class(params, real, labels.view(-1, 1).expand(-1, 4))

    def objective(x):
        return gradient_distance(per_class(params, x, labels.view(-1, 1).expand(-1, IPC)), target)

    assert objective(images).item() == pytest.approx(expected.item(), rel=1e-9)
    torch.testing.assert_close(grad(objective)(images.detach()), expected_gradient, rtol=1e-7, atol=1e-10)


def test_gradient_distance_is_zero_for_parallel_gradients():
    g = {"w": random(2, 3, 4), "bias": random(2, 3)}
    assert gradient_distance({k: 5 * v for k, v in g.items()}, g).item() == pytest.approx(0, abs=1e-5)
    opposite = gradient_distance({k: -v for k, v in g.items()}, g).item()
    assert opposite == pytest.approx(2 * 2 * 3, rel=1e-5)  # 2 per row, 3 rows, 2 classes; the bias does not count


PAPERS_LOOPS = [(1, (1, 1)), (10, (10, 50)), (20, (20, 25)), (30, (30, 20)), (40, (40, 15)), (50, (50, 10))]


@pytest.mark.parametrize(("ipc", "expected"), PAPERS_LOOPS)
def test_loops_pass_through_the_papers_values(ipc, expected):
    assert loops(ipc) == expected


@pytest.mark.parametrize("ipc", range(1, 101))
def test_loops_exist_for_every_ipc(ipc):
    outer, inner = loops(ipc)
    assert outer >= 1 and inner >= 1


def test_kernel_regression_is_the_papers_closed_form():
    f_s, f_t = random(6, 9), random(7, 9, seed=1)
    y_s, y_t = random(6, CLASSES, seed=2), random(7, CLASSES, seed=3)
    k_ss = torch.tensor([[sum(a * b) for b in f_s] for a in f_s], dtype=torch.float64)
    k_ts = torch.tensor([[sum(a * b) for b in f_s] for a in f_t], dtype=torch.float64)
    ridge = RIDGE * sum(k_ss[i, i] for i in range(6)) / 6
    prediction = k_ts @ torch.linalg.inv(k_ss + ridge * torch.eye(6, dtype=torch.float64)) @ y_s
    plain = sum(0.5 * sum((prediction[i] - y_t[i]) ** 2) for i in range(7)) / 7
    assert regression_loss(f_s, y_s, f_t, y_t).item() == pytest.approx(plain.item(), rel=1e-6)


def test_kernel_regression_has_the_right_gradients():
    f_t, y_t = random(7, 9, seed=1), random(7, CLASSES, seed=3)
    inputs = (random(4, 9).requires_grad_(), random(4, CLASSES, seed=2).requires_grad_())
    assert torch.autograd.gradcheck(lambda f, y: regression_loss(f, y, f_t, y_t, ridge=1e-2), inputs)


def test_margin_rewards_the_gap_up_to_one_kth():
    labels = torch.tensor([[0.9, 0.1, 0.0], [0.4, 0.3, 0.0]], dtype=torch.float64)
    assert margin_loss(labels).item() == pytest.approx(-(1 / 3 + 0.1) / 2)
