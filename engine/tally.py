"""How everybody has done in a quiz: counts, and nothing about who (torch-free).

Kept in the folder of the run whose images were shown: ``quiz/<digest of the quiz>.json``.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass
from pathlib import Path

from engine.probes.desk import DIGEST, read_json, write_json

MOST = 100_000  # people
_adding = threading.Lock()


@dataclass(frozen=True)
class Tally:
    """``people`` have finished a quiz; ``counts[t][g]``: how often an image of the choice ``t`` was taken for ``g``."""

    people: int
    counts: list[list[int]]

    @property
    def shown(self) -> int:
        """Answers in all."""
        return sum(map(sum, self.counts))

    @property
    def right(self) -> int:
        """Right ones among them."""
        return sum(row[i] for i, row in enumerate(self.counts))


def read(folder: Path, digest: str, choices: int) -> Tally:
    """The tally of a quiz with so many choices, in a run's folder; nobody's where there is none."""
    found = read_json(_file(folder, digest))
    blank = Tally(0, [[0] * choices for _ in range(choices)])
    if not isinstance(found, dict) or not _is_count(found.get("people")) or not isinstance(found.get("counts"), list):
        return blank
    rows = found["counts"]
    whole = len(rows) == choices and all(isinstance(row, list) and len(row) == choices for row in rows)
    return Tally(found["people"], rows) if whole and all(_is_count(n) for row in rows for n in row) else blank


def add(folder: Path, digest: str, choices: int, answers: list[tuple[int, int]]) -> Tally:
    """Add somebody's answers, pairs of what an image was and what it was taken for."""
    with _adding:
        before = read(folder, digest, choices)
        if before.people >= MOST:
            return before
        counts = [list(row) for row in before.counts]
        for truth, guess in answers:
            counts[truth][guess] += 1
        write_json(_file(folder, digest), {"people": before.people + 1, "counts": counts})
        return Tally(before.people + 1, counts)


def _file(folder: Path, digest: str) -> Path:
    assert DIGEST.fullmatch(digest), digest
    return folder / "quiz" / f"{digest}.json"


def _is_count(value: object) -> bool:
    return type(value) is int and 0 <= value <= 10**9
