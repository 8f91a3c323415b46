"""The sweep back through steps of gradient descent against autograd through the whole of them, in float64."""

import pytest
import torch
import torch.nn.functional as F
from torch.func import functional_call

from engine.distill.unroll import descent, unroll
from engine.networks import make_network

STEPS, CLASSES = 5, 3


def random(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("keep", [True, False])
@pytest.mark.parametrize(("name", "size"), [("convnet", 8), ("lenet", 28), ("mlp", 8)])
def test_gradients_are_those_of_autograd_through_all_steps(name, size, keep):
    """Per-step images, soft and hard labels, a rate of each step's own; a set used twice counts twice."""
    network = make_network(name, 1, size, CLASSES, width=4, depth=2, seed=3).double()
    start = {k: p.detach().requires_grad_() for k, p in network.named_parameters()}
    sets = [random(4, 1, size, size, seed=s).requires_grad_() for s in range(3)]
    labels = [torch.tensor([0, 1, 2, 0]), random(4, CLASSES, seed=9).softmax(1), torch.tensor([2, 2, 1, 0])]
    rates = torch.tensor([0.3, 0.1, 0.2, 0.05, 0.4], dtype=torch.float64, requires_grad=True)
    order = [0, 1, 2, 0, 1]
    target = {k: random(*p.shape, seed=i) for i, (k, p) in enumerate(start.items())}

    def loss(params, x, y):
        return F.cross_entropy(functional_call(network, params, (x,)), y)

    def distance(params):
        return sum(((params[k] - target[k]) ** 2).sum() for k in params)

    weights = start
    for t, s in enumerate(order):
        gradients = torch.autograd.grad(loss(weights, sets[s], labels[s]), list(weights.values()), create_graph=True)
        weights = {k: w - rates[t] * g for (k, w), g in zip(weights.items(), gradients, strict=True)}
    plain = torch.autograd.grad(distance(weights), [*sets, rates, *start.values()])

    batches = [(sets[s], labels[s]) for s in order]
    final, sweep = unroll(descent(loss), {k: p.detach() for k, p in start.items()}, batches, rates, keep)
    torch.testing.assert_close(final, {k: w.detach() for k, w in weights.items()}, rtol=1e-9, atol=1e-12)
    found = sweep({k: 2 * (final[k] - target[k]) for k in final})
    torch.autograd.backward([x for x, _ in batches], found.images)
    ours = [*(s.grad for s in sets), found.rates, *found.state.values()]
    for a, b in zip(ours, plain, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-7, atol=1e-10)
