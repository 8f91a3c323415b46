"""What a hostile input is, and what it may cost."""

from __future__ import annotations

import re
import resource
import time
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

SECONDS = 5.0  # of processor time that one input may take
MEGABYTES = 400  # of memory beyond what the process had
LONGEST = 900  # characters of a sentence


@dataclass(frozen=True)
class Case:
    """An input: ``make`` builds it (in a folder of its own, where it is a file), ``says`` is a pattern of the sentence
    that answers it. One that is strange but legitimate has ``reads`` instead, which looks at what was read. Where
    libraries of different age do differently, either will do."""

    name: str
    make: Callable[..., Any]
    says: str = ""
    reads: Callable[[Any], Any] | None = None

    def __post_init__(self) -> None:
        assert self.says or self.reads, self.name

    def refused(self, refusal: Exception) -> None:
        """Look at a refusal."""
        if not self.says:
            raise refusal
        assert re.search(self.says, str(refusal)) and is_sentence(str(refusal)), str(refusal)

    def read(self, found: Any) -> None:
        """Look at what was read."""
        assert self.reads is not None, f"not refused: {found!r:.200}"
        self.reads(found)


def told_apart(*cases: Case) -> list[Case]:
    """The cases; of those that have one name, each but the first gets a number."""
    seen: Counter[str] = Counter()
    out = []
    for case in cases:
        seen[case.name] += 1
        out.append(replace(case, name=f"{case.name} ({seen[case.name]})") if seen[case.name] > 1 else case)
    return out


def name_of(case: Case) -> str:
    """The case's name as pytest shows it."""
    return case.name.encode("ascii", "backslashreplace").decode()


def is_sentence(text: str) -> bool:
    """Whether a text is one that a person can be shown: short, printable, ended, and no traceback."""
    clean = not any(unicodedata.category(c) in ("Cc", "Cs", "Zl", "Zp") for c in text)
    return clean and 10 <= len(text) <= LONGEST and text.rstrip("”").endswith(".") and "Traceback" not in text


@contextmanager
def bounded(seconds: float = SECONDS, megabytes: float = MEGABYTES) -> Iterator[None]:
    """The block may take so much processor time, in all threads, and so much memory."""
    before, peaks = time.process_time(), _peaks_count_from_here()
    held = _memory("VmRSS")
    yield
    assert time.process_time() - before < seconds
    if peaks:
        assert _memory("VmHWM") - held < megabytes


def _peaks_count_from_here() -> bool:
    """Forget the highest memory so far, where the system lets a process do that."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
        return True
    except OSError:
        return False


def _memory(what: str) -> float:
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(int(line.split()[1]) / 1000 for line in lines if line.startswith(what))
    except (OSError, StopIteration):
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000
