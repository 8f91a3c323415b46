"""scikit-learn's built-in handwritten digits."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

from engine.data.assemble import assemble
from engine.data.base import Dataset


def load() -> Dataset:
    """1,797 digits, 8×8 with values 0..16, enlarged bilinearly to 16×16; 1,437 to train on and 360 to test.

    Enlarged because the ConvNet halves its images three times: 8×8 would end at a single pixel, without any room for
    where things are.
    """
    source = load_digits()
    images = torch.from_numpy(source.images).float().unsqueeze(1) * (255 / 16)
    images = F.interpolate(images, size=(16, 16), mode="bilinear", align_corners=False).round().byte()
    labels = torch.from_numpy(source.target).long()
    train, test = train_test_split(torch.arange(len(labels)), test_size=360, stratify=labels, random_state=0)
    train, test = train.sort().values, test.sort().values
    return assemble("digits", (images[train], labels[train]), (images[test], labels[test]))
