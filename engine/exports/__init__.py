"""What can be taken away from a run, each as the bytes of one file (torch-free)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from engine.errors import Refused
from engine.exports import setfile
from engine.exports.animation import animate
from engine.exports.facts import story, told
from engine.exports.report import html_report
from engine.exports.runzip import export_run
from engine.exports.setzip import PAPERS, export_zip
from engine.exports.sheet import contact_sheet
from engine.runs.store import Store

Make = Callable[[Store, str], bytes]


@dataclass(frozen=True)
class Export:
    """One kind of file: its id, what a button says, its ending and media type, and what it is good for.

    ``needs``: what a run must have for it: a ``film`` (more than one frame), a ``frame`` or a ``set`` (its result).
    """

    id: str
    title: str
    suffix: str
    mime: str
    needs: str
    about: str
    make: Make

    def name(self, run: str) -> str:
        """The file's name for the run with that id."""
        return f"limbeck-{run}{'-run' if self.id == 'run' else ''}{self.suffix}"


def _papers(store: Store, id: str) -> bytes:
    try:
        return (_set(store, id) / PAPERS).read_bytes()
    except FileNotFoundError:
        raise Refused(f"Run {id} has no .pt; “python -m engine export {id} --out set.pt” makes one.") from None


def _set(store: Store, id: str) -> Path:
    folder = store.result_folder(id)
    if folder is None:
        raise Refused(f"Run {id} has no result yet; it is {story(store, id).run.status}.")
    return folder


EXPORTS: dict[str, Export] = {
    e.id: e
    for e in (
        Export(
            "gif", "GIF", ".gif", "image/gif", "film",
            "How the images came to be, for slides and messages; at most 120 frames, 256 colours each.",
            lambda store, id: animate(told(store, id), "gif"),
        ),
        Export(
            "webp", "WebP", ".webp", "image/webp", "film",
            "The same in all its colours, for browsers.",
            lambda store, id: animate(told(store, id), "webp"),
        ),
        Export(
            "sheet", "Contact sheet (.png)", ".png", "image/png", "frame",
            "All images by class at 300 dpi, to print: A4, or larger where they are many.",
            lambda store, id: contact_sheet(told(store, id)),
        ),
        Export(
            "html", "Report (.html)", ".html", "text/html", "frame",
            "Images, curves, results, settings and the command that makes it again: one page that opens offline.",
            lambda store, id: html_report(told(store, id)),
        ),
        Export(
            "zip", "Images (.zip)", ".zip", "application/zip", "set",
            "safetensors and JSON, readable without Limbeck, with lines that train on them.",
            lambda store, id: export_zip(_set(store, id)),
        ),
        Export(
            "npz", ".npz", ".npz", "application/octet-stream", "set",
            "The set as plain arrays, in one file.",
            lambda store, id: setfile.npz(_set(store, id)),
        ),
        Export(
            "safetensors", ".safetensors", ".safetensors", "application/octet-stream", "set",
            "The set in one file that loads without NumPy, too.",
            lambda store, id: setfile.safetensors(_set(store, id)),
        ),
        Export(
            "pt", ".pt", ".pt", "application/octet-stream", "set",
            "For the papers' code: the tuple of images and labels that it reads.",
            _papers,
        ),
        Export(
            "run", "Whole run (.zip)", ".zip", "application/zip", "set",
            "Settings, film, curves, accuracies and set: another Limbeck imports it as a run.",
            export_run,
        ),
    )
}  # fmt: skip


def missing(store: Store, id: str) -> dict[str, str]:
    """The exports that a run does not allow (yet), each with the reason in words."""
    frames, folder = len(store.frames(id)), store.result_folder(id)
    reasons = {
        "film": "" if frames > 1 else "This run has a single picture: nothing moves.",
        "frame": "" if frames else "This run has no pictures yet.",
        "set": "" if folder else "This run has no result yet.",
    }
    found = {e.id: reasons[e.needs] for e in EXPORTS.values() if reasons[e.needs]}
    if folder and not (folder / PAPERS).is_file():
        found["pt"] = "This set was made before Limbeck kept one."
    if folder and not frames:
        found["run"] = reasons["frame"]
    return found


def export(store: Store, id: str, format: str) -> bytes:
    """A run as a file of a format of ``EXPORTS``. Raises ``Refused`` where there is no such run, or not (yet) that."""
    if format not in EXPORTS:
        raise Refused(f"There is no format “{format[:40]}”; choose one of {', '.join(EXPORTS)}.")
    return EXPORTS[format].make(store, story(store, id).run.id)
