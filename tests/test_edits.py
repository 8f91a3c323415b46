"""Edits of a set's images: how they are written, and that they do what they say."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from engine import words
from engine.data import load
from engine.editing import edited, with_source
from engine.edits import LONGEST, MOST, mask_of, parse, place_of, told, written
from engine.errors import Refused
from engine.spec import build_spec
from engine.synthetic import SyntheticSet, fit_zca

DIGITS = load("digits")


def a_set(labels: torch.Tensor | None = None, **more) -> SyntheticSet:
    """Ten images of digits, one of each, which reach beyond [0, 1]."""
    images = DIGITS.normalise(torch.stack([DIGITS.train_images[members[0]] for members in DIGITS.by_class])) * 1.3
    labels = torch.arange(10) if labels is None else labels
    return SyntheticSet(images, labels, "digits", DIGITS.classes, DIGITS.mean, DIGITS.std, **more)


def done(text: str, synthetic: SyntheticSet | None = None) -> SyntheticSet:
    return edited(synthetic or a_set(), parse(text), DIGITS)


def mask(size: int = 16) -> np.ndarray:
    return np.random.default_rng(0).random((size, size)) < 0.3


# ---- written --------------------------------------------------------------------------------------------------------


def test_what_is_written_is_read_again():
    text = f"0:mirror 3:blur:1.5 3:swap:7 2:label:5 1:erase:4,4,8,8 9:paint:c86432:{place_of(mask())}"
    edits = parse(text)
    assert written(edits) == text and [e.image for e in edits] == [0, 3, 3, 2, 1, 9]
    assert told(edits[3], [f"class {c}" for c in range(10)]) == "image 2: labelled class 5"
    assert parse("") == [] and written(parse("  1:mirror \n 2:mirror")) == "1:mirror 2:mirror"


@pytest.mark.parametrize(
    "text",
    [
        "x", "3", "3:melt", "3:mirror:1", "3:blur", "3:blur:0", "3:blur:99", "3:blur:nan", "3:blur:1e0", "-1:mirror",
        "3:swap", "3:swap:-1", "3:label:x", "3:label:٣", "3:erase", "3:erase:1,2,3", "3:erase:1,2,0,4", "3:erase:@",
        "3:erase:@8.!!!!", "3:erase:@8.AAAA", "3:erase:@65.AAAA", "3:erase:@4.AAA", "3:paint:1,1,2,2",
        "3:paint:red:1,1,2,2",
        "3:paint:C86432:1,1,2,2", "999999:mirror", "3:../x", "3:mirror\0",
    ],
)  # fmt: skip
def test_what_is_no_edit_is_refused_with_how_it_is_written(text):
    with pytest.raises(Refused, match="is no edit") as refusal:
        parse(text)
    assert len(str(refusal.value)) < 300


def test_there_is_an_end_to_them():
    parse("0:mirror " * MOST)
    for text in ("0:mirror " * (MOST + 1), "x" * (LONGEST + 1)):
        with pytest.raises(Refused, match=f"At most {MOST} edits"):
            parse(text)


def test_a_mask_covers_the_same_part_of_any_image():
    half = np.zeros((8, 8), bool)
    half[:, :4] = True
    assert (mask_of(place_of(half), 32)[:, :16]).all() and not mask_of(place_of(half), 32)[:, 16:].any()
    assert (mask_of(place_of(mask()), 16) == mask()).all()
    assert mask_of("12,3,99,2", 16).nonzero()[0].tolist() == [3] * 4 + [4] * 4
    with pytest.raises(Refused, match="outside of the image"):
        mask_of("16,0,1,1", 16)


# ---- done -----------------------------------------------------------------------------------------------------------


def test_only_what_is_edited_changes():
    before = a_set()
    after = done("3:mirror 3:blur:1 5:label:6", before)
    same = [i for i in range(10) if i != 3]
    assert torch.equal(after.images[same], before.images[same]) and not torch.equal(after.images[3], before.images[3])
    assert after.labels.tolist() == [0, 1, 2, 3, 4, 6, 6, 7, 8, 9] and before.labels.tolist() == list(range(10))
    assert torch.equal(before.images, a_set().images), "the set itself stays as it was"


@pytest.mark.parametrize("whitened", [False, True])
def test_a_mirrored_image_is_mirrored_for_people_too_and_twice_is_never(whitened):
    zca = fit_zca(DIGITS.normalise(DIGITS.train_images[:400])) if whitened else None
    before = a_set()
    before = replace(before, images=zca.whiten(before.images), zca=zca) if zca else before
    once, twice = done("3:mirror", before), done("3:mirror 3:mirror", before)
    assert torch.allclose(once.pixels()[3], before.pixels()[3].flip(-1), atol=1e-4)
    assert torch.allclose(twice.images, before.images, atol=2e-3), "nothing is cut off on the way"


def test_paint_and_erase_stay_in_their_place():
    before = a_set().pixels()
    after = done("3:paint:ffffff:2,3,4,5 4:erase:2,3,4,5").pixels()
    for image, value in ((3, 1.0), (4, float(before[4].median()))):
        where = torch.zeros(16, 16, dtype=torch.bool)
        where[3:8, 2:6] = True
        assert torch.allclose(after[image, 0, where], torch.tensor(value), atol=1e-5)
        assert torch.allclose(after[image, 0, ~where], before[image, 0, ~where], atol=1e-5)


def test_a_real_image_of_its_class_takes_the_place():
    for seed in range(3):
        after = done(f"3:label:8 3:swap:{seed}")
        found = (DIGITS.train_images.float() / 255 - after.pixels()[3]).abs().amax((1, 2, 3)).argmin()
        assert DIGITS.train_labels[found] == 8 and int(found) in DIGITS.distil_indices.tolist()
    assert torch.equal(done("3:swap:1").images, done("3:swap:1").images)


def test_a_soft_label_stays_as_sure_as_it_was():
    soft = torch.full((10, 10), -0.1)
    soft[range(10), range(10)] = 0.9
    after = done("3:label:8", a_set(soft)).labels
    assert after[3, 8] == soft[3, 3] and after[3, 3] == soft[3, 8] and torch.equal(after[:3], soft[:3])


@pytest.mark.parametrize(
    ("text", "says"),
    [("10:mirror", "no image 10"), ("0:label:10", "no class 10"), ("0:erase:16,0,2,2", "outside of the image")],
)
def test_what_a_set_does_not_have_cannot_be_edited(text, says):
    with pytest.raises(Refused, match=says):
        done(text)


def test_images_of_several_are_refused():
    with pytest.raises(Refused, match="4 smaller ones"):
        done("0:mirror", a_set(factor=2))


def test_provenance_names_every_set_on_the_way(tmp_path):
    once = with_source(done("0:mirror"), parse("0:mirror"), "a-run", "Digits")
    twice = with_source(done("1:mirror", once), parse("1:mirror"), "another", "Digits, edited")
    chain = twice.provenance["edited"]
    assert [link["from"] for link in chain] == ["a-run", "another"] and chain[0]["edits"] == "0:mirror"
    assert "edited" not in a_set().provenance


def test_a_run_of_edits_names_its_command():
    spec = build_spec("edit", source="a-run", edits="0:mirror 1:label:2").model_dump()
    assert words.command("edit", spec) == "python -m engine edit a-run 0:mirror 1:label:2 --save"
