"""Sets from files: a saved folder or zip, or the ``.pt`` of images and labels that papers' code writes."""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import os
import tempfile
from pathlib import Path

from engine import exchange, words
from engine.data.base import Dataset
from engine.data.catalogue import FOLDER
from engine.data.folder_check import name_of, open_zip
from engine.errors import Refused
from engine.exports import setfile
from engine.exports.runzip import SET_LIMITS, Carried, is_run, unpack, unpacked
from engine.exports.setzip import PAPERS
from engine.runs.film import publish, write_result
from engine.runs.job import Job, read_data
from engine.runs.store import Store
from engine.runs.validate import check_dataset, needs_dataset
from engine.spec import ImportSpec
from engine.synthetic import SyntheticSet, load_synthetic

log = logging.getLogger("limbeck.imports")
PARTS = SET_LIMITS


def read_set(
    path: Path,
    *,
    dataset: Dataset | None = None,
    labels: Path | None = None,
    per_class: int | None = None,
    space: exchange.Space = "auto",
) -> SyntheticSet:
    """A set from a folder or zip that was saved here, or from a ``.pt`` or ``.npz`` file, which needs ``dataset``.

    Raises ``Refused`` with a sentence when there is nothing there, or nothing that can be believed.
    """
    if not os.path.exists(path):
        raise Refused(f"There is no run and no file “{path}”; give a run id or the path of a saved set.")
    if path.is_dir() or path.name in PARTS:
        return load_synthetic(path)
    if path.suffix == ".zip":
        return _from_zip(path)
    if setfile.says_all(path):
        with tempfile.TemporaryDirectory() as folder:
            setfile.unpack(path, Path(folder))
            return load_synthetic(Path(folder))
    if not needs_dataset(path):
        raise Refused(f"{path.name} is not a set: give a saved folder or .zip, or a .pt or .npz of images and labels.")
    if dataset is None:
        raise Refused(f"{path.name} does not say which dataset it stands for; name it.")
    return exchange.import_pt(path, dataset=dataset, labels=labels, per_class=per_class, space=space)


def import_set(store: Store, synthetic: SyntheticSet, title: str, spec: ImportSpec) -> str:
    """Make a finished run of a set, at once, and return its id."""
    id = store.submit("import", spec, title, pid=os.getpid())
    store.update(id, dataset=synthetic.dataset)
    publish(store, id, synthetic)
    store.update(id, progress=1.0)
    store.announce(id, "done", _done(synthetic))
    return id


def read_import(spec: ImportSpec, dataset: Dataset | None) -> SyntheticSet:
    """The set that ``spec`` names, its kind and provenance saying that it came from elsewhere."""
    labels = Path(spec.labels) if spec.labels else None
    synthetic = read_set(Path(spec.path), dataset=dataset, labels=labels, per_class=spec.per_class, space=spec.space)
    if len(synthetic.dataset) > 500 or not synthetic.dataset.startswith(FOLDER):
        check_dataset(synthetic.dataset)
    provenance = {**synthetic.provenance, "imported_from": Path(spec.path).name}
    return dataclasses.replace(synthetic, kind="imported", provenance=provenance)


def import_run(job: Job) -> None:
    """The job: read an uploaded file and make it the run's result. The upload is then removed, also when refused."""
    spec = ImportSpec.model_validate(job.run.spec)
    try:
        if is_run(spec.path):
            job.say("Checking the run.")
            with unpacked(Path(spec.path)) as carried:
                keep_run(job.store, job.id, carried, set_of(carried, Path(spec.path).name), title_of(carried))
            return _remove_upload(job, spec)
        named = read_data(job, spec.dataset, spec.size) if needs_dataset(spec.path) else None
        job.say("Checking the file.")
        synthetic = read_import(spec, named)
    except Refused:
        _remove_upload(job, spec)
        raise
    publish(job.store, job.id, synthetic)
    job.store.update(job.id, progress=1.0, dataset=synthetic.dataset)
    job.store.announce(job.id, "done", _done(synthetic))
    _remove_upload(job, spec)


