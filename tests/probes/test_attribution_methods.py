"""Attribution methods: against functions whose attribution is known, and refused where they are not right."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import ndimage
from torch import nn

from engine.accel import pick_accel
from engine.data import load
from engine.errors import Refused
from engine.networks import make_network
from engine.probes.attribution import figures
from engine.probes.attribution.methods import (
    Pixels,
    attribute,
    baseline,
    blurred,
    check,
    completeness_gap,
    superpixels,
    to_maps,
)
from engine.probes.attribution.path import along_path
from engine.probes.attribution.specs import METHOD_INFO, AttributionSpec, baseline_note
from engine.probes.desk import Cancelled
from engine.students.fit import as_student, fit
from engine.students.kept import Student

PATHS = ("integrated-gradients", "gradientshap", "deeplift")
NETWORKS = ("convnet", "convnet-wide", "lenet", "mlp", "alexnet", "vgg11", "resnet18", "resnet18-bn", "vit")


def spec(method, **more):
    return AttributionSpec(students="a", method=method, **more)


def student(module, network, size=16, channels=1, classes=2):
    facts = {
        "name": network, "dataset": "none", "classes": [str(c) for c in range(classes)], "channels": channels,
        "size": size, "mean": [0.0] * channels, "std": [1.0] * channels, "network": network,
    }  # fmt: skip
    return Student(network, module.eval(), facts, None)


def fresh(network, size=16, channels=3, classes=4):
    return student(
        make_network(network, channels, size, classes, width=8, depth=2, seed=1), network, size, channels, classes
    )


def scenes(count=2, channels=3, size=16, seed=0):
    """Soft images in [0, 1] with structure at several scales."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(count, channels, 4, 4, generator=generator)
    soft = nn.functional.interpolate(coarse, (size, size), mode="bilinear")
    return (0.7 * soft + 0.3 * torch.rand(count, channels, size, size, generator=generator)).clamp(0, 1)


def maps_of(who, pixels, targets, asked):
    return to_maps(asked.method, attribute(who, pixels, torch.as_tensor(targets), asked))


class Linear(nn.Module):
    """Logits (0, w · x + 1)."""

    def __init__(self, weight):
        super().__init__()
        self.weight = nn.Parameter(weight)

    def forward(self, x):
        out = (x * self.weight).sum((1, 2, 3)) + 1
        return torch.stack([torch.zeros_like(out), out], 1)


class Region(nn.Module):
    """Looks at nothing but a region of the image, and at that not linearly."""

    def __init__(self, mask):
        super().__init__()
        self.register_buffer("mask", torch.as_tensor(mask, dtype=torch.float32))
        self.conv = nn.Conv2d(1, 4, 1)
        self.relu = nn.ReLU()
        self.head = nn.Linear(4, 2)
        nn.init.normal_(self.conv.weight, generator=torch.Generator().manual_seed(0))
        nn.init.zeros_(self.conv.bias)
        nn.init.constant_(self.head.weight, 0.0)
        with torch.no_grad():
            self.head.weight[1] = torch.tensor([1.0, 2.0, 3.0, 4.0])

    def forward(self, x):
        return self.head(self.relu(self.conv((x - 0.2) * self.mask)).sum((2, 3)))


# ---- known attributions ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["integrated-gradients", "deeplift", "inputxgradient", "saliency", "occlusion"])
def test_of_a_linear_function_the_attribution_is_known(method):
    weight = torch.randn(1, 8, 8, generator=torch.Generator().manual_seed(1))
    who, pixels = student(Linear(weight), "mlp", 8), scenes(3, 1, 8)
    asked = spec(method, window=1, stride=1)
    found = maps_of(who, pixels, [1, 1, 1], asked)
    from_baseline = weight * (pixels - baseline(pixels, asked))
    known = {"inputxgradient": weight * pixels, "saliency": weight.abs().expand_as(pixels)}.get(method, from_baseline)
    np.testing.assert_allclose(found, known[:, 0].double().numpy(), atol=2e-5)
    assert np.abs(maps_of(who, pixels, [0, 0, 0], asked)).max() == 0  # the other logit is constant


