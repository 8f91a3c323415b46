"""Pictures, drawings, masks and stimuli: each is refused in a sentence or read rightly."""

from __future__ import annotations

import pytest

from engine.errors import Refused
from engine.probes.attribution.asked import kept_mask, kept_picture
from engine.probes.bias.people import read_pictures
from pages.components import canvas
from tests.hostile.case import Case, bounded, name_of
from tests.hostile.pictures import DRAWINGS, KEPT, MASKS, STIMULI

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")  # of Pillow, about what it makes the best of


@pytest.mark.parametrize("case", KEPT, ids=name_of)
def test_a_kept_picture(inside, case: Case) -> None:
    home = inside.parents[1] / "home"
    name = case.make(home)
    with bounded():
        try:
            case.read(kept_picture(name, 16, 1, home))
        except Refused as refused:
            case.refused(refused)
            assert str(home) not in str(refused)


@pytest.mark.parametrize("case", MASKS, ids=name_of)
def test_a_mask(inside, case: Case) -> None:
    home = inside.parents[1] / "home"
    text = case.make(home)
    with bounded():
        try:
            case.read(kept_mask(text, 16, home))
        except Refused as refused:
            case.refused(refused)


@pytest.mark.parametrize("case", DRAWINGS, ids=name_of)
def test_a_drawing(inside, case: Case) -> None:
    home = inside.parents[1] / "home"
    url = case.make()
    with bounded():
        try:
            image = canvas.drawn(url)
            case.read(image)
            name = canvas.keep(canvas.centred(image, 20 / 28), home)
            assert kept_picture(name.removeprefix("file:"), 28, 1, home).shape == (1, 1, 28, 28)
        except Refused as refused:
            case.refused(refused)


@pytest.mark.parametrize("case", STIMULI, ids=name_of)
def test_stimuli(inside, case: Case) -> None:
    path = case.make(inside)
    with bounded():
        try:
            case.read(read_pictures(path, "cue-conflict", ["cat", "dog"]))
        except Refused as refused:
            case.refused(refused)
            assert str(inside) not in str(refused)
