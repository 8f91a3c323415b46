import pytest
import torch
import torch.nn as nn

from engine.errors import Refused
from engine.networks import make_network, parameter_count
from engine.networks.resnet import Add
from engine.spec import STUDENT_NETWORKS

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
        ("alexnet", {}, 1_865_802, 1_872_202),
        ("vgg11", {}, 9_229_962, 9_231_114),
        ("resnet18", {}, 11_172_810, 11_173_962),
        ("resnet18-bn", {}, 11_172_810, 11_173_962),
        # Ours: patches (C·16·128 + 128), positions (49 or 64)·128, six layers of 132,480, norm 256, linear 1,290
        ("vit", {}, 804_874, 810_890),
        # The ConvNet's weights, each with a score, and no bias or norm
        ("edge-popup", {}, 316_544, 318_848),
    ],
)
def test_parameter_counts_are_those_of_the_papers_code(name, options, mnist, cifar):
    assert parameter_count(make_network(name, *MNIST, 10, **options)) == mnist
    assert parameter_count(make_network(name, *CIFAR, 10, **options)) == cifar


@pytest.mark.parametrize("name", STUDENT_NETWORKS)
@pytest.mark.parametrize(("channels", "size", "classes"), [(1, 28, 10), (3, 32, 10), (3, 48, 7), (1, 32, 2)])
def test_shapes(name, channels, size, classes):
    network = make_network(name, channels, size, classes)
    network.eval()  # without that, batch normalisation would follow the batch
    images = torch.randn(3, channels, size, size)
    features, logits = network.features(images), network(images)
    assert logits.shape == (3, classes)
    assert features.ndim == 2 and features.shape[1] == network.head.in_features
    assert torch.allclose(network.head(features), logits, atol=1e-5)


@pytest.mark.parametrize("name", STUDENT_NETWORKS)
def test_every_activation_is_a_module_of_its_own(name):
    network = make_network(name, *CIFAR, 10)
    # named_modules() lists a shared module once, named_children() of the parent under each name
    activations = [m for parent in network.modules() for m in parent.children() if isinstance(m, nn.ReLU | nn.GELU)]
    listed = [m for _, m in network.named_modules(remove_duplicate=False) if isinstance(m, nn.ReLU | nn.GELU)]
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


@pytest.mark.parametrize("name", STUDENT_NETWORKS)
def test_digits_are_large_enough_for_every_network(name):
    assert make_network(name, 1, 16, 10).eval()(torch.randn(2, 1, 16, 16)).shape == (2, 10)


@pytest.mark.parametrize(("name", "sums"), [("resnet18", 8), ("vit", 12)])
def test_residual_sums_can_be_hooked(name, sums):
    network, fired = make_network(name, 1, 16, 3), []
    for module in network.modules():
        if isinstance(module, Add):
            module.register_forward_hook(lambda _, inputs, out: fired.append(torch.equal(inputs[0] + inputs[1], out)))
    network(torch.randn(2, 1, 16, 16))
    assert fired == [True] * sums


def masked(network):
    return [m for m in network.modules() if hasattr(m, "scores")]


@pytest.mark.parametrize("weights", ["kaiming", "signed"])
@pytest.mark.parametrize("keep", [0.1, 0.3, 0.7])
def test_edge_popup_keeps_exactly_its_share_of_the_largest_scores(keep, weights):
    for layer in masked(make_network("edge-popup", 3, 16, 10, width=12, seed=4, keep=keep, weights=weights)):
        mask, scores = layer.mask().detach(), layer.scores.detach().abs()
        assert set(mask.unique().tolist()) == {0.0, 1.0}
        assert mask.sum() == round(keep * mask.numel())
        assert scores[mask == 1].min() >= scores[mask == 0].max()
        std = (2 / (keep * mask[0].numel())) ** 0.5
        if weights == "signed":
            assert torch.allclose(layer.weight.abs(), torch.full_like(mask, std)) and layer.weight.unique().numel() == 2
        elif mask.numel() > 500:
            assert layer.weight.std() == pytest.approx(std, rel=0.15)


def test_equal_scores_do_not_change_the_share():
    layer = masked(make_network("edge-popup", 1, 16, 10, width=8, keep=0.3))[0]
    nn.init.ones_(layer.scores)
    assert layer.mask().sum() == round(0.3 * layer.scores.numel())


def test_edge_popups_gradient_goes_straight_through_to_every_score():
    layer = masked(make_network("edge-popup", 1, 16, 10, width=8))[-1]
    x = torch.randn(5, layer.in_features)
    layer(x).sum().backward()
    expected = layer.weight * x.sum(0) * layer.scores.detach().sign()  # eq. 4: as if the mask were |scores|
    assert torch.allclose(layer.scores.grad, expected, atol=1e-5)
    assert not layer.weight.requires_grad


def test_refusals():
    with pytest.raises(Refused, match="choose one of"):
        make_network("transformer", *MNIST, 10)
    with pytest.raises(Refused, match="not a multiple of 4"):
        make_network("vit", 3, 30, 10)
    with pytest.raises(Refused, match="at least 64 pixels"):
        make_network("convnet", *CIFAR, 10, depth=6)
