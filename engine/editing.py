"""Edits of a set's images, done: see ``engine.edits`` for what there is and how it is written."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor

from engine.data.base import Dataset
from engine.edits import Edit, mask_of, written
from engine.errors import Refused
from engine.synthetic import SyntheticSet


def edited(synthetic: SyntheticSet, edits: list[Edit], data: Dataset) -> SyntheticSet:
    """``synthetic`` after ``edits``, in their order; images that none of them is about stay as they are, to the bit.

    Images are changed as people see them, un-whitened and in [0, 1], but without cutting off what lies beyond, and go
    back the same way. ``data`` lends the real images that are swapped in, none of them held out. Raises ``Refused``
    for images, classes and places that the set does not have, and for sets whose images hold several smaller ones.
    """
    count, classes = len(synthetic.images), len(synthetic.classes)
    if synthetic.factor > 1:
        raise Refused(
            f"Each image of this set holds {synthetic.factor**2} smaller ones; choose a set with one picture an image."
        )
    pixels, labels = _seen(synthetic), synthetic.labels.clone()
    for edit in edits:
        i = edit.image
        if i >= count:
            raise Refused(f"There is no image {i}: the set has {count:,}, which count from 0.")
        if edit.what == "label":
            if edit.number >= classes:
                raise Refused(f"There is no class {edit.number}: the set has {classes:,}, which count from 0.")
            labels[i] = relabelled(labels[i], edit.number)
        else:
            label = int(labels[i] if labels.ndim == 1 else labels[i].argmax())
            pixels[i] = _changed(pixels[i], label, edit, data)
    images = synthetic.images.clone()
    touched = sorted({edit.image for edit in edits if edit.what != "label"})
    if touched:
        images[touched] = _unseen(pixels[touched], synthetic)
    return replace(synthetic, images=images, labels=labels)


def with_source(synthetic: SyntheticSet, edits: list[Edit], source: str, title: str) -> SyntheticSet:
    """An edited set whose provenance names the set it was made from, and the edits, after those made before."""
    before: Any = synthetic.provenance.get("edited")
    chain = [*(before if isinstance(before, list) else []), {"from": source, "title": title, "edits": written(edits)}]
    return replace(synthetic, provenance={**synthetic.provenance, "edited": chain})


def relabelled(label: Tensor, to: int) -> Tensor:
    """A label that stands for class ``to``: its number; of a soft one, the largest value and that of ``to`` change
    places, so that it is as sure of that class as it was of the other."""
    if label.ndim == 0:
        return torch.tensor(to)
    out, most = label.clone(), int(label.argmax())
    out[to], out[most] = label[most], label[to]
    return out


def _changed(image: Tensor, label: int, edit: Edit, data: Dataset) -> Tensor:
    """An image (C, H, W) of values in [0, 1] after an edit of its pixels."""
    if edit.what == "mirror":
        return image.flip(-1)
    if edit.what == "blur":
        blurred = ndimage.gaussian_filter(image.numpy(), (0, edit.sigma, edit.sigma), mode="nearest")
        return torch.from_numpy(blurred)
    if edit.what == "swap":
        members = data.by_class[label]
        at = int(torch.randint(len(members), (), generator=torch.Generator().manual_seed(edit.number)))
        return data.train_images[members[at]].float() / 255
    mask = torch.from_numpy(mask_of(edit.place, image.shape[-1]))
    if edit.what == "paint":
        colour = torch.tensor([int(edit.colour[c : c + 2], 16) / 255 for c in (0, 2, 4)])
        if len(image) == 1:
            colour = (colour * torch.tensor([0.299, 0.587, 0.114])).sum(0, keepdim=True)
    else:
        colour = torch.from_numpy(np.median(image.flatten(1).numpy(), 1)).to(image)
    return torch.where(mask, colour.view(-1, 1, 1), image)


def _scale(synthetic: SyntheticSet) -> tuple[Tensor, Tensor]:
    mean, std = (torch.tensor(values).view(-1, 1, 1) for values in (synthetic.mean, synthetic.std))
    return mean, std


def _seen(synthetic: SyntheticSet) -> Tensor:
    """The images as people see them, what lies outside of [0, 1] included."""
    mean, std = _scale(synthetic)
    images = synthetic.zca.unwhiten(synthetic.images) if synthetic.zca else synthetic.images
    return images * std + mean


def _unseen(pixels: Tensor, synthetic: SyntheticSet) -> Tensor:
    """The inverse of ``_seen``."""
    mean, std = _scale(synthetic)
    images = (pixels - mean) / std
    return synthetic.zca.whiten(images) if synthetic.zca else images