def test_superpixels_attribute_what_covering_them_takes_away():
    weight = torch.rand(1, 8, 8, generator=torch.Generator().manual_seed(1))
    who, pixels = student(Linear(weight), "mlp", 8), scenes(1, 1, 8)
    found = maps_of(who, pixels, [1], spec("feature-ablation", superpixels=9, baseline="black"))[0]
    patches = superpixels(pixels[0].numpy(), 9)
    for patch in range(patches.max() + 1):
        lost = float((weight * pixels)[0, 0].numpy()[patches == patch].sum())
        np.testing.assert_allclose(found[patches == patch], lost, rtol=1e-4)


@pytest.mark.parametrize(
    ("method", "least"),
    [
        ("saliency", 1.0),
        ("inputxgradient", 1.0),
        ("integrated-gradients", 1.0),
        ("gradientshap", 1.0),
        ("deeplift", 1.0),
        ("guided-gradcam", 1.0),
        ("occlusion", 0.75),  # windows reach over the border
        ("feature-ablation", 0.6),  # as superpixels do
    ],
)
def test_a_planted_object_is_recovered_by_attribution_volume(method, least):
    """The network sees the square alone: so must the volume lie there, wherever the square is."""
    for top, left in ((2, 3), (8, 6)):
        mask = np.zeros((16, 16), bool)
        mask[top : top + 6, left : left + 6] = True
        who, pixels = student(Region(mask), "lenet"), scenes(2, 1)
        pixels[:, 0, mask] = 0.9  # an object that superpixels can follow
        found = maps_of(who, pixels, [1, 1], spec(method, window=2, stride=1, superpixels=64))
        share = figures.inside(found, np.stack([mask, mask]))
        assert share.min() >= least - 1e-6, share
        assert mask.mean() < 0.15  # what a blind map would have


def test_grad_cam_lies_where_the_features_lie():
    """Also behind convolutions that cut off the border, or add one."""
    for padding in (0, 4):
        body = nn.Sequential(
            nn.Conv2d(1, 1, 5, padding=padding), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(1, 1, 5), nn.ReLU()
        )
        for layer in (body[0], body[3]):
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)
            layer.weight.data[0, 0, 2, 2] = 1.0

        class Dots(nn.Module):
            def __init__(self, body=body):
                super().__init__()
                self.body, self.gain = body, nn.Parameter(torch.ones(2))

            def forward(self, x):
                return self.body(x).sum((2, 3)) * self.gain

        who = student(Dots(), "lenet", 28)
        for row, column in ((10, 17), (14, 13), (18, 9)):
            pixels = torch.zeros(1, 1, 28, 28)
            pixels[0, 0, row, column] = 1
            found = maps_of(who, pixels, [1], spec("gradcam"))[0]
            mass = ndimage.center_of_mass(found)
            assert abs(mass[0] - row) <= 0.75 and abs(mass[1] - column) <= 0.75, (padding, (row, column), mass)


# ---- completeness ---------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def learned():
    """A small ConvNet that knows digits, and eight images of them."""
    data, accel = load("digits"), pick_accel("cpu", compile=False)
    module = fit(data.train_images, data.train_labels, data, "convnet", seed=0, steps=80, accel=accel, width=8)
    pixels, targets = data.test_images[:8].float() / 255, data.test_labels[:8]
    return as_student(module, data, "convnet", network="convnet"), pixels, targets


def gaps_of(who, pixels, targets, asked):
    return completeness_gap(who, pixels, targets, attribute(who, pixels, targets, asked), asked, None)


