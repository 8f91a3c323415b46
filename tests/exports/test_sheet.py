"""The contact sheet: paper, resolution, every image, and what it says of itself."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from engine.exports import export
from engine.runs.film import encode
from engine.runs.store import Store
from tests.exports.runs import a_run, pixels


@pytest.fixture
def store(tmp_path) -> Store:
    return Store(tmp_path)


def sheet(store: Store, id: str) -> Image.Image:
    image = Image.open(io.BytesIO(export(store, id, "sheet")))
    assert image.format == "PNG" and [round(d) for d in image.info["dpi"]] == [300, 300]
    return image


def squares(image: Image.Image, grey: int) -> tuple[int, int]:
    """Width and height of what has exactly this grey, which must be one whole rectangle."""
    found = np.argwhere((np.asarray(image.convert("RGB")) == grey).all(2))
    assert len(found), f"no {grey}"
    high, wide = found.max(0) - found.min(0) + 1
    assert high * wide == len(found)
    return int(wide), int(high)


def test_every_image_is_on_an_a4_page_in_whole_multiples_of_its_pixels(store):
    image = sheet(store, a_run(store, ipc=2, side=16))
    assert sorted(image.size) == [2480, 3508]
    sizes = {squares(image, 20 * column + 5 * row + 1) for column in range(10) for row in range(2)}
    assert len(sizes) == 1
    ((wide, high),) = sizes
    assert wide == high and wide % 16 == 0 and wide >= 160, "large enough to be looked at"


def test_pixels_become_squares(store):
    id = a_run(store, ipc=1, side=16)
    frame = np.random.default_rng(0).integers(0, 256, (16, 160, 1), np.uint8)
    frame[0, 0] = frame[15, 15] = 255  # white, which the paper is not
    store.write_frame(id, 20, encode(frame))
    shown = np.asarray(sheet(store, id).convert("RGB"))
    white = np.argwhere((shown == 255).all(2))
    (top, left), side = white.min(0), 0
    while (shown[top + side, left] == 255).all():
        side += 1
    cell = shown[top : top + 16 * side, left : left + 16 * side, 0].reshape(16, side, 16, side)
    assert side >= 10 and (cell == frame[:, None, :16]).all()


def test_many_images_take_a_larger_page_before_they_get_tiny(store):
    few, many = (sheet(store, a_run(store, ipc=ipc, side=64)) for ipc in (10, 60))
    assert sorted(few.size) == [2480, 3508] and min(many.size) > 2480
    assert squares(many, 1)[0] >= 128, "twice its own pixels"


def test_it_says_what_it_is(store):
    image = sheet(store, a_run(store, seed=7))
    image.load()
    assert image.text["Title"] == "Gradient matching on Digits, 2 images per class"
    about = image.text["Description"]
    assert "82.0 ± 0.8 % test accuracy (DC protocol, ConvNet, 3 students)" in about
    assert "seed: 7" in about and "steps: 20" in about and "20 steps in 10 s" in about and "Made on 20" in about


def test_classes_with_fewer_images_leave_no_black_squares(store):
    id = a_run(store, ipc=3, side=16)
    frame = pixels(20, 3, 16, 1)
    frame[16:, :16] = 0  # the first class has one image
    store.write_frame(id, 20, encode(frame))
    image = np.asarray(sheet(store, id).convert("RGB"))
    assert not (image == 0).all(2).any()


def test_any_class_name_can_be_written(store):
    names = ("<b>", "a" * 80, "日本語", "‮txt", "", *map(str, range(5)))
    assert sheet(store, a_run(store, ipc=1, side=32, channels=3, classes=names)).size
