"""The corpus is large, and no input is in it twice."""

from __future__ import annotations

from collections import Counter

from tests.hostile import addresses, archives, images, pictures, sets, specs, tensors, uploads

KINDS = {
    "archives": archives.CASES,
    "folders": archives.FOLDERS,
    "images": images.CASES,
    "tensors": tensors.CASES,
    "sets": sets.CASES,
    "specs": [*specs.SPECS, *specs.CHECKS, *specs.COMMANDS, *specs.ROUTES],
    "addresses": addresses.CASES,
    "pictures": pictures.CASES,
    "uploads": uploads.CASES,
}


def test_there_are_at_least_three_hundred_hostile_inputs() -> None:
    assert sum(map(len, KINDS.values())) >= 300
    assert all(len(cases) >= 20 for cases in KINDS.values())


def test_none_has_the_name_of_another() -> None:
    names = Counter(case.name for cases in KINDS.values() for case in cases)
    assert [name for name, count in names.items() if count > 1] == []
