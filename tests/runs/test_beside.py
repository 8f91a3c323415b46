"""What stands beside a film: the means of the classes, the nearest real images, the labels that were learned."""

import dataclasses
import io
import json

import numpy as np
import pytest
import torch
from PIL import Image

from engine.runs import beside
from engine.runs.film import Film
from engine.runs.store import Store
from engine.spec import build_spec
from engine.synthetic import SyntheticSet, fit_zca
from tests.runs.fakes import CLASSES, DATA


@pytest.fixture
def film(tmp_path):
    store = Store(tmp_path)
    return Film(store, store.submit("distill", build_spec()))


def made(indices, **more):
    """Real images of the first classes, a little brighter, as a synthetic set of two images a class."""
    images = DATA.normalise(DATA.train_images[indices].clamp(max=250) + 3)
    return SyntheticSet(images, DATA.train_labels[indices], "digits", CLASSES, DATA.mean, DATA.std, **more)


def picture(film, name):
    content = film.store.beside(film.id, name).read_bytes()
    cells = np.asarray(Image.open(io.BytesIO(content)).convert("L")).reshape(film.rows, 28, film.columns, 28)
    return cells.transpose(0, 2, 1, 3)  # row, column, height, width


def in_order(each):
    return torch.cat([members[:each] for members in DATA.by_class])


@pytest.mark.parametrize("factor", (1, 2))
def test_every_cell_has_the_mean_of_its_class(film, factor):
    beside.write_means(film, made(in_order(2), factor=factor), DATA)
    found = picture(film, "mean.webp")
    assert found.shape[:2] == (2, 10)
    for c in (0, 3, 9):
        mean = DATA.train_images[DATA.by_class[c]].double().mean(0)[0]
        want = torch.nn.functional.interpolate(
            mean[None, None], (28 // factor, 28 // factor), mode="bilinear", antialias=True
        )[0, 0].numpy()
        for row in range(2):
            assert np.abs(found[row, c, : 28 // factor, : 28 // factor] - want).max() <= 1


@pytest.mark.parametrize("whitened", (False, True))
def test_the_nearest_real_image_is_found_by_its_pixels(film, whitened, monkeypatch):
    monkeypatch.setattr(beside, "PART", 64)  # so that several parts have to agree
    indices = in_order(2)
    synthetic = made(indices)
    if whitened:
        zca = fit_zca(DATA.normalise(DATA.train_images))
        synthetic = dataclasses.replace(synthetic, images=zca.whiten(synthetic.images), zca=zca)
    film.layout(synthetic, "cpu")
    beside.write_nearest(film, synthetic, DATA)
    found = picture(film, "nearest.webp")
    for number, index in enumerate(indices.tolist()):
        assert (found[number % 2, number // 2] == DATA.train_images[index, 0].numpy()).all()
    cells = json.loads(film.store.beside(film.id, "cells.json").read_text())
    assert cells == {"nearest": list(range(10)) * 2}


def test_labels_that_were_learned_are_told_by_their_largest_entries(film):
    synthetic = made(in_order(1))
    labels = torch.eye(10)
    labels[4, 7] = 0.25
    soft = dataclasses.replace(synthetic, labels=labels)
    film.layout(soft, "cpu")
    beside.write_nearest(film, soft, DATA)
    told = json.loads(film.store.beside(film.id, "cells.json").read_text())["labels"]
    assert told[4][:2] == [[4, 1.0], [7, 0.25]] and len(told) == 10


def test_pictures_of_several_and_costly_searches_have_no_nearest(film, monkeypatch):
    grids = made(in_order(2), factor=2)
    film.layout(grids, "cpu")
    beside.write_nearest(film, grids, DATA)
    assert film.store.beside(film.id, "cells.json") and not film.store.beside(film.id, "nearest.webp")
    monkeypatch.setattr(beside, "COSTLY", 1)
    beside.write_nearest(film, made(in_order(2)), DATA)
    assert not film.store.beside(film.id, "nearest.webp")


@pytest.mark.parametrize("name", ("../spec.json", "spec.json", "mean.png", ""))
def test_no_other_file_can_be_read_that_way(film, name):
    assert film.store.beside(film.id, name) is None
    assert film.store.beside("../" + film.id, "mean.webp") is None
