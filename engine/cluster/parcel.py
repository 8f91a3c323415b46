"""What travels between the head and a node: the files of runs, and their rows (torch-free)."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from engine.errors import Refused
from engine.home import aside
from engine.runs.store import Run, Store

LIMIT = 512_000_000  # bytes that one errand may take along
LAST = ("synthetic.json", "student.json", "answer.json")  # with these the files beside them count as there
HOME = "{LIMBECK_HOME}"  # stands for the home folder, which is another one on each machine
READ = ("layout", "reference")  # events that what runs on a node may look for

Files = dict[str, bytes]
Seen = dict[str, tuple[int, int]]


@dataclass
class Parcel:
    """What a node is given. ``files``: by path below the home. ``runs``: rows of runs by id, with ``events`` to seed.

    ``kind`` is what is to be done with ``id``: a ``run`` of the store, or a ``question`` at the desk.
    """

    kind: str
    id: str
    files: Files = field(default_factory=dict)
    runs: dict[str, dict[str, Any]] = field(default_factory=dict)
    events: dict[str, list[tuple[str, int, dict[str, Any]]]] = field(default_factory=dict)

    def add_run(self, store: Store, run: Run, *, whole: bool = False) -> None:
        """Take a run along: its row, its set, frames and student; ``whole`` with everything it wrote."""
        columns = ("kind", "dataset", "title", "message", "created", "step", "steps_total", "seconds", "progress")
        row = {name: getattr(run, name) for name in columns}
        self.runs[run.id] = {**row, "spec": _replaced(run.spec, str(store.home), HOME), "status": run.status}
        self.events[run.id] = [(e.kind, e.step, e.data) for e in store.events(run.id, kinds=READ)]
        folder = store.folder(run.id)
        parts = ("result", "student", "frames", "spec.json")
        for part in [folder] if whole else [folder / name for name in parts]:
            self.add_files(store.home, part)

    def add_mentioned(self, store: Store, values: Any) -> None:
        """Take along the runs and the uploads that a spec speaks of."""
        for text in _strings(values):
            run = store.run(text)
            if run is not None and run.id not in self.runs:
                self.add_run(store, run)
                self.add_mentioned(store, [v for k, v in run.spec.items() if k != "source"])
            if str(store.home) in text:
                self.add_files(store.home, Path(text[text.index(str(store.home)) :]))
            elif (store.home / "uploads" / (name := text.removeprefix("file:"))).is_file() and "/" not in name:
                self.add_files(store.home, store.home / "uploads" / name)

    def add_files(self, home: Path, path: Path) -> None:
        """Take a file or a folder below the home along; ``Refused`` beyond ``LIMIT``."""
        home, path = home.resolve(), path.resolve()
        if home not in path.parents or not path.exists():
            return
        for file in [path] if path.is_file() else sorted(_files(path)):
            if file.is_file() and not file.name.startswith("."):
                self.files[file.relative_to(home).as_posix()] = file.read_bytes()
        if sum(map(len, self.files.values())) > LIMIT:
            raise Refused(
                f"What this run reads is larger than {LIMIT // 10**6} MB, too much to send to a node; put the images "
                "where every node has them (LIMBECK_DATA), or run it on this machine."
            )

    def unpack(self, home: Path) -> Store:
        """The store of a node's home, with everything in it that was sent."""
        write(home, self.files, ())
        store = Store(home)
        for id, row in self.runs.items():
            folder = home / f"new-{id}"
            store.folder(id).mkdir(parents=True, exist_ok=True)
            os.replace(store.folder(id), folder)
            row = {**row, "spec": _replaced(row["spec"], HOME, str(home)), "queued": row["created"]}
            if id == self.id:
                row["status"] = "interrupted"
            store.install(id, "", folder, self.events[id], [], **row)
        return store


def changed(folder: Path, seen: Seen) -> tuple[Files, list[str]]:
    """The files below ``folder`` that are new or other than in ``seen``, which is brought up to date, and the names of
    those that are gone."""
    now: dict[str, tuple[tuple[int, int], Path]] = {}
    for path in _files(folder):
        try:
            facts = path.stat()
        except FileNotFoundError:
            continue
        if path.is_file() and not path.name.startswith("."):
            now[path.relative_to(folder).as_posix()] = ((facts.st_mtime_ns, facts.st_size), path)
    gone = [name for name in seen if name not in now]
    files: Files = {}
    for name, (mark, path) in now.items():
        if seen.get(name) != mark:
            try:
                files[name] = path.read_bytes()
            except FileNotFoundError:  # thinned out since
                continue
            seen[name] = mark
    for name in gone:
        del seen[name]
    return files, gone


def write(folder: Path, files: Files, gone: Iterable[str]) -> None:
    """Write files below ``folder``, each aside and then renamed, and remove those that are gone.

    Raises ``ValueError`` for a name that would leave the folder.
    """
    for name in sorted(files, key=lambda n: (PurePosixPath(n).name in LAST, n)):
        path = _below(folder, name)
        path.parent.mkdir(parents=True, exist_ok=True)
        with aside(path) as part:
            part.write_bytes(files[name])
    for name in gone:
        path = _below(folder, name)
        path.unlink(missing_ok=True)
        with contextlib.suppress(OSError):  # others are still in it
            path.parent.rmdir()


def _files(folder: Path) -> Iterator[Path]:
    """What is not a folder below ``folder``; unlike ``rglob``, goes on when a run moves a folder away meanwhile."""
    for root, _, names in os.walk(folder):
        yield from (Path(root, name) for name in names)


def _below(folder: Path, name: str) -> Path:
    parts = PurePosixPath(name).parts
    if not parts or PurePosixPath(name).is_absolute() or ".." in parts:
        raise ValueError(f"{name!r} leaves its folder")
    return folder.joinpath(*parts)


def _strings(value: Any) -> list[str]:
    if isinstance(value, str):
        return [value]
    if isinstance(value, dict):
        value = list(value.values())
    return [text for part in value for text in _strings(part)] if isinstance(value, list | tuple) else []


def _replaced(value: Any, old: str, new: str) -> Any:
    if isinstance(value, str):
        return value.replace(old, new)
    if isinstance(value, dict):
        return {key: _replaced(part, old, new) for key, part in value.items()}
    return [_replaced(part, old, new) for part in value] if isinstance(value, list | tuple) else value
