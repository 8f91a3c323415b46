"""The DD-Ranking scores of a set, as a run."""

from __future__ import annotations

from engine.accel import pick_accel
from engine.data.catalogue import FOLDER
from engine.runs.evaluating import check_fit, saved_set
from engine.runs.job import Job, Stopped, read_data
from engine.runs.studying import teacher
from engine.spec import RankSpec, StudentSpec
from engine.students.protocols import PROTOCOLS
from engine.students.ranking import rank_slices

REFERENCE = 0.3  # of the progress, while the full-data reference is trained


class _GivenUp(Exception):
    """Somebody stopped the run while the reference was being trained."""


def rank_run(job: Job) -> None:
    """Score a saved set and keep the scores with this run and with the run that made the set (event ``ranking``).

    The full-data reference is a student like any other: the first finished one of its spec, or one trained now.
    """
    spec = RankSpec.model_validate(job.run.spec)
    accel, protocol = pick_accel(spec.device), PROTOCOLS[spec.protocol]
    synthetic = saved_set(job, spec.source, spec.dataset)
    data = read_data(job, spec.dataset or synthetic.dataset, synthetic.images.shape[-1])
    check_fit(synthetic, data)
    job.store.update(job.id, dataset=data.name)

    def tell(fraction: float, what: str) -> None:
        if job.stopping():
            raise _GivenUp
        job.tell(f"{what.rstrip('.')}, {fraction:.0%}", progress=REFERENCE * fraction)

    size = data.size if data.name.startswith(FOLDER) else StudentSpec.model_fields["size"].default
    try:
        reference = teacher(job.store, data.name, size, accel, tell, network=protocol.network, width=protocol.width)
    except _GivenUp:
        raise Stopped from None
    work = rank_slices(
        synthetic,
        data,
        reference,
        spec.protocol,
        seeds=spec.seeds,
        seed=spec.seed,
        weight=spec.weight,
        balance=spec.balance,
        accel=accel,
    )
    while True:
        try:
            fraction, what = next(work)
        except StopIteration as end:
            found = {**end.value, "dataset": data.name}
            break
        if job.stopping():
            raise Stopped
        job.tell(f"{what}, {fraction:.0%} of all", progress=REFERENCE + (1 - REFERENCE) * fraction)
    for id in {job.id, spec.source} if job.store.run(spec.source) else {job.id}:
        job.store.append(id, [("ranking", 0, found)])
    job.store.update(job.id, seconds=found["seconds"], progress=1.0)
    job.store.announce(
        job.id, "done", f"Label-robust score {found['lrs']:.3f}, augmentation-robust score {found['ars']:.3f}."
    )