def test_integrated_gradients_add_up(learned):
    who, pixels, targets = learned
    asked = spec("integrated-gradients", steps=400)
    found = attribute(who, pixels, targets, asked)
    with torch.no_grad():
        rise = (who.logits(pixels) - who.logits(baseline(pixels, asked)))[torch.arange(8), targets]
    np.testing.assert_allclose(found.sum((1, 2, 3)), rise, rtol=0.01)
    gaps = completeness_gap(who, pixels, targets, found, asked, None)
    np.testing.assert_allclose(gaps, (found.sum((1, 2, 3)) / rise - 1).abs(), atol=1e-4)
    assert np.mean(gaps_of(who, pixels, targets, spec("integrated-gradients", steps=5))) > 3 * np.mean(gaps)


def test_steps_that_are_halved_where_it_matters_give_the_same_as_many_steps(learned):
    who, pixels, targets = learned
    asked = spec("integrated-gradients", steps=400)
    fine, base = attribute(who, pixels, targets, asked), baseline(pixels, asked)
    for x, b, t, wanted in zip(pixels.split(1), base.split(1), targets.tolist(), fine.split(1), strict=True):
        found, steps = along_path(Pixels(who), x, b, t, 20)
        assert 20 <= steps <= 80 and float((found - wanted).abs().sum()) < 0.1 * float(wanted.abs().sum())
        assert completeness_gap(who, x, torch.tensor([t]), found, asked, None)[0] <= 0.0101 or steps == 80


class Step(nn.Module):
    """Logits (0, 100 relu(mean - 0.9)): all of the change lies at the end of a path from black to white."""

    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(100.0))

    def forward(self, x):
        rise = (self.scale * (x.mean((1, 2, 3)) - 0.9)).relu()
        return torch.stack([0 * rise, rise], 1)


def test_only_steps_on_which_shares_miss_the_change_are_halved():
    points = []

    class Watched(Pixels):
        def forward(self, pixels):
            points.extend(pixels.mean((1, 2, 3)).tolist())
            return super().forward(pixels)

    white = torch.ones(1, 1, 8, 8)
    found, steps = along_path(Watched(student(Step(), "mlp", 8)), white, 0 * white, 1, 7)
    np.testing.assert_allclose(found, 10 / 64, rtol=0.01)
    assert 7 < steps < 28 and steps + 1 == len(points) == len(set(points)), "no point twice"
    assert sum(point > 6 / 7 - 1e-6 for point in points) == len(points) - 6, "all new ones near the end"


@pytest.mark.parametrize("network", ["vit", "mlp", "lenet"])
def test_integrated_gradients_add_up_in_other_networks(network):
    asked = spec("integrated-gradients", steps=200)
    assert max(gaps_of(fresh(network), scenes(), torch.tensor([0, 1]), asked)) < 0.01


def test_from_black_an_instance_normalised_student_changes_at_once():
    """Which is why maps from black are not to be trusted there."""
    pixels = scenes()

    def still_to_come(network):
        black, dim, whole = (fresh(network).logits(share * pixels) for share in (0.0, 0.05, 1.0))
        return float((whole - dim).norm() / (whole - black).norm())

    assert still_to_come("convnet") < 0.3 < 0.9 < still_to_come("convnet-wide")
    assert "blurred" in baseline_note("integrated-gradients", "black", "convnet")
    assert not baseline_note("integrated-gradients", "blurred", "convnet")
    assert not baseline_note("integrated-gradients", "black", "lenet")


@pytest.mark.parametrize("network", ["lenet", "alexnet", "mlp", "convnet-wide", "resnet18-bn"])
def test_deeplift_adds_up_where_it_is_offered(network):
    who, pixels = fresh(network), scenes()
    targets, asked = torch.tensor([0, 1]), spec("deeplift")
    assert not check("deeplift", who, asked)
    gaps = completeness_gap(who, pixels, targets, attribute(who, pixels, targets, asked), asked, None)
    assert max(gaps) < 1e-3


def test_gradientshap_adds_up_on_average():
    who, pixels = fresh("lenet"), scenes(1)
    asked = spec("gradientshap", samples=200, noise=0.0)
    target = torch.tensor([1])
    assert completeness_gap(who, pixels, target, attribute(who, pixels, target, asked), asked, None)[0] < 0.1


