"""What is measured of maps, images and influence: against cases worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from engine.networks import make_network
from engine.probes.attribution import agreement, distilled, figures, influence, quality
from engine.probes.attribution.asked import Picture
from engine.probes.attribution.context import filled_in
from engine.probes.attribution.disagree import divergence
from engine.probes.attribution.influence import Lesson, influences, similarities
from engine.probes.attribution.methods import blurred
from engine.probes.attribution.sanity import layers
from engine.probes.attribution.specs import AttributionSpec
from engine.students.kept import Student


def student(module, network="mlp", size=8, channels=1, classes=2, **more):
    facts = {
        "name": "s", "dataset": "none", "classes": [str(c) for c in range(classes)], "channels": channels,
        "size": size, "mean": [0.0] * channels, "std": [1.0] * channels, "network": network, **more,
    }  # fmt: skip
    return Student("s", module.eval(), facts, None)


class Sum(nn.Module):
    """Logits (0, gain · Σx + offset)."""

    def __init__(self, gain=1.0, offset=0.0):
        super().__init__()
        self.gain, self.offset = nn.Parameter(torch.tensor(gain)), offset

    def forward(self, x):
        out = self.gain * x.sum((1, 2, 3)) + self.offset
        return torch.stack([torch.zeros_like(out), out], 1)


# ---- maps -----------------------------------------------------------------------------------------------------------


def test_rank_correlation():
    a = np.array([[1.0, 2.0], [3.0, 4.0]])
    assert figures.rank_correlation(a, 10 * a**3) == pytest.approx(1)
    assert figures.rank_correlation(a, -a) == pytest.approx(-1)
    assert figures.rank_correlation(a, np.array([[1, 2], [4, 3]])) == pytest.approx(0.8)  # 1 - 6 · 2 / (4 · 15)
    assert figures.rank_correlation(a, np.array([[1, 1], [2, 2]])) == pytest.approx(0.8944, abs=1e-4)  # ties
    assert figures.rank_correlation(a, np.zeros((2, 2))) == 0


def test_overlap_of_the_most_important_pixels():
    a = np.array([[9.0, -8.0, 1.0, 0.0]])
    assert figures.overlap(a, np.array([[9.0, 0.0, -8.0, 0.0]]), 0.5) == 0.5
    assert figures.overlap(a, a, 0.5) == 1
    assert figures.overlap(a, a[:, ::-1], 0.5) == 0
    assert figures.overlap(a, np.array([[5.0, 0, 0, 0]]), 0.01) == 1  # never fewer than one pixel


def test_cosine_and_similarity_of_structure():
    assert figures.cosine(np.array([[1.0, 0]]), np.array([[1.0, 1]])) == pytest.approx(0.5**0.5)
    assert figures.cosine(np.zeros((1, 2)), np.ones((1, 2))) == 0
    noise = np.random.default_rng(0)
    a, b = noise.random((16, 16)), noise.random((16, 16))
    assert figures.ssim(a, a) == pytest.approx(1) == figures.ssim(a, 7 * a)
    assert -1 <= figures.ssim(a, b) < 0.5


def test_share_of_the_volume_inside_a_mask():
    maps = np.array([[[1.0, -3.0], [2.0, 2.0]], [[0.0, 0.0], [0.0, 0.0]]])
    masks = np.array([[[False, True], [True, False]]] * 2)
    share = figures.inside(maps, masks)
    assert share[0] == pytest.approx(5 / 8) and np.isnan(share[1])


def test_colours_end_where_98_percent_of_the_volume_lies_below():
    maps = [np.array([[1.0] * 49]), np.array([[-1.0] * 50 + [100.0]])]
    assert figures.limit_of(maps) == 100  # the one large value has half of the volume
    assert figures.limit_of([np.array([[1.0] * 99 + [-1.5]])]) == 1
    assert figures.limit_of([np.zeros((2, 2))]) == 1


def test_areas_and_intervals():
    shares = np.linspace(0, 1, 3)
    assert figures.area_under(shares, np.array([[1.0, 0.5, 0.0], [1.0, 0.0, 0.0]])).tolist() == [0.5, 0.25]
    mean, low, high = figures.bootstrap_interval(np.array([1.0, 3.0, np.nan]))
    assert (mean, low, high) == (2, 1, 3)
    many = np.random.default_rng(0).normal(5, 2, 400)
    low, high = figures.bootstrap_interval(many)[1:]
    assert (low, high) == pytest.approx((many.mean() - 1.96 * 0.1, many.mean() + 1.96 * 0.1), abs=0.02)
    assert all(np.isnan(figures.bootstrap_interval(np.array([np.nan]))))


def test_divergence_of_answers_in_bits():
    sure = torch.tensor([[[1.0, 0.0]], [[0.0, 1.0]]], dtype=torch.float64)  # (students, images, classes)
    assert float(divergence(sure)) == pytest.approx(1)
    assert float(divergence(sure[:1].repeat(2, 1, 1))) == 0
    half = torch.tensor([[[1.0, 0.0]], [[0.5, 0.5]]], dtype=torch.float64)
    assert float(divergence(half)) == pytest.approx(0.8112781 - 0.5)  # H(3/4, 1/4) less the mean of 0 and 1


# ---- infidelity, sensitivity, deletion and insertion ----------------------------------------------------------------


def test_infidelity_is_nothing_for_a_map_that_predicts_every_change():
    who, pixels = student(Sum()), torch.rand(3, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    targets = torch.tensor([1, 1, 1])
    exact = pixels - blurred(pixels)  # of the sum, what is lost when a pixel is blurred

    def measured(values, method="integrated-gradients"):
        return quality.infidelities(who, pixels, targets, values, method, 8, 0)

    raw, unexplained = measured(exact)
    np.testing.assert_allclose(raw, 0, atol=1e-6)
    np.testing.assert_allclose(unexplained, 0, atol=1e-5)
    np.testing.assert_allclose(measured(5 * exact)[1], 0, atol=1e-5)  # a map may be scaled
    np.testing.assert_allclose(measured(torch.ones_like(pixels), "saliency")[1], 0, atol=1e-5)  # the gradient itself
    np.testing.assert_allclose(measured(torch.zeros_like(pixels))[1], 1)  # a map of nothing explains nothing
    other = measured(torch.rand(3, 1, 8, 8, generator=torch.Generator().manual_seed(5)))
    assert (other[1] > 0.01).all() and (other[1] <= 1 + 1e-6).all() and (other[0] > 0).all()
    constant = quality.infidelities(student(Sum(0.0)), pixels, targets, exact, "integrated-gradients", 4, 0)
    assert np.isnan(constant[1]).all()  # where nothing changes, nothing is to be explained


def test_squares_that_are_removed_have_a_quarter_to_a_half_of_the_side():
    masks = quality.squares(200, 16, torch.Generator().manual_seed(0))
    assert masks.shape == (200, 1, 16, 16)
    sides = masks[:, 0].any(1).sum(1)
    assert torch.equal(sides, masks[:, 0].any(2).sum(1)) and torch.equal(masks.sum((1, 2, 3)), sides**2)
    assert set(sides.tolist()) == set(range(4, 9))
    assert masks.any(0).all()  # every place can be covered


def test_sensitivity_of_a_map_that_never_changes_is_nothing():
    pixels, targets = torch.ones(2, 1, 8, 8), torch.tensor([1, 1])

    def measured(method):
        asked = AttributionSpec(students="s", method=method)
        return quality._sensitivity(student(Sum()), pixels, targets, asked, None, 6, lambda: None)

    assert measured("saliency").tolist() == [0, 0]
    moved = measured("inputxgradient")  # ‖δ‖ / ‖x‖ with |δ| at most 0.02
    assert ((moved > 0.005) & (moved <= 0.02 + 1e-6)).all()


def test_deletion_and_insertion_of_a_sum(monkeypatch):
    monkeypatch.setattr(quality, "blurred", torch.zeros_like)
    who = student(Sum(2.0, -3.0), size=2)
    pixels, shares = torch.ones(1, 1, 2, 2), np.linspace(0, 1, 5)
    pixels[0, 0, 1, 1] = 0.0  # the least important
    found = quality._curves(who, pixels, torch.tensor([1]), [np.array([0, 1, 2, 3])], shares)
    left = np.array([3, 2, 1, 0, 0])
    np.testing.assert_allclose(found["deletion"][0], 1 / (1 + np.exp(3 - 2 * left)), rtol=1e-6)
    np.testing.assert_allclose(found["insertion"][0], 1 / (1 + np.exp(3 - 2 * (3 - left))), rtol=1e-6)
    worst = quality._curves(who, pixels, torch.tensor([1]), [np.array([3, 2, 1, 0])], shares)
    for curve, sign in (("deletion", 1), ("insertion", -1)):
        areas = [figures.area_under(shares, f[curve])[0] for f in (found, worst)]
        assert sign * (areas[1] - areas[0]) > 0.1


def test_pixels_go_in_their_order():
    image = torch.arange(16.0).view(1, 4, 4)
    order = np.arange(16)[::-1].copy()
    out = quality.deleted(image, order, np.array([0, 0.25, 1]))
    base = blurred(image[None])[0]
    assert torch.equal(out["deletion"][0], image) and torch.equal(out["insertion"][2], image)
    assert torch.equal(out["deletion"][2], base) and torch.equal(out["insertion"][0], base)
    assert torch.equal(out["deletion"][1][:, :3], image[:, :3]) and torch.equal(out["deletion"][1][:, 3], base[:, 3])
    assert torch.equal(out["insertion"][1][:, 3], image[:, 3]) and torch.equal(out["insertion"][1][:, :3], base[:, :3])


# ---- distance between models ----------------------------------------------------------------------------------------


def test_tree_joins_the_nearest_first():
    distance = np.array([[0, 0.8, 0.2], [0.8, 0, 0.6], [0.2, 0.6, 0.0]])
    tree = agreement.tree(distance)
    assert sorted(tree["order"]) == [0, 1, 2] and abs(tree["order"].index(0) - tree["order"].index(2)) == 1
    heights = sorted(max(ys) for _, ys in tree["lines"])
    assert heights == pytest.approx([0.2, 0.7])  # average linkage: (0.8 + 0.6) / 2
    feet = sorted(x for xs, ys in tree["lines"] for x, y in ((xs[0], ys[0]), (xs[3], ys[3])) if y == 0)
    assert feet == [0, 1, 2]  # leaves stand at whole numbers


# ---- influence ------------------------------------------------------------------------------------------------------


def lesson(labels, channels=1, size=8, count=6):
    images = torch.randn(count, channels, size, size, generator=torch.Generator().manual_seed(2))
    return Lesson(images, labels, images, list(range(count)), count)


def by_hand(who, taught, picture, target, names, loss):
    """Products of gradients, in double precision."""
    module = who.module.double()
    weights = [p for name, p in module.named_parameters() if names is None or name in names]

    def gradient(value):
        grads = torch.autograd.grad(value, weights, allow_unused=True)
        return torch.cat([g.flatten() for g in grads if g is not None])

    mine = gradient(F.cross_entropy(module(picture.pixels.double()), torch.tensor([target])))
    theirs = [
        gradient(loss(module(x[None].double()), y[None])) for x, y in zip(taught.images, taught.labels, strict=True)
    ]
    module.float()
    return torch.stack([g @ mine for g in theirs]).detach()


HARD = torch.tensor([0, 1, 2, 0, 1, 2])


@pytest.mark.parametrize("network", ["convnet", "edge-popup", "vit"])
@pytest.mark.parametrize("which", ["last", "all"])
def test_influence_is_the_product_of_gradients(network, which):
    who = student(make_network(network, 1, 8, 3, width=4, depth=1), network, 8, 1, 3)
    picture = Picture(torch.rand(1, 1, 8, 8, generator=torch.Generator().manual_seed(3)), None, "")
    taught = lesson(HARD)
    # the fast way knows the weights of a linear layer, not its bias
    names = {"convnet": ["head.weight"], "vit": ["head.weight"], "edge-popup": ["head.scores"]}[network]
    expected = by_hand(who, taught, picture, 1, names if which == "last" else None, F.cross_entropy)
    found = influences(who, taught, picture, 1, which)
    np.testing.assert_allclose(found.numpy(), expected.numpy(), rtol=1e-3, atol=1e-5 * float(expected.abs().max()))
    assert (found > 0).any() and (found < 0).any()


@pytest.mark.parametrize("labels", ["probabilities", "scores", "hard, squared"])
def test_influence_uses_the_loss_that_the_student_was_trained_with(labels):
    generator = torch.Generator().manual_seed(4)
    soft = torch.randn(6, 3, generator=generator)
    taught = lesson({"probabilities": soft.softmax(1), "scores": soft, "hard, squared": HARD}[labels])
    protocol = "frepo" if labels == "hard, squared" else "dc"
    who = student(make_network("convnet", 1, 8, 3, width=4, depth=1), "convnet", 8, 1, 3, protocol=protocol)
    picture = Picture(torch.rand(1, 1, 8, 8, generator=generator), None, "")

    def squared(out, y):
        wanted = y.double() if y.ndim == 2 else (F.one_hot(y, 3) - 1 / 3) / 0.3**0.5
        return (out - wanted).square().mean() / 2

    def crossed(out, y):
        return F.cross_entropy(out, y.double())

    loss = crossed if labels == "probabilities" else squared
    expected = by_hand(who, taught, picture, 2, None, loss)
    np.testing.assert_allclose(
        influences(who, taught, picture, 2, "all").numpy(), expected.numpy(), rtol=1e-3, atol=1e-6
    )


def test_a_step_on_an_image_of_positive_influence_makes_the_answer_surer():
    who = student(make_network("convnet", 1, 8, 3, width=4, depth=1), "convnet", 8, 1, 3)
    picture = Picture(torch.rand(1, 1, 8, 8, generator=torch.Generator().manual_seed(3)), None, "")
    taught = lesson(HARD)
    found = influences(who, taught, picture, 1, "all")
    before = float(who.logits(picture.pixels).log_softmax(1)[0, 1])
    for at in (int(found.argmax()), int(found.argmin())):
        kept = {name: p.detach().clone() for name, p in who.module.state_dict().items()}
        value = F.cross_entropy(who.module(taught.images[at : at + 1]), taught.labels[at : at + 1])
        grads = torch.autograd.grad(value, list(who.module.parameters()))
        with torch.no_grad():
            for p, g in zip(who.module.parameters(), grads, strict=True):
                p -= 1e-3 * g
        gain = float(who.logits(picture.pixels).log_softmax(1)[0, 1]) - before
        assert gain == pytest.approx(1e-3 * float(found[at]), rel=0.2)
        who.module.load_state_dict(kept)


def test_many_training_images_are_looked_at_in_parts(monkeypatch):
    who = student(make_network("convnet", 1, 8, 3, width=4, depth=1), "convnet", 8, 1, 3)
    picture, taught, heard = Picture(torch.rand(1, 1, 8, 8), None, ""), lesson(HARD), []
    whole = influences(who, taught, picture, 1, "all")
    monkeypatch.setattr(influence, "GRADIENTS", 2 * sum(p.numel() for p in who.module.parameters()))
    parts = influences(who, taught, picture, 1, "all", heard.append)
    np.testing.assert_allclose(parts, whole, rtol=1e-4, atol=1e-7)
    assert heard == pytest.approx([0, 1 / 3, 2 / 3])


def test_similarity_is_the_cosine_of_features():
    who = student(make_network("mlp", 1, 8, 3), "mlp", 8, 1, 3)
    taught = lesson(HARD)
    found = similarities(who, taught, Picture(taught.images[4:5].clone(), None, ""))
    assert int(found.argmax()) == 4 and float(found[4]) == pytest.approx(1, abs=1e-5)
    features = who.module.features(taught.images).detach().double()
    assert float(found[0]) == pytest.approx(figures.cosine(features[0].numpy(), features[4].numpy()), abs=1e-5)


# ---- sanity ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("network", ["convnet", "vit", "mlp", "edge-popup", "resnet18"])
def test_layers_from_the_top_cover_every_weight_once(network):
    module = make_network(network, 1, 16, 3, width=4, depth=2)
    groups = layers(module)
    keys = [key for _, part in groups for key in part]
    assert sorted(keys) == sorted(module.state_dict())
    assert groups[0][0] == "last layer" and all(key.startswith("head.") for key in groups[0][1])
    bottom = {"vit": "patches.weight", "edge-popup": "body.0.scores", "mlp": "body.1.weight"}
    assert bottom.get(network, "body.0.weight") in groups[-1][1]


# ---- distilled images -----------------------------------------------------------------------------------------------


def test_spectrum_has_its_peak_at_the_frequency_of_a_wave():
    x = torch.arange(32) / 32
    waves = torch.stack([torch.sin(2 * np.pi * f * x).expand(1, 32, 32) for f in (3, 9)]) * 0.4 + 0.5
    power = distilled.radial_spectrum(waves)
    assert power.shape == (2, 16)
    assert (power.argmax(1) + 1).tolist() == [3, 9]
    assert distilled.radial_spectrum(torch.full((1, 3, 32, 32), 0.7)).max() < 1e-20  # the mean is no frequency
    noise = distilled.radial_spectrum(torch.rand(50, 1, 32, 32, generator=torch.Generator().manual_seed(0))).mean(0)
    assert noise[1:].max() < 1.25 * noise[1:].min()  # white noise is white, but for what the mean takes away


def test_total_variation_by_hand():
    image = torch.tensor([[[[0.0, 1.0], [0.0, 0.5]]]])
    assert distilled.total_variation(image)[0] == pytest.approx((1 + 0.5) / 2 + (0 + 0.5) / 2)
    assert distilled.total_variation(torch.full((1, 3, 4, 4), 0.3))[0] == 0


# ---- context --------------------------------------------------------------------------------------------------------


def test_filling_in_leaves_nothing_of_the_object():
    image, mask = torch.full((3, 16, 16), 0.25), np.zeros((16, 16), bool)
    mask[5:9, 5:9] = True
    image[:, 5:9, 5:9] = 1.0
    image[:, 4, 5:9] = 0.9  # a rim that the mask missed
    filled = filled_in(image, mask)
    np.testing.assert_allclose(filled[:, 5:9, 5:9], 0.25, atol=0.05)
    assert torch.equal(filled[:, 12:], image[:, 12:])
