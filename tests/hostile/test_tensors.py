"""Files of tensors: each is refused in a sentence or read rightly, and nothing in it is ever run."""

from __future__ import annotations

import pytest

from engine.errors import Refused
from engine.exchange import import_pt
from tests.hostile.case import Case, bounded, name_of
from tests.hostile.tensors import CASES, little


@pytest.mark.filterwarnings("ignore")  # of torch, about kinds of tensors that it is about to give up
@pytest.mark.parametrize("case", CASES, ids=name_of)
def test_a_file_of_tensors(inside, case: Case) -> None:
    path = case.make(inside)
    data = little(64 if "gigabyte from" in case.name else 8)
    with bounded():
        try:
            case.read(import_pt(path, dataset=data))
        except Refused as refused:
            case.refused(refused)
            assert str(inside) not in str(refused)
    assert [p.name for p in inside.iterdir()] == [path.name]
