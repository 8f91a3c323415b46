"""A set with a teacher's labels, as a run of its own: the set it comes from stays as it is."""

from __future__ import annotations

from engine.accel import pick_accel
from engine.runs.evaluating import saved_set
from engine.runs.film import publish
from engine.runs.job import Job
from engine.spec import SoftenSpec
from engine.students.kept import load_student
from engine.students.soften import soften


def soften_run(job: Job) -> None:
    """Ask the teacher about every image of a saved set and keep the set with its answers."""
    spec = SoftenSpec.model_validate(job.run.spec)
    accel = pick_accel(spec.device)
    synthetic = saved_set(job, spec.source)
    job.say("Asking the teacher.")
    softened = soften(synthetic, load_student(job.store, spec.teacher, accel), spec.temperature)
    publish(job.store, job.id, softened, accel.describe())
    job.store.update(job.id, dataset=softened.dataset, progress=1.0)
    agreement = softened.provenance["softened"]["agreement"]
    job.store.announce(
        job.id, "done", f"Soft labels for {len(softened.images):,} images; the teacher agrees with {agreement:.0%}."
    )
