"""A run's film as GIF and WebP: which frames, how long, how crisp, how large."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from engine.errors import Refused
from engine.exports import animation, export, facts
from engine.exports.facts import spread
from engine.runs.film import encode
from engine.runs.store import Store
from tests.exports.runs import a_run, evaluation


@pytest.fixture
def store(tmp_path) -> Store:
    return Store(tmp_path)


def film(content: bytes) -> tuple[Image.Image, list[np.ndarray], list[int]]:
    """The opened animation, its frames as RGB arrays, and their milliseconds."""
    image = Image.open(io.BytesIO(content))
    frames, times = [], []
    for at in range(image.n_frames):
        image.seek(at)
        frames.append(np.asarray(image.convert("RGB")))
        times.append(image.info["duration"])
    return image, frames, times


@pytest.mark.parametrize("most", [2, 5, 60, 120, 500])
def test_frames_are_spread_over_the_logarithm_of_the_step(most):
    steps = [*range(0, 1000, 4), *range(1000, 1060)]
    chosen = spread(steps, most)
    assert chosen[0] == 0 and chosen[-1] == 1059 and len(chosen) == min(most, len(steps))
    assert chosen == sorted(set(chosen)) and set(chosen) <= set(steps)
    if most == 60:
        assert sum(step <= 100 for step in chosen) > 20, "most of what changes, changes in the beginning"
        assert sum(step > 900 for step in chosen) < 15


@pytest.mark.parametrize("format", ["gif", "webp"])
def test_an_animation_shows_every_pixel_as_a_square_and_holds_its_end(store, format):
    id = a_run(store, ipc=2, side=16)
    image, frames, times = film(export(store, id, format))
    assert image.format == format.upper() and image.info["loop"] == 0
    assert len(frames) == 4 and times[-1] == 2500 and times[0] >= 400 and max(times[1:-1]) <= 500
    # 10 columns of 16 pixels: the largest whole factor within 900 pixels is 5, and two pixels lie between two images.
    places = [np.argwhere((frames[-1] == 20 * column + 1).all(2)) for column in range(1, 10)]  # step 20: + 20 % 5
    for found in places:
        assert len(found) == 80 * 80, "16 pixels, five times as large"
        low, high = found.min(0), found.max(0)
        assert (high - low + 1 == 80).all()
    left = [found.min(0)[1] for found in places]
    assert set(np.diff(left)) == {82}


def test_the_step_counter_moves(store):
    _, frames, _ = film(export(store, a_run(store), "webp"))
    foot = [frame[-28:, :200].tobytes() for frame in frames]
    assert len(set(foot)) == 4
    bars = [(frame[-30:-26] == (0xA6, 0x56, 0x1F)).all(2).any(0).sum() for frame in frames]
    assert bars[0] <= 1 and bars == sorted(set(bars)) and bars[-1] == frames[0].shape[1] - 32, "full at the last step"


def test_a_gif_says_what_it_is_and_how_good(store):
    id = a_run(store, evaluations=(evaluation("quick", [0.7]), evaluation("dc", [0.81, 0.83, 0.82])))
    comment = Image.open(io.BytesIO(export(store, id, "gif"))).info["comment"].decode()
    assert "Gradient matching on Digits, 2 images per class" in comment
    assert "82.0 ± 0.8 % test accuracy (DC protocol, ConvNet, 3 students)" in comment


@pytest.mark.parametrize("format", ["gif", "webp"])
def test_squares_of_many_colours_stay_whole(store, format):
    steps = (0, 10)
    id = a_run(store, steps, ipc=3, side=32, channels=3)
    noise = np.random.default_rng(0)
    shown = noise.integers(0, 256, (96, 320, 3), np.uint8)
    for step in steps:
        store.write_frame(id, step, encode(shown))
    _, frames, _ = film(export(store, id, format))
    last = frames[-1]
    top = len(last) - 40 - (3 * 66 - 2)  # 32 pixels twice as large, two between two images, and the foot below
    left = (last.shape[1] - (10 * 66 - 2)) // 2
    cell = last[top : top + 64, left : left + 64].reshape(32, 2, 32, 2, 3)
    assert (cell == cell[:, :1, :, :1]).all(), "no pixel is smeared over its square"
    error = np.abs(cell[:, 0, :, 0].astype(int) - shown[:32, :32]).mean()
    if format == "webp":
        assert error == 0
    else:
        assert error < 20, "236 colours of a cube of noise are near enough"
        assert len(np.unique(last.reshape(-1, 3), axis=0)) <= 256


@pytest.mark.parametrize("format", ["gif", "webp"])
def test_a_large_film_is_thinned_to_the_limit_and_keeps_its_ends(store, monkeypatch, format):
    steps = tuple(range(0, 300, 5))
    id = a_run(store, steps)
    noise = np.random.default_rng(0)
    for step in steps:
        store.write_frame(id, step, encode(noise.integers(0, 256, (32, 160, 1), np.uint8)))
    whole = export(store, id, format)
    limit = len(whole) // 3
    monkeypatch.setattr(animation, "LIMIT", limit)
    _, frames, times = film(export(store, id, format))
    assert len(export(store, id, format)) <= limit and 4 <= len(frames) < 30 and times[-1] == 2500
    _, all_frames, _ = film(whole)
    if format == "webp":
        assert (frames[0] == all_frames[0]).all() and (frames[-1] == all_frames[-1]).all()


def test_a_film_that_is_larger_than_it_looked_is_thinned_all_the_same(store, monkeypatch):
    steps = tuple(range(0, 300, 5))
    id = a_run(store, steps)
    noise = np.random.default_rng(0)
    for step in set(steps) - set(spread(steps, facts.TRIED)):  # those that tell the size are smooth
        store.write_frame(id, step, encode(noise.integers(0, 256, (32, 160, 1), np.uint8)))
    limit = len(export(store, id, "webp")) // 2
    monkeypatch.setattr(animation, "LIMIT", limit)
    assert len(export(store, id, "webp")) <= limit


def test_no_more_frames_than_can_be_watched(store):
    assert len(film(export(store, a_run(store, tuple(range(200))), "webp"))[1]) <= animation.MOST


def test_more_images_than_fit_are_cut_and_the_picture_stays_small(store):
    names = tuple(f"class number {i}" for i in range(60))
    id = a_run(store, (0, 5), ipc=40, side=32, channels=3, classes=names)
    image, _, _ = film(export(store, id, "webp"))
    assert image.width <= 1000 and image.height <= 1150


def test_one_picture_does_not_move(store):
    with pytest.raises(Refused, match="Nothing moves"):
        export(store, a_run(store, (0,)), "gif")
    with pytest.raises(Refused, match="no run"):
        export(store, "nosuchrun-12345", "gif")
    with pytest.raises(Refused, match="gif, webp"):
        export(store, a_run(store), "mp4")
