"""Frames: what is where in them, that they are lossless, and how many are kept."""

import copy
import io

import numpy as np
import pytest
import torch
from PIL import Image

from engine.runs.film import KEEP, RECENT, Film, encode, publish
from engine.runs.store import Store
from engine.spec import build_spec
from engine.synthetic import SyntheticSet


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path)


def make(labels, channels=3, side=28, classes=3, soft=False):
    labels = torch.tensor(labels)
    if soft:
        labels = torch.nn.functional.one_hot(labels, classes).float()
    images = torch.rand(len(labels), channels, side, side, generator=torch.Generator().manual_seed(1))
    names = tuple(f"class {c}" for c in range(classes))
    return SyntheticSet(images, labels, "digits", names, (0.0,) * channels, (1.0,) * channels)


def pixels(path):
    return np.asarray(Image.open(io.BytesIO(path.read_bytes())).convert("RGB"))


@pytest.mark.parametrize("channels", (1, 3))
@pytest.mark.parametrize("soft", (False, True))
def test_each_class_has_a_column_and_missing_images_are_black(store, channels, soft):
    id = store.submit("distill", build_spec())
    synthetic = make([2, 0, 0, 2, 2], channels, soft=soft)
    film = Film(store, id)
    film.layout(synthetic, "cpu")
    film.shoot(synthetic, 7, 1.5)
    layout = store.events(id, kinds=("layout",))[0].data
    assert (layout["columns"], layout["rows"], layout["size"], layout["cells"]) == (3, 3, 28, [0, 1, 2])
    assert layout["classes"] == ["class 0", "class 1", "class 2"]
    frame, shown = pixels(store.frame_path(id, 7)), synthetic.to_display().numpy()
    assert frame.shape == (3 * 28, 3 * 28, 3)
    for row, column, index in ((0, 2, 0), (0, 0, 1), (1, 0, 2), (1, 2, 3), (2, 2, 4)):
        cell = frame[row * 28 : (row + 1) * 28, column * 28 : (column + 1) * 28]
        assert (cell == shown[index].transpose(1, 2, 0)).all()
    assert not frame[:, 28:56].any() and not frame[56:, :28].any()
    event = store.events(id, kinds=("frame",))[0]
    assert (event.step, event.data) == (7, {"seconds": 1.5})


def test_an_image_keeps_its_place_when_its_learned_label_changes(store):
    id = store.submit("distill", build_spec())
    film = Film(store, id)
    film.layout(make([0, 1, 2]), "cpu")
    changed = make([1, 1, 2])
    assert (film.grid(changed) == film.grid(make([0, 1, 2]))).all()
    resumed = Film(store, id, film.state())
    resumed.layout(changed, "cpu")
    assert (resumed.grid(changed) == film.grid(changed)).all()
    assert len(store.events(id, kinds=("layout",))) == 1


def test_a_film_cut_off_while_filming_goes_on_without_holes_and_tells_each_frame_once(store):
    id = store.submit("distill", build_spec())
    film, synthetic = Film(store, id), make([0, 1, 2])
    film.layout(synthetic, "cpu")
    for step in (0, 10):
        film.shoot(synthetic, step, 0.0)
    saved = copy.deepcopy(film.state())
    film.shoot(synthetic, 20, 0.0)  # and killed before the checkpoint that knows of it
    store.write_frame(id, 15, encode(film.grid(synthetic)))  # killed before its event
    store.frame_path(id, 10).unlink()  # killed before its event went, too
    resumed = Film(store, id, saved)
    resumed.layout(synthetic, "cpu")
    resumed.shoot(synthetic, 20, 0.0)
    assert [e.step for e in store.events(id, kinds=("frame",))] == store.frames(id) == [0, 20]


@pytest.mark.parametrize("shots", (1, 250, 299, 301, 2000))
def test_frames_are_thinned_evenly_and_first_and_last_are_kept(store, shots):
    id = store.submit("distill", build_spec())
    synthetic = make([0, 1, 2], side=28)
    film = Film(store, id)
    film.layout(synthetic, "cpu")
    film.grid = lambda _: np.zeros((28, 28, 3), np.uint8)
    for step in range(shots):
        film.shoot(synthetic, 3 * step, 0.0)
    kept = store.frames(id)
    assert len(kept) <= KEEP + RECENT and kept[0] == 0 and kept[-1] == 3 * (shots - 1)
    past = kept[:-RECENT]
    assert len(past) >= min(shots - RECENT, KEEP // 2)
    gaps = {b - a for a, b in zip(past, past[1:], strict=False)}
    assert len(gaps) <= 1, "the past is evenly spaced"
    assert [e.step for e in store.events(id, kinds=("frame",))] == kept


def test_a_step_shown_twice_is_one_frame(store):
    id = store.submit("distill", build_spec())
    film = Film(store, id)
    film.layout(make([0, 1, 2]), "cpu")
    film.shoot(make([0, 1, 2]), 5, 0.0)
    film.shoot(make([0, 1, 2]), 5, 0.0)
    assert store.frames(id) == [5] and len(film.shots) == 1


def test_a_grid_too_tall_or_too_wide_for_the_format_is_cut(store):
    id = store.submit("distill", build_spec())
    publish(store, id, make([0] * 700, channels=1, side=28, classes=2))
    frame = pixels(store.frame_path(id, 0))
    assert frame.shape[0] <= 16_383 and frame.shape[0] % 28 == 0
    other = store.submit("distill", build_spec())
    publish(store, other, make(list(range(100)), channels=1, side=256, classes=100))
    layout = store.events(other, kinds=("layout",))[0].data
    frame = pixels(store.frame_path(other, 0))
    assert frame.shape[:2] == (layout["rows"] * layout["size"], layout["columns"] * layout["size"])
    assert frame.shape[1] <= 16_383


def test_encoding_is_lossless():
    grid = np.random.default_rng(0).integers(0, 256, (64, 96, 3), dtype=np.uint8)
    assert (np.asarray(Image.open(io.BytesIO(encode(grid)))) == grid).all()


def test_a_frame_tells_each_image_s_share_of_the_gradient_where_it_is_shown(store):
    id = store.submit("distill", build_spec())
    film = Film(store, id)
    synthetic = make([2, 0, 0])
    film.layout(synthetic, "cpu")
    film.shoot(synthetic, 3, 1.0, 640, torch.tensor([1.0, 3.0, 4.0]))
    film.shoot(synthetic, 4, 1.0, 641, torch.zeros(3))  # nothing pulls at all
    first, second = (e.data for e in store.events(id, kinds=("frame",)))
    assert first == {"seconds": 1.0, "images_seen": 640, "shares": [375, None, 125, 500, None, None]}
    assert second == {"seconds": 1.0, "images_seen": 641}
