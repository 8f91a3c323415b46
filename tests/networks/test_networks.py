import pytest
import torch
import torch.nn as nn

from engine.errors import Refused
from engine.networks import make_network, parameter_count

MNIST, CIFAR = (1, 28), (3, 32)


@pytest.mark.parametrize(
    ("name", "options", "mnist", "cifar"),
    [
        ("convnet", {}, 317_706, 320_010),
        ("convnet", {"width": 32}, 24_138, 24_714),
        ("convnet", {"width": 64}, 85_130, 86_282),
        ("convnet", {"width": 256}, 1_225_226, 1_229_834),
        ("convnet", {"depth": 1}, 329_226, 331_530),
        ("convnet", {"depth": 2}, 231_306, 233_610),
        ("convnet", {"depth": 4}, 450_186, 452_490),
        ("convnet-wide", {}, 1_558_538, 1_560_842),
        ("lenet", {}, 61_706, 62_006),
        ("mlp", {}, 118_282, 411_146),
    ],
)
def test_parameter_counts_are_those_of_the_papers_code(name, options, mnist, cifar):
    assert parameter_count(make_network(name, *MNIST, 10, **options)) == mnist
    assert parameter_count(make_network(name, *CIFAR, 10, **options)) == cifar


@pytest.mark.parametrize("name", ["convnet", "convnet-wide", "lenet", "mlp"])
@pytest.mark.parametrize(("channels", "size", "classes"), [(1, 28, 10), (3, 32, 10), (3, 48, 7), (1, 32, 2)])
def test_shapes(name, channels, size, classes):
    network = make_network(name, channels, size, classes)
    images = torch.randn(3, channels, size, size)
    features, logits = network.features(images), network(images)
    assert logits.shape == (3, classes)
    assert features.ndim == 2 and features.shape[1] == network.head.in_features
    assert torch.allclose(network.head(features), logits, atol=1e-5)


@pytest.mark.parametrize("name", ["convnet", "convnet-wide", "lenet", "mlp"])
def test_every_activation_is_a_module_of_its_own(name):
    network = make_network(name, *CIFAR, 10)
    # named_modules() lists a shared module once, named_children() of the parent under each name
    activations = [m for parent in network.modules() for m in parent.children() if isinstance(m, nn.ReLU)]
    listed = [m for _, m in network.named_modules(remove_duplicate=False) if isinstance(m, nn.ReLU)]
    assert activations and len({id(m) for m in listed}) == len(listed) == len(activations)
    fired = []
    for module in listed:
        module.register_forward_hook(lambda *_: fired.append(1))
    network(torch.randn(2, 3, 32, 32))
    assert len(fired) == len(listed)


def test_the_features_of_the_papers_network():
    assert make_network("convnet", *CIFAR, 10).features(torch.randn(2, 3, 32, 32)).shape == (2, 2048)
    assert make_network("convnet", *MNIST, 10).features(torch.randn(2, 1, 28, 28)).shape == (2, 2048)


def test_the_seed_decides_the_weights_and_nothing_else_changes():
    before = torch.random.get_rng_state()
    first, again, other = (make_network("convnet", *MNIST, 10, width=4, seed=s) for s in (1, 1, 2))
    assert torch.equal(before, torch.random.get_rng_state())
    assert torch.equal(first.head.weight, again.head.weight)
    assert not torch.equal(first.head.weight, other.head.weight)


def test_refusals():
    with pytest.raises(Refused, match="choose one of"):
        make_network("transformer", *MNIST, 10)
    with pytest.raises(Refused, match="at least 64 pixels"):
        make_network("convnet", *CIFAR, 10, depth=6)