def test_no_gap_is_claimed_where_none_is_defined():
    who, pixels, target = fresh("convnet"), scenes(1), torch.tensor([0])
    for method in METHOD_INFO:
        asked = spec(method, steps=5)
        if check(method, who, asked):
            continue
        gap = completeness_gap(who, pixels, target, attribute(who, pixels, target, asked), asked, None)[0]
        assert (gap is not None) == (method in PATHS)
    smooth = spec("integrated-gradients", smooth=True, steps=5, samples=2)
    assert completeness_gap(who, pixels, target, pixels, smooth, None) == [None]


# ---- every method on every kind of network --------------------------------------------------------------------------


@pytest.mark.parametrize("network", ["convnet", "vit", "lenet", "mlp", "edge-popup"])
@pytest.mark.parametrize("method", list(METHOD_INFO))
def test_a_method_gives_maps_or_says_why_not(method, network):
    who, pixels = fresh(network), scenes()
    asked = spec(method, steps=10, samples=4)
    why = check(method, who, asked)
    refused = {
        "deeplift": ("convnet", "vit", "edge-popup"),
        "gradcam": ("mlp",),
        "guided-gradcam": ("mlp", "vit"),
    }.get(method, ())
    assert bool(why) == (network in refused)
    if why:
        assert network in why and why.endswith(".")
        return
    found = maps_of(who, pixels, [0, 1], asked)
    assert found.shape == (2, 16, 16) and np.isfinite(found).all()
    if method not in ("gradcam", "guided-gradcam"):  # nothing may speak for a class of a random network
        assert (np.abs(found).sum((1, 2)) > 0).all()
    if not METHOD_INFO[method].signed:
        assert found.min() >= 0
    assert np.array_equal(found, maps_of(who, pixels, [0, 1], asked))  # the same question, the same answer
    torch.manual_seed(1)
    np.random.seed(1)
    assert np.array_equal(found, maps_of(who, pixels, [0, 1], asked))


@pytest.mark.parametrize("network", ["vgg11", "resnet18"])
def test_grad_cam_finds_a_layer_in_deep_networks(network):
    who, pixels = fresh(network, 32), scenes(1, 3, 32)
    for method in ("gradcam", "guided-gradcam"):
        found = maps_of(who, pixels, [0], spec(method))
        assert found.shape == (1, 32, 32) and np.isfinite(found).all()


def test_maps_of_a_batch_are_those_of_its_images():
    who, pixels = fresh("convnet"), scenes(3)
    for method in ("saliency", "integrated-gradients", "gradcam", "occlusion", "feature-ablation"):
        together = maps_of(who, pixels, [0, 1, 2], spec(method, steps=10))
        for i in range(3):
            alone = maps_of(who, pixels[i : i + 1], [i], spec(method, steps=10))[0]
            np.testing.assert_allclose(together[i], alone, atol=1e-5)


@pytest.mark.parametrize("method", [m.id for m in METHOD_INFO.values() if m.gradient])
def test_smoothgrad_averages_maps_of_noisy_copies(method):
    who, pixels = fresh("lenet"), scenes(1)
    plain = maps_of(who, pixels, [0], spec(method, steps=10))
    same = maps_of(who, pixels, [0], spec(method, steps=10, smooth=True, noise=0.0, samples=3))
    np.testing.assert_allclose(same, plain, atol=1e-5)
    smooth = maps_of(who, pixels, [0], spec(method, steps=10, smooth=True, noise=0.2, samples=3))
    assert smooth.shape == plain.shape and np.isfinite(smooth).all()
    if np.abs(plain).sum():
        assert not np.allclose(smooth, plain)


