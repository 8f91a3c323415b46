"""What stands beside the film of a run, laid out as its frames are: the mean of the real images of each class, and for
every finished image the real one nearest to it, with the largest entries of its label."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import torch
from torch import Tensor

from engine.data.base import Dataset
from engine.formation import compose
from engine.runs.film import Film, encode
from engine.synthetic import SyntheticSet

PART = 2000  # real images at a time
COSTLY = 5e11  # synthetic × real images × numbers in each, up to which the nearest are looked for: a few seconds
ENTRIES = 3  # of a soft label


def write_means(film: Film, synthetic: SyntheticSet, data: Dataset) -> None:
    """Write ``mean.webp``: in every cell the mean of the class whose column it is in."""
    film.arrange(synthetic)
    means = torch.stack([_mean(data, members) for members in data.by_class])
    each = len(synthetic.images) // len(means) * synthetic.factor**2
    pictures = compose(means.repeat_interleave(each, 0), synthetic.factor)
    film.store.write_beside(
        film.id, "mean.webp", encode(film.grid(dataclasses.replace(synthetic, images=pictures, zca=None)))
    )


def write_nearest(film: Film, synthetic: SyntheticSet, data: Dataset) -> None:
    """Write ``cells.json``, what belongs to each cell, row by row, and ``nearest.webp``, the nearest real images.

    Nearest: of least squared distance between the pixels, among the images that methods may use. It is left out where
    one image holds several pictures, and where looking would take too long.
    """
    cells: dict[str, Any] = {}
    if synthetic.labels.is_floating_point():
        top = synthetic.labels.topk(min(ENTRIES, synthetic.labels.shape[1]), dim=1)
        pairs = zip(top.indices.tolist(), top.values.tolist(), strict=True)
        labels = [[[c, round(v, 3)] for c, v in zip(classes, values, strict=True)] for classes, values in pairs]
        cells["labels"] = film.cells(labels)
    pool = data.distil_indices
    if synthetic.factor == 1 and synthetic.images.numel() * len(pool) <= COSTLY:
        found = pool[nearest(synthetic, data)]
        pictures = dataclasses.replace(synthetic, images=data.normalise(data.train_images[found]), zca=None)
        film.store.write_beside(film.id, "nearest.webp", encode(film.grid(pictures)))
        cells["nearest"] = film.cells(data.train_labels[found].tolist())
    film.store.write_beside(film.id, "cells.json", json.dumps(cells).encode())


def nearest(synthetic: SyntheticSet, data: Dataset) -> Tensor:
    """Places in ``data.distil_indices`` (N,) int64 of the real images nearest to the synthetic ones as people see them,
    in squared distance of normalised pixels."""
    shown = data.normalise(synthetic.to_display()).flatten(1)
    best = torch.full((len(shown),), torch.inf)
    places = torch.zeros(len(shown), dtype=torch.int64)
    for first, part in enumerate(data.distil_indices.split(PART)):
        real = data.normalise(data.train_images[part]).flatten(1)
        found, at = (real.square().sum(1) - 2 * shown @ real.T).min(1)  # less the part that is the same for all
        closer = found < best
        best[closer], places[closer] = found[closer], first * PART + at[closer]
    return places


def _mean(data: Dataset, members: Tensor) -> Tensor:
    total = sum(data.normalise(data.train_images[part]).sum(0) for part in members.split(PART))
    return torch.as_tensor(total) / len(members)
