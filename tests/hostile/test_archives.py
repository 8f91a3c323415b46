"""Archives and folders of images by class: each is refused in a sentence, or read rightly."""

from __future__ import annotations

import pytest

from engine.data.folder_check import check_folder
from engine.errors import Refused
from tests.hostile.archives import CASES, FOLDERS
from tests.hostile.case import Case, bounded, name_of


@pytest.mark.parametrize("case", [*CASES, *FOLDERS], ids=name_of)
def test_an_archive_or_a_folder(inside, case: Case) -> None:
    path = case.make(inside)
    there = sorted(p.name for p in inside.iterdir())
    with bounded():
        try:
            case.read(check_folder(path))
        except Refused as refused:
            case.refused(refused)
            assert str(inside) not in str(refused)
    assert sorted(p.name for p in inside.iterdir()) == there