def test_knobs_that_do_not_fit_are_refused():
    who = fresh("convnet")
    with pytest.raises(Refused, match="SmoothGrad averages gradients"):
        check("occlusion", who, spec("occlusion", smooth=True))
    with pytest.raises(Refused, match="stride may be at most the window"):
        check("occlusion", who, spec("occlusion", window=2, stride=4))
    small = fresh("mlp", 8)
    with pytest.raises(Refused, match="8 pixels"):
        check("occlusion", small, spec("occlusion", window=12))
    with pytest.raises(Refused, match="needs the students' dataset"):
        baseline(scenes(), spec("saliency", baseline="mean"))


def test_every_method_says_what_it_shows_and_what_not():
    for info in METHOD_INFO.values():
        assert info.shows.endswith(".") and info.cannot.endswith(".") and info.cost.endswith(".")
        assert all(knob in AttributionSpec.model_fields for knob in info.knobs)
        for network in (*NETWORKS, "edge-popup"):
            assert info.valid_for(network) in ("", info.valid_for(network).strip())


def test_a_long_attribution_can_be_given_up_and_leaves_the_student_as_it_was():
    who, pixels, target = fresh("convnet"), scenes(1), torch.tensor([0])
    for method in ("occlusion", "integrated-gradients", "guided-gradcam", "gradientshap"):
        asked = spec(method, steps=400, stride=1, samples=200)
        before = maps_of(who, pixels, [0], spec("saliency"))
        calls = []

        def beat(calls=calls):
            calls.append(1)
            if len(calls) == 2:
                raise Cancelled

        with pytest.raises(Cancelled):
            attribute(who, pixels, target, asked, beat=beat)
        assert len(calls) == 2
        assert not any(m._forward_hooks or m._backward_hooks for m in who.module.modules())
        assert np.array_equal(before, maps_of(who, pixels, [0], spec("saliency")))


# ---- baselines and superpixels --------------------------------------------------------------------------------------


def test_baselines_are_what_they_are_called():
    data = load("digits")
    pixels = data.test_images[:3].float() / 255
    assert baseline(pixels, spec("saliency", baseline="black")).abs().max() == 0
    mean = baseline(pixels, spec("saliency", baseline="mean"), data)
    np.testing.assert_allclose(mean[1], data.train_images.float().mean(0) / 255, atol=1e-5)
    noise = baseline(pixels, spec("saliency", baseline="noise", seed=3))
    assert torch.equal(noise, baseline(pixels, spec("saliency", baseline="noise", seed=3)))
    assert not torch.equal(noise, baseline(pixels, spec("saliency", baseline="noise", seed=4)))
    blur = blurred(pixels)
    assert (blur.std((1, 2, 3)) < 0.7 * pixels.std((1, 2, 3))).all() and (blur.std((1, 2, 3)) > 0).all()
    np.testing.assert_allclose(blurred(torch.full((1, 3, 28, 28), 0.3)), 0.3, atol=1e-5)


@pytest.mark.parametrize(("size", "count"), [(16, 9), (32, 36), (32, 144), (8, 144), (28, 4)])
def test_superpixels_are_connected_and_about_as_many_as_asked(size, count):
    patches = superpixels(scenes(1, 3, size)[0].numpy(), count)
    number = patches.max() + 1
    assert patches.shape == (size, size) and set(np.unique(patches)) == set(range(number))
    assert min(count, (size // 2) ** 2) / 2 <= number <= count
    for patch in range(number):
        assert ndimage.label(patches == patch, np.ones((3, 3)))[1] == 1


def test_superpixels_follow_colours():
    image = np.zeros((3, 32, 32), np.float32)
    image[:, :, 13:] = 1.0  # an edge that lies on no regular grid
    patches = superpixels(image, 36)
    for patch in range(patches.max() + 1):
        bright = image[0][patches == patch].mean()
        assert bright in (0.0, 1.0)
    flat = superpixels(np.full((1, 32, 32), 0.5, np.float32), 16)
    assert flat.max() + 1 == 16 and np.bincount(flat.ravel()).min() >= 32