def import_zip(store: Store, spec: ImportSpec, title: str) -> tuple[str, SyntheticSet]:
    """Make a finished run of a run's zip, at once; returns its id and set. ``title``: its own unless given."""
    path = Path(spec.path)
    with unpacked(path) as carried:
        synthetic = set_of(carried, path.name)
        id = store.submit("import", spec, title, pid=os.getpid())
        keep_run(store, id, carried, synthetic, title or title_of(carried))
    return id, synthetic


def set_of(carried: Carried, file: str) -> SyntheticSet:
    """The set of a run that was read from a zip. Raises ``Refused`` when it is none, or not that run's."""
    about, layout = carried.about, carried.layout
    synthetic = load_synthetic(carried.folder / "result")
    if synthetic.dataset != about.dataset or list(synthetic.classes) != layout["classes"]:
        raise Refused(f"The set in {file} is not that of its run: dataset or classes differ. Export the run again.")
    if synthetic.images.shape[1] != layout["channels"]:
        raise Refused(f"The set in {file} is not that of its run: the images have other colours. Export it again.")
    if not about.dataset.startswith(FOLDER):
        check_dataset(about.dataset)
    provenance = {**synthetic.provenance, "imported_from": file}
    return dataclasses.replace(synthetic, kind="imported", provenance=provenance)


def keep_run(store: Store, id: str, carried: Carried, synthetic: SyntheticSet, title: str) -> None:
    """Make a run that was read from a zip the result of the import ``id``: set, frames, events, evaluations.

    Its events get ids of this store's own, its accuracies are marked as imported, and what it was is kept in the event
    ``origin``.
    """
    about = carried.about
    for step, path in carried.frames.items():
        store.write_frame(id, step, path.read_bytes())
    for path in (carried.folder / "beside").iterdir():
        store.write_beside(id, path.name, path.read_bytes())
    origin = {name: getattr(about, name) for name in ("kind", "title", "spec", "made", "seconds", "machine")}
    store.append(id, [("origin", 0, origin), *carried.events], step=about.step, seconds=about.seconds)
    for evaluation in carried.evaluations:
        store.add_evaluation(id, evaluation)
    write_result(store, id, synthetic)
    store.update(id, progress=1.0, dataset=synthetic.dataset, title=title)
    frames, measured = words.count(len(carried.frames), "frame"), words.count(len(carried.evaluations), "evaluation")
    store.announce(id, "done", f"Imported with {frames} and {measured}; it was made elsewhere.")


def complete(store: Store) -> None:
    """Write ``papers.pt`` for the sets of the gallery, which the server installs without torch."""
    for run in store.runs(kinds=("distill", "baseline"), limit=10_000):
        folder = store.result_folder(run.id) if run.gallery else None
        if folder is None or (folder / PAPERS).exists():
            continue
        try:
            exchange.export_pt(load_synthetic(folder), folder / PAPERS)
        except Refused as refused:
            log.warning("The set of %s: %s", run.id, refused)


def title_of(carried: Carried) -> str:
    """What an imported run is called unless somebody says otherwise."""
    return f"{carried.about.title[:180].removesuffix(', imported')}, imported"


def _remove_upload(job: Job, spec: ImportSpec) -> None:
    """Delete what a page had saved under ``uploads``; files from anywhere else are their owner's."""
    uploads = (job.store.home / "uploads").resolve()
    for path in (Path(name).resolve() for name in (spec.path, spec.labels) if name):
        if uploads in path.parents:
            path.unlink(missing_ok=True)
            if path.parent != uploads:
                with contextlib.suppress(OSError):
                    path.parent.rmdir()


def _done(synthetic: SyntheticSet) -> str:
    count = len(synthetic.images)
    return f"Imported {count:,} image{'s' if count > 1 else ''} of {len(synthetic.classes)} classes."


def _from_zip(path: Path) -> SyntheticSet:
    """A set from a zip of its two files; nothing else in the zip is looked at, and no name in it is trusted."""
    with open_zip(path) as archive, tempfile.TemporaryDirectory() as folder:
        found = {Path(info.filename).name: info for info in archive.infolist() if not info.is_dir()}
        for name, limit in PARTS.items():
            if name not in found:
                raise Refused(f"{name_of(path)} holds no saved set: {name} is missing in it.")
            with (Path(folder) / name).open("wb") as sink:
                unpack(archive, found[name], sink, limit)
        return load_synthetic(Path(folder))
