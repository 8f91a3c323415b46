from dataclasses import replace

import pytest
import torch

from engine.augment import OPERATIONS, STRATEGIES, Draw, _sample_by_index, apply, draw, strategy_for
from engine.data.base import Dataset


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("n", [1, 3])
@pytest.mark.parametrize("operation", OPERATIONS)
def test_gradients_are_right(operation, n):
    drawn = draw(operation, generator(3), 6, n)
    images = torch.randn(3, 2, 6, 6, dtype=torch.float64, generator=generator(1), requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: apply(x, drawn), (images,))


@pytest.mark.parametrize("operation", OPERATIONS)
def test_siamese_images_are_augmented_alike(operation):
    images = torch.randn(1, 3, 16, 16, generator=generator(1))
    for seed in range(5):
        drawn = draw(operation, generator(seed), 16)
        one, many = apply(images, drawn), apply(images.expand(7, -1, -1, -1), drawn)
        assert torch.equal(one.expand(7, -1, -1, -1), many)


@pytest.mark.parametrize("operation", OPERATIONS)
def test_each_image_can_have_its_own(operation):
    images = torch.randn(1, 3, 16, 16, generator=generator(1)).expand(16, -1, -1, -1)
    drawn = draw(operation, generator(2), 16, 16)
    out = apply(images, drawn)
    assert len({tuple(image.flatten().tolist()) for image in out}) > 1
    alone = apply(images[4:5], Draw(drawn.kind, drawn.values[4:5]))
    assert torch.allclose(out[4:5], alone, atol=1e-6)


def test_the_same_generator_state_draws_the_same():
    for strategy in STRATEGIES:
        first, again = draw(strategy, generator(5), 32, 4), draw(strategy, generator(5), 32, 4)
        assert first.kind == again.kind and torch.equal(first.values, again.values)


def test_drawing_leaves_the_global_generator_alone():
    before = torch.random.get_rng_state()
    apply(torch.randn(2, 3, 8, 8, generator=generator()), draw("color_crop_cutout_scale_rotate", generator(), 8, 2))
    assert torch.equal(before, torch.random.get_rng_state())


def test_flip_mirrors():
    images = torch.randn(2, 1, 5, 5)
    out = apply(images, Draw("flip", torch.tensor([[1.0], [0.0]])))
    assert torch.equal(out[0], images[0].flip(2)) and torch.equal(out[1], images[1])


def test_crop_shifts_whole_pixels_and_fills_with_zero():
    images = torch.randn(2, 3, 28, 28)
    out = apply(images, Draw("shift", torch.tensor([[2.0, -3.0]])))
    assert torch.equal(out[:, :, :-3, 2:], images[:, :, 3:, :-2])
    assert not out[:, :, -3:].any() and not out[:, :, :, :2].any()


def test_crop_reaches_an_eighth():
    values = torch.cat([draw("crop", generator(s), 32, 50).values for s in range(20)])
    assert values.min() == -4 and values.max() == 4


def test_cutout_is_a_square_of_zeros():
    images = torch.ones(2, 1, 8, 8)
    out = apply(images, Draw("cutout", torch.tensor([[-2.0, 3.0, 2.0, 7.0], [4.0, 0.0, 8.0, 4.0]])))
    expected = torch.ones(2, 1, 8, 8)
    expected[0, :, 3:7, :2] = 0
    expected[1, :, :4, 4:] = 0
    assert torch.equal(out, expected)
    edges = draw("cutout", generator(), 8, 100).values
    assert torch.equal(edges[:, 2] - edges[:, 0], torch.full((100,), 4.0))
    assert edges[:, :2].min() == -2 and edges[:, :2].max() == 6


