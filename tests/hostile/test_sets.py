"""Saved sets: each is refused in a sentence or read rightly, and nothing of it is left anywhere."""

from __future__ import annotations

import pytest

from engine.errors import Refused
from engine.runs.imports import read_set
from tests.hostile.case import Case, bounded, name_of
from tests.hostile.sets import CASES


@pytest.mark.parametrize("case", CASES, ids=name_of)
def test_a_saved_set(inside, case: Case) -> None:
    path = case.make(inside)
    with bounded():
        try:
            case.read(read_set(path))
        except Refused as refused:
            case.refused(refused)
            assert str(inside) not in str(refused)
    assert [p.name for p in inside.iterdir()] == [path.name]
