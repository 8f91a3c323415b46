"""Final accuracies, baselines and evaluations of saved sets, as runs."""

from __future__ import annotations

import dataclasses
import time
from pathlib import Path
from typing import Any

from engine import baselines, students
from engine.accel import Accel, pick_accel
from engine.errors import Refused
from engine.runs.film import publish
from engine.runs.imports import read_set
from engine.runs.job import Job, Stopped, read_data
from engine.spec import BaselineSpec, EvaluationSpec
from engine.students.architecture import Architecture, architecture_of
from engine.synthetic import SyntheticSet


def evaluate_and_keep(
    job: Job,
    synthetic: SyntheticSet,
    data: Any,
    protocol: str,
    *,
    network: Architecture | None = None,
    seeds: int,
    seed: int,
    accel: Accel,
    step: int = 0,
    also: str | None = None,
) -> bool:
    """Test accuracy of ``synthetic``, kept with the job's run (and with run ``also``). False when stopped before.

    A run that was killed after that and before it was done has its accuracy already, and is not tested again.
    """
    if any(not found.get("imported") for found in job.store.evaluations([job.id])):
        return True
    what = f"Evaluating: {seeds} student{'s' if seeds > 1 else ''} under the {protocol} protocol"
    job.say(what + ".", step)
    work = students.evaluate_slices(
        synthetic,
        data,
        protocol,
        network=network.network if network else None,
        seeds=seeds,
        seed=seed,
        accel=accel,
        split="test",
        adjust=network.applied if network else None,
    )
    while True:
        try:
            fraction = next(work)
        except StopIteration as end:
            for id in {job.id, also or job.id}:
                job.store.add_evaluation(id, {**end.value.to_dict(), "dataset": data.name})
            return True
        columns = {} if job.run.kind == "distill" else {"progress": fraction}
        job.tell(f"{what}, {fraction:.0%}", **columns)
        if job.stopping(step=step):
            return False


def make_baseline(job: Job) -> None:
    """Real images, selected or summarised; then their test accuracy."""
    spec = BaselineSpec.model_validate(job.run.spec)
    accel = pick_accel(spec.device)
    data = read_data(job, spec.dataset, spec.size)
    job.say("Selecting images.")
    began = time.perf_counter()

    def progress(fraction: float, what: str = "Selecting images") -> None:
        if job.stopping():
            raise Stopped
        job.tell(f"{what} {fraction:.0%}", progress=fraction)

    synthetic = baselines.make_baseline(
        spec.kind,
        data,
        spec.ipc,
        seed=spec.seed,
        accel=accel,
        progress=progress,
        never_learned=spec.never_learned,
    )
    seconds = time.perf_counter() - began
    made = {"spec": spec.model_dump(mode="json"), "seconds": round(seconds, 3), "machine": accel.describe()}
    synthetic = dataclasses.replace(synthetic, provenance={**synthetic.provenance, **made})
    publish(job.store, job.id, synthetic, accel.describe())
    job.store.update(job.id, seconds=seconds)
    finished = spec.students == 0 or evaluate_and_keep(
        job, synthetic, data, spec.protocol, seeds=spec.students, seed=spec.seed, accel=accel
    )
    _end(job, finished)


def evaluate(job: Job) -> None:
    """Students on a saved set: another run's result, or a file."""
    spec = EvaluationSpec.model_validate(job.run.spec)
    accel = pick_accel(spec.device)
    synthetic = saved_set(job, spec.source, spec.dataset)
    data = read_data(job, spec.dataset or synthetic.dataset, synthetic.images.shape[-1])
    check_fit(synthetic, data)
    job.store.update(job.id, dataset=data.name)
    finished = evaluate_and_keep(
        job,
        synthetic,
        data,
        spec.protocol,
        network=architecture_of(spec),
        seeds=spec.seeds,
        seed=spec.seed,
        accel=accel,
        also=spec.source if job.store.result_folder(spec.source) else None,
    )
    _end(job, finished)


def saved_set(job: Job, source: str, dataset: str | None = None, size: int = 32) -> SyntheticSet:
    """The result of the run ``source``, or the set in that file, which may need a ``dataset`` named.

    ``size``: of a folder's images.
    """
    folder = job.store.result_folder(source)
    if folder is not None:
        return read_set(folder)
    if job.store.run(source) is not None:
        raise Refused(f"Run {source} has no result yet; wait until it has finished.")
    named = read_data(job, dataset, size) if dataset else None
    return read_set(Path(source).expanduser(), dataset=named)


def check_fit(synthetic: SyntheticSet, data: Any) -> None:
    """``Refused`` unless students of ``synthetic`` can be tested on ``data``."""
    channels, side = synthetic.images.shape[1], synthetic.images.shape[-1]
    if len(synthetic.classes) != len(data.classes):
        raise Refused(
            f"The set has {len(synthetic.classes)} classes and {data.title} has {len(data.classes)}; "
            "choose the dataset that the set stands for."
        )
    if (channels, side) != (data.channels, data.size):
        raise Refused(
            f"The set's images are {channels}×{side}×{side} and those of {data.title} are "
            f"{data.channels}×{data.size}×{data.size}; choose the dataset that the set stands for."
        )


def _end(job: Job, finished: bool) -> None:
    if finished:
        job.store.update(job.id, progress=1.0)
        job.store.announce(job.id, "done", "Done.")
    else:
        job.store.announce(job.id, "stopped", "Stopped before the evaluation was finished.")
