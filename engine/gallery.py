"""The gallery: finished runs that come with the program, as zips that ``runs`` of any home are made of (torch-free).

``assets/gallery/gallery-NAME.zip``, each as ``python -m engine export RUN --format run`` writes it, become runs with
their file's name as id when a server starts. ``LIMBECK_GALLERY`` may name another folder of such zips.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import re
import secrets
import shutil
import sqlite3
import threading
import time
from dataclasses import dataclass
from pathlib import Path

from engine import words
from engine.data.catalogue import FOLDER
from engine.errors import Refused
from engine.exports.runzip import Carried, read_run
from engine.runs.store import GALLERY, Run, Store
from engine.runs.validate import check_dataset

log = logging.getLogger("limbeck.gallery")
HERE = Path(__file__).parents[1] / "assets" / "gallery"
NAME = re.compile(rf"{GALLERY}[a-z0-9-]{{1,60}}")
MARK = ", gallery"  # ends the titles of these runs, so that lists tell them from one's own


@dataclass(frozen=True)
class Card:
    """What a run of the gallery is called, and what there is to see in it."""

    title: str
    about: str


CARDS: dict[str, Card] = {
    "gallery-mnist-dc-1": Card(
        "MNIST in ten images",
        "60,000 digits become ten: each image takes up the strokes that many hands have in common.",
    ),
    "gallery-cifar10-frepo-1": Card(
        "CIFAR-10 in ten images",
        "Photographs turn into something that nobody would photograph, with labels that are learned along with them.",
    ),
    "gallery-shapes-dm-1": Card(
        "Ten shapes, ten textures",
        "Every shape occurs in every texture: look what a single image per shape keeps of them.",
    ),
    "gallery-digits-mtt-1": Card(
        "The way through a training",
        "The images are moved until a network that learns from them goes the way it goes on all the digits.",
    ),
    "gallery-mnist-dm-10": Card(
        "MNIST in a hundred images",
        "Ten of a class share the work: each stays a digit of its own, and their average sees what the real ones do.",
    ),
    "gallery-cifar10-dsa-1": Card(
        "Ten images made for augmentation",
        "Matched while real and synthetic images are cropped, mirrored and recoloured alike.",
    ),
    "gallery-mnist-dd-1": Card(
        "Ten images for one network",
        "They teach a single network, from its own initial weights, in a few learned steps; to others they say little.",
    ),
    "gallery-cifar10-dm-10": Card(
        "CIFAR-10 in a hundred images",
        "With ten images in a class each has less to carry, and most can still be recognised.",
    ),
    "gallery-mnist-frepo-1": Card(
        "Ten digits with learned labels",
        "The labels are learned, too: an image may stand for mostly a 4 and a little of a 9.",
    ),
    "gallery-digits-dm-10": Card(
        "The built-in digits",
        "Made of small scans that are always here: distil them again, or train on them, without any download.",
    ),
}  # in the order of the page


# ---- what is there --------------------------------------------------------------------------------------------------


def zips() -> dict[str, Path]:
    """The zips of the gallery by the ids of their runs: those with a card in its order, then the others."""
    folder = Path(os.environ.get("LIMBECK_GALLERY") or HERE)
    found = {path.stem: path for path in sorted(folder.glob("*.zip"))}
    return {id: found[id] for id in dict.fromkeys([*CARDS, *found]) if id in found}


def shown(store: Store) -> list[Run]:
    """The runs of the gallery that are here and have pictures."""
    runs = (store.run(id) for id in zips())
    return [run for run in runs if run is not None and store.frames(run.id)]


def card(run: Run) -> Card:
    """The card of a run of the gallery; one without has its title, and nothing said about it."""
    return CARDS.get(run.id) or Card(run.title.removesuffix(MARK), "")


# ---- taking it in ---------------------------------------------------------------------------------------------------

_thread: threading.Thread | None = None


def start(store: Store) -> None:
    """``take_in`` beside everything else."""
    global _thread
    _thread = threading.Thread(target=take_in, args=(store,), name="limbeck-gallery", daemon=True)
    _thread.start()


def at_work() -> bool:
    """Whether runs may still be added by what ``start`` began."""
    return _thread is not None and _thread.is_alive()


def take_in(store: Store) -> list[str]:
    """Make runs of the zips that were not made runs of this home before; the ids of the new ones.

    A zip that cannot be taken in is left out, and the log says why in a sentence.
    """
    new = []
    for id, path in zips().items():
        try:
            if _install(store, id, path):
                new.append(id)
        except Refused as refused:
            log.warning("Left out of the gallery: %s", refused)
        except (OSError, sqlite3.Error) as error:
            reason = getattr(error, "strerror", None) or error
            log.warning("The gallery cannot be kept in %s (%s): free some space or allow writing.", store.home, reason)
            break
    return new


def _install(store: Store, id: str, path: Path) -> bool:
    if not NAME.fullmatch(id):
        raise Refused(f"{path.name[:80]} is not named {GALLERY}….zip with small letters, digits and hyphens.")
    try:
        mark = hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError as error:
        raise Refused(f"{path.name} cannot be read ({error.strerror}).") from None
    if store.installed().get(id) == mark:
        return False
    folder = store.home / "runs" / f".new-{secrets.token_hex(4)}"
    folder.mkdir()
    try:
        carried = read_run(path, folder)
        _check(carried, path.name)
        about = carried.about
        (folder / "spec.json").write_text(json.dumps({"kind": about.kind, **about.spec}, indent=1))
        made = about.made or time.time()
        frames, measured = (
            words.count(len(carried.frames), "frame"),
            words.count(len(carried.evaluations), "evaluation"),
        )
        message = f"It came with Limbeck: {frames} and {measured}."
        return store.install(
            id, mark, folder, [*carried.events, ("status", about.step, {"status": "done", "message": message})],
            carried.evaluations, kind=about.kind, dataset=about.dataset, title=f"{about.title[:180]}{MARK}",
            spec=about.spec, message=message, created=made, queued=made, started=made - about.seconds, finished=made,
            step=about.step, steps_total=about.spec.get("steps"), seconds=about.seconds,
        )  # fmt: skip
    finally:
        shutil.rmtree(folder, ignore_errors=True)  # where it was not taken


def _check(carried: Carried, name: str) -> None:
    """Refuse what is no run of a set of ours. Its tensors are looked at by whoever loads them."""
    about, layout = carried.about, carried.layout
    if about.kind not in ("distill", "baseline"):
        raise Refused(f"{name} was neither distilled nor selected by Limbeck; the gallery takes nothing else.")
    if about.dataset.startswith(FOLDER):
        raise Refused(f"{name} is of images in a folder, which are not here; the gallery takes sets of the catalogue.")
    check_dataset(about.dataset)
    try:
        meta = json.loads((carried.folder / "result" / "synthetic.json").read_text())
        same = (meta["dataset"], meta["classes"]) == (about.dataset, layout["classes"])
    except (ValueError, LookupError, TypeError, RecursionError):
        same = False
    if not same:
        raise Refused(f"The set in {name} is not that of its run: dataset or classes differ. Export the run again.")
