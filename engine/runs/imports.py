"""Sets from files: a saved folder or zip, or the ``.pt`` of images and labels that papers' code writes."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import tempfile
import zipfile
import zlib
from pathlib import Path

from engine import exchange
from engine.data.base import Dataset
from engine.data.catalogue import FOLDER
from engine.errors import Refused
from engine.runs.film import publish
from engine.runs.job import Job, read_data
from engine.runs.store import Store
from engine.runs.validate import check_dataset, needs_dataset
from engine.spec import ImportSpec
from engine.synthetic import SyntheticSet, load_synthetic

PARTS = {"synthetic.json": 50_000_000, "synthetic.safetensors": 2_000_000_000}  # bytes each may unpack to


def read_set(
    path: Path,
    *,
    dataset: Dataset | None = None,
    labels: Path | None = None,
    per_class: int | None = None,
    space: str = "auto",
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
    try:
        with zipfile.ZipFile(path) as archive, tempfile.TemporaryDirectory() as folder:
            found = {Path(info.filename).name: info for info in archive.infolist() if not info.is_dir()}
            for name, limit in PARTS.items():
                if name not in found:
                    raise Refused(f"{path.name} holds no saved set: {name} is missing in it.")
                _unpack(archive, found[name], Path(folder) / name, limit)
            return load_synthetic(Path(folder))
    except (zipfile.BadZipFile, RuntimeError, zlib.error, EOFError):
        raise Refused(f"{path.name} is not a zip that can be read.") from None


def _unpack(archive: zipfile.ZipFile, info: zipfile.ZipInfo, target: Path, limit: int) -> None:
    """Write one member, counting what really comes out of it: the size it claims may be a lie."""
    with archive.open(info) as source, target.open("wb") as sink:
        left = limit
        while block := source.read(1 << 20):
            left -= len(block)
            if left < 0:
                raise Refused(f"{info.filename[:80]} unpacks to more than {limit // 1_000_000} MB.")
            sink.write(block)
