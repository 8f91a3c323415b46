import pytest
import torch

from engine.data import load
from engine.data.shapes import SHAPES, TEXTURES, make_shapes
from engine.errors import Refused


def test_the_dataset():
    data = load("shapes")
    assert data.train_images.shape == (5000, 3, 32, 32) and data.test_images.shape == (1000, 3, 32, 32)
    assert data.train_labels.bincount().tolist() == [500] * 10 and data.classes == SHAPES
    assert data.masks["train"].shape == (5000, 32, 32) and data.masks["test"].dtype == torch.bool
    cover = data.masks["train"].float().mean((1, 2))
    assert 0.03 < float(cover.min()) and float(cover.max()) < 0.6


def test_seeded():
    one, two, other = make_shapes(5, seed=3), make_shapes.__wrapped__(5, seed=3), make_shapes(5, seed=4)
    assert torch.equal(one.images, two.images) and not torch.equal(one.images, other.images)
    assert len(torch.unique(one.images.flatten(1), dim=0)) == 50


def test_ties():
    free, tied, conflict = (make_shapes(40, tie=tie) for tie in ("independent", "tied", "conflict"))
    assert torch.equal(tied.textures, tied.labels) and torch.equal(tied.shapes, tied.labels)
    assert not (conflict.textures == conflict.labels).any()
    assert 0.02 < float((free.textures == free.labels).float().mean()) < 0.2
    assert free.textures.bincount(minlength=len(TEXTURES)).min() > 20
    # The scenes are the same: only the filling differs.
    assert torch.equal(free.masks, tied.masks) and torch.equal(free.masks, conflict.masks)
    outside = ~free.masks & ~torch.nn.functional.max_pool2d(free.masks.float(), 5, 1, 2).bool()
    assert torch.equal(free.images.permute(0, 2, 3, 1)[outside], tied.images.permute(0, 2, 3, 1)[outside])


def test_label_by_texture():
    """The same scenes, named by what fills the figures; the figures say nothing about it."""
    made = make_shapes(60, tie="by-texture")
    assert torch.equal(made.textures, made.labels)
    assert 0.02 < float((made.shapes == made.labels).float().mean()) < 0.2
    assert made.shapes.bincount(minlength=10).min() > 30
    assert torch.equal(made.backgrounds, make_shapes(60).backgrounds)


def test_one_cue_alone():
    flat, full = make_shapes(10, tie="shape-only"), make_shapes(10, tie="texture-only")
    assert (flat.textures == -1).all() and (full.shapes == -1).all() and full.masks.all()
    # Inside a flat shape, away from its rim, there is a single colour.
    inside = 1 - torch.nn.functional.max_pool2d(1 - flat.masks[0].float()[None], 5, 1, 2)[0]
    assert len(torch.unique(flat.images[0].permute(1, 2, 0)[inside.bool()], dim=0)) == 1


def test_shapes_can_be_told_apart():
    """The mean masks of two classes differ clearly, wherever the figures lie."""
    masks = make_shapes(60).masks.float().view(10, 60, -1).mean(1)
    distances = torch.cdist(masks, masks) + 10 * torch.eye(10)
    assert float(distances.min()) > 0.3


def test_refusals():
    with pytest.raises(Refused, match="1 to 2,000"):
        make_shapes(0)
    with pytest.raises(Refused, match="independent, tied"):
        make_shapes(5, tie="sideways")
