"""A set some of whose images were changed by hand, as a run of its own: the set it comes from stays as it is."""

from __future__ import annotations

from pathlib import Path

from engine import words
from engine.editing import edited, with_source
from engine.edits import parse
from engine.runs.evaluating import check_fit, saved_set
from engine.runs.film import publish
from engine.runs.job import Job, read_data
from engine.spec import EditSpec


def edit_run(job: Job) -> None:
    """Do the edits to a saved set and keep what comes out, with its provenance naming both."""
    spec = EditSpec.model_validate(job.run.spec)
    edits = parse(spec.edits)
    synthetic = saved_set(job, spec.source)
    data = read_data(job, synthetic.dataset, synthetic.images.shape[-1])
    check_fit(synthetic, data)
    parent = job.store.run(spec.source)
    source, title = (parent.id, parent.title) if parent else (Path(spec.source).name, "")
    changed = with_source(edited(synthetic, edits, data), edits, source, title)
    publish(job.store, job.id, changed)
    job.store.update(job.id, dataset=changed.dataset, progress=1.0)
    images = words.count(len({edit.image for edit in edits}), "image")
    job.store.announce(
        job.id, "done", f"{words.count(len(edits), 'edit')} done to {images} of {len(changed.images):,}."
    )