def test_color_keeps_what_its_parts_promise():
    images = torch.randn(4, 3, 8, 8)
    grey = apply(images, Draw("color", torch.tensor([[0.0, 0.0, 1.0]])))
    assert torch.allclose(grey, images.mean(1, keepdim=True).expand_as(images), atol=1e-6)
    brighter = apply(images, Draw("color", torch.tensor([[0.25, 1.0, 1.0]])))
    assert torch.allclose(brighter, images + 0.25, atol=1e-6)
    contrast = apply(images, Draw("color", torch.tensor([[0.0, 1.0, 0.5]])))
    assert torch.allclose(contrast.mean((1, 2, 3)), images.mean((1, 2, 3)), atol=1e-6)
    assert torch.allclose(contrast.std((1, 2, 3)), images.std((1, 2, 3)) / 2, atol=1e-6)
    values = draw("color", generator(), 8, 1000).values
    for column, low, high in zip(values.unbind(1), (-0.5, 0.0, 0.5), (0.5, 2.0, 1.5), strict=True):
        assert low <= column.min() < low + 0.1 * (high - low) and high - 0.1 * (high - low) < column.max() <= high


def test_scale_and_rotation_stay_in_range():
    scale = draw("scale", generator(), 32, 1000).values
    assert 1 / 1.2 - 1e-6 <= scale[:, [0, 4]].min() and scale[:, [0, 4]].max() <= 1.2 + 1e-6
    assert not torch.equal(scale[:, 0], scale[:, 4])
    angle = draw("rotate", generator(), 32, 1000).values
    degrees = torch.rad2deg(torch.atan2(angle[:, 3], angle[:, 0]))
    assert 14 < degrees.abs().max() <= 15.001


@pytest.mark.parametrize("outside", ["zeros", "border"])
@pytest.mark.parametrize("mode", ["bilinear", "nearest"])
def test_sampling_by_index_is_grid_sample(mode, outside):
    images = torch.randn(3, 2, 9, 9, dtype=torch.float64)
    theta = torch.tensor([[0.9, -0.2, 0.1, 0.2, 0.8, -0.3]], dtype=torch.float64).view(1, 2, 3).expand(3, 2, 3)
    grid = torch.nn.functional.affine_grid(theta, [3, 2, 9, 9], align_corners=False)
    expected = torch.nn.functional.grid_sample(images, grid, mode=mode, padding_mode=outside, align_corners=False)
    assert torch.allclose(_sample_by_index(images, grid, mode, outside), expected)


@pytest.mark.parametrize("operation", ["zoom", "rotate", "translate"])
def test_frepo_s_operations_repeat_the_edge_and_dsa_s_bring_zeros(operation, monkeypatch):
    images = torch.full((8, 3, 16, 16), 2.0)
    for strategy, least in ((STRATEGIES["flip_color_crop_rotate_translate_cutout"], 2.0), (STRATEGIES["rotate"], 0.0)):
        monkeypatch.setitem(STRATEGIES, "one", replace(strategy, operations=(operation,), scale=(0.8, 1.25)))
        out = apply(images, draw("one", generator(4), 16, 8))
        assert out.min() == pytest.approx(least, abs=1e-5)


def test_strategies_follow_the_dataset():
    def dataset(channels):
        images, labels = torch.zeros(4, channels, 8, 8, dtype=torch.uint8), torch.arange(4)
        normal = (0.5,) * channels
        return Dataset("x", "X", tuple("abcd"), images, labels, images, labels, normal, normal)

    assert strategy_for(dataset(3)) == "color_crop_cutout_flip_scale_rotate"
    assert strategy_for(dataset(1)) == "color_crop_cutout_scale_rotate"
    assert strategy_for(dataset(3), "frepo") == "flip_color_crop_rotate_translate_cutout"
    assert strategy_for(dataset(1), "frepo") == "color_crop_rotate_translate_cutout"


def test_all_operations_of_a_strategy_come_up():
    kinds = {draw("color_crop_cutout_flip_scale_rotate", generator(s), 32).kind for s in range(60)}
    assert kinds == {"color", "shift", "cutout", "flip", "affine"}
