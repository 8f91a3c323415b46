"""A distillation run, from its spec to its result and final accuracy."""

from __future__ import annotations

import contextlib
import dataclasses
import math
import time
from typing import Any

import torch

from engine import distill
from engine.accel import at_most, pick_accel
from engine.distill.base import Distiller, Diverged
from engine.distill.images import watched
from engine.errors import Refused
from engine.forks import LARGEST, LAST, START
from engine.methods import METHODS
from engine.runs import beside, checkpoint, forking
from engine.runs.evaluating import evaluate_and_keep
from engine.runs.film import Film, write_result
from engine.runs.job import Job, read_data
from engine.runs.live import Live
from engine.spec import RunSpec
from engine.students.course import SMALL, exact
from engine.synthetic import SyntheticSet
from engine.table import parameters

CHECKPOINT_EVERY = 20.0  # seconds, and more often while a run is young
METRIC_EVERY = 0.2  # seconds, and longer in long runs
EXPLODED = 20.0  # times the initial images' root mean square: nothing but saturated pixels is left to see
FRAME_EVERY = 0.3  # seconds, and longer where encoding a frame is slow


def distil(job: Job) -> None:
    """Distil until the budget is used up or someone stops it; then the result, then its test accuracy.

    ``seconds`` of a run are its distilling seconds: setup and steps, compilation included; reading data, drawing
    frames, writing checkpoints and evaluating are not counted. A resumed run goes on at its checkpoint's seconds.
    """
    spec = RunSpec.model_validate(job.run.spec)
    accel = pick_accel(spec.device, spec.deterministic)
    data = read_data(job, spec.dataset, spec.size)
    small = spec.method == "dd" and spec.network in SMALL
    accel = exact(accel) if small else accel
    run = _Distillation(job, spec, data, accel)
    with at_most(1 if small else None):  # faster than two, by 40 to 60 % (tests/benchmarks/threads.py)
        run.start()
        run.loop()
        result = run.finish()
    if run.diverged:
        job.store.announce(job.id, "stopped", run.diverged, step=run.step, **run.advice())
    elif job.stop_asked:
        job.store.announce(job.id, "stopped", f"Stopped at step {run.step:,}. {run.kept}".strip(), step=run.step)
    else:
        kept = spec.students == 0 or evaluate_and_keep(
            job, result, data, spec.final_protocol, seeds=spec.students, seed=spec.seed, accel=accel, step=run.step
        )
        job.store.update(job.id, progress=1.0)
        ending = f"Done: {run.step:,} steps in {run.seconds:.0f} s. {run.kept}".strip()
        if kept:
            job.store.announce(job.id, "done", ending, step=run.step)
        else:
            job.store.announce(job.id, "stopped", "The images are finished; evaluation was stopped.", step=run.step)
    # A run that has its result is not resumed, but may be forked.
    checkpoint.retire(job.folder / "checkpoint", job.folder / LAST, LARGEST)
    if not run.diverged:  # and then not begun again either
        for path in (job.folder / START).glob("*.pt"):
            path.unlink(missing_ok=True)


class _Distillation:
    """The loop's state: distiller, clock, film, checkpoints, live accuracy."""

    def __init__(self, job: Job, spec: RunSpec, data: Any, accel: Any):
        self.job, self.spec, self.data, self.accel = job, spec, data, accel
        self.store = job.store
        self.distiller: Distiller = distill.make_distiller(spec.method)
        fork = spec.fork
        self.step = fork.step if fork else 0
        # What the method's own count of steps leaves out: the parent's, unless the fork goes on with that count.
        self.before = fork.step if fork and fork.source != "state" else 0
        self.seconds = fork.seconds if fork else 0.0  # distilling seconds, over all sessions of the run
        self.seen = fork.images_seen if fork else 0  # real images looked at, each time anew
        self.diverged = ""  # the sentence, once it has
        self.kept = ""  # a sentence on which images are the result, where it is not the last
        self.film: Film
        self.live: Live
        self.scale = 1.0  # root mean square of the initial images
        self._losses: list[float] = []  # since the last metric event
        self._extras: dict[str, float] = {}  # what else the last step reported
        self._noted = False  # whether the run's message is a method's note
        self._mark = (0, 0.0)  # step and seconds at the last metric event
        self._next_metric = self._next_frame = 0.0
        self._next_checkpoint = math.inf

    # ---- stages ----

    def start(self) -> None:
        """Set the distiller up, or bring it back to its last checkpoint, and show the images."""
        saved = checkpoint.load(self.job.folder / "checkpoint")
        self.job.say("Making the initial images." if saved is None else "Going back to the last checkpoint.")
        began = time.perf_counter()
        whole = self._set_up()
        self.scale = max(1.0, _rms(self.distiller.synthetic()))
        if saved is None:
            if self.spec.fork is None:  # a fork's parent has paid for that
                self.seconds = time.perf_counter() - began
            self.store.rewind(self.job.id, -1)  # frames of an earlier try that never reached a checkpoint
        else:
            self._restore(saved)
            self.store.rewind(self.job.id, self.step)
        if saved is None and whole is not None:
            self._restore(whole)
        film = saved["film"] if saved else forking.first_film(self.spec, self.data)
        self.film = Film(self.store, self.job.id, film)
        self.live = Live(self.job, self.spec, self.data, self.accel, saved and saved["live"])
        synthetic = self.distiller.synthetic()
        beside.write_means(self.film, synthetic, self.data)
        self.film.layout(synthetic, self.accel.describe())
        self._shoot(synthetic)
        self._save()
        if saved is None:
            self.live.begin(synthetic, self.step, self.seconds)
        message = "Distilling." if saved is None else f"Resumed at step {self.step:,}."
        self.job.say(message, self.step, machine=self.accel.describe(), resumed=saved is not None)

    def loop(self) -> None:
        """Steps until the budget is used up, someone stops it, or it diverges."""
        began, first = time.perf_counter(), self.seconds
        self._mark = (self.step, self.seconds)
        while not self._budget_used() and not self.job.stopping(self._save_if_good, self.step):
            step_began = time.perf_counter()
            try:
                self.distiller.progress = self._progress()
                with watched() as seen:
                    report = self.distiller.step()
                self.seen += sum(map(len, seen))
                if report.loss is not None and not math.isfinite(report.loss):
                    raise Diverged("the loss is not a finite number")
                taken = time.perf_counter() - step_began
                self.step, self.seconds = self.before + report.step, self.seconds + taken
                self._losses += [] if report.loss is None else [report.loss]
                self._extras = report.extras
                self._note(report.note)
                self._show((time.perf_counter() - began) / max(self.seconds - first, 1e-9))
            except Diverged as error:
                self._go_back(error)
                return
            self.live.work(self.distiller.synthetic, self.step, self.seconds, taken)

    def finish(self) -> SyntheticSet:
        """The last frame and the result on disk."""
        try:
            self._images()
            self.kept = self.distiller.conclude()
            synthetic = self._images()
            self._save()
        except Diverged as error:  # found only now
            self._go_back(error)
            synthetic = self._images()
        if self._losses:  # the curves reach the run's last step
            self._metric(1.0)
        if self.kept:
            self.job.log(self.kept)
            self.film.drop(self.step)
        self._shoot(synthetic)
        made = {
            "spec": self.spec.model_dump(mode="json"),
            "steps": self.step,
            "seconds": round(self.seconds, 3),
            "machine": self.accel.describe(),
        }
        result = dataclasses.replace(synthetic, provenance={**synthetic.provenance, **made})
        beside.write_nearest(self.film, result, self.data)
        write_result(self.store, self.job.id, result)
        self.store.update(self.job.id, step=self.step, seconds=self.seconds, progress=self._progress())
        return result

    def advice(self) -> dict[str, Any]:
        """The halved learning rate that a page or the command line can offer."""
        return {"halved": {"lr_img": self._halved()}}

    # ---- inside ----

    def _show(self, wall_per_second: float) -> None:
        """A metric event, a frame, a checkpoint: each when it is due."""
        now = time.perf_counter()
        if self._losses and now >= self._next_metric:
            self._metric(wall_per_second)
            self._next_metric = now + max(METRIC_EVERY, self.seconds / 3000)
        if now >= self._next_frame:
            self._shoot(self._images())
            cost = time.perf_counter() - now
            self._next_frame = now + min(max(FRAME_EVERY, 8 * cost), 0.9)
        if now >= self._next_checkpoint:
            self._save()

    def _shoot(self, synthetic: SyntheticSet) -> None:
        """A frame, with what is known of the moment."""
        gradient = self.distiller.images.grad
        pull = None if gradient is None else gradient.detach().flatten(1).square().sum(1)
        self.film.shoot(synthetic, self.step, self.seconds, self.seen, pull)

    def _note(self, note: str) -> None:
        """A method's note is the run's message for as long as it has one."""
        if note:
            self.job.tell(note, seconds=self.seconds, progress=self._progress())
        elif self._noted:
            self.job.say("Distilling.", self.step)
        self._noted = bool(note)

    def _metric(self, wall_per_second: float) -> None:
        steps, seconds = self.step - self._mark[0], self.seconds - self._mark[1]
        rate = steps / seconds if seconds > 0 else 0.0
        left = self._seconds_left(rate)
        values = {
            **self._extras,
            "loss": sum(self._losses) / len(self._losses),  # mean since the last event
            "seconds": round(self.seconds, 3),
            "rate": rate,
            "eta": None if left is None else left * wall_per_second,
            "images_seen": self.seen,
        }
        columns = {"step": self.step, "seconds": self.seconds, "progress": self._progress()}
        self.store.append(self.job.id, [("metric", self.step, values)], **columns)
        self._losses, self._mark = [], (self.step, self.seconds)

    def _images(self) -> SyntheticSet:
        """The images now; ``Diverged`` when they are no longer finite, or have exploded."""
        try:
            synthetic = self.distiller.synthetic()
        except Refused as error:
            raise Diverged(str(error)) from None
        if _rms(synthetic) > EXPLODED * self.scale:
            raise Diverged(f"The images have grown more than {EXPLODED:g}-fold.")
        return synthetic

    def _save(self) -> None:
        """A checkpoint; ``Diverged`` when the images are not worth one."""
        self._images()
        state = {
            "seconds": self.seconds,
            "images_seen": self.seen,
            "film": self.film.state(),
            "live": self.live.state(),
            "distiller": self.distiller.state_dict(),
            "generator": torch.get_rng_state(),
        }
        began = time.perf_counter()
        checkpoint.save(self.job.folder / "checkpoint", self.step, state)
        now = time.perf_counter()
        self._next_checkpoint = now + max(min(CHECKPOINT_EVERY, 3 + self.seconds), 20 * (now - began))
        self.store.update(self.job.id, step=self.step, seconds=self.seconds, progress=self._progress())

    def _save_if_good(self) -> None:
        with contextlib.suppress(Diverged):  # the checkpoint before stays
            self._save()

    def _set_up(self) -> dict[str, Any] | None:
        """The distiller as the spec has it; the state that a fork goes on from where there is a whole one."""
        torch.manual_seed(self.spec.seed)  # methods have generators of their own; a library might not
        self.distiller.setup(self.spec, self.data, self.accel)
        return forking.begin(self.job.folder / START, self.spec, self.data, self.distiller)

    def _groups(self) -> list[dict[str, Any]]:
        """What the distiller's optimiser moves, with the rates; nothing where it has none of torch's."""
        return getattr(getattr(self.distiller, "optimiser", None), "param_groups", [])

    def _restore(self, saved: dict[str, Any]) -> None:
        rates = [group["lr"] for group in self._groups()]
        self.distiller.load_state_dict(saved["distiller"])
        for group, rate in zip(self._groups(), rates, strict=True):  # the state's may be those of a fork's parent
            group["lr"] = rate
        torch.set_rng_state(saved["generator"])
        self.step, self.seconds = saved["step"], saved["seconds"]
        self.seen = saved.get("images_seen", 0)

    def _go_back(self, error: Diverged) -> None:
        """Return to the last checkpoint's images and put into a sentence what happened."""
        last = self.step + 1
        self.job.log(f"diverged at step {last}: {error}")
        saved = checkpoint.load(self.job.folder / "checkpoint")
        if saved is None:
            raise RuntimeError("no checkpoint to go back to")
        self._set_up()
        self._restore(saved)
        self.store.rewind(self.job.id, self.step)
        self._losses = []
        self.film = Film(self.store, self.job.id, saved["film"])
        self.film.layout(self.distiller.synthetic(), self.accel.describe())
        self.diverged = (
            f"The images diverged near step {last:,}, so the run went back to step {self.step:,}, its last good state. "
            f"A learning rate of {self._halved():g}, half of this one, may hold."
        )

    def _halved(self) -> float:
        row = next(r for r in parameters(METHODS[self.spec.method].parameters) if r.name == "lr_img")
        return max(getattr(self.spec.parameters, row.name) / 2, row.low or 0.0)

    def _budget_used(self) -> bool:
        spec = self.spec
        return (spec.steps is not None and self.step >= spec.steps) or (
            spec.minutes is not None and self.seconds >= spec.minutes * 60
        )

    def _progress(self) -> float:
        by_steps = self.step / self.spec.steps if self.spec.steps else 0.0
        by_time = self.seconds / (self.spec.minutes * 60) if self.spec.minutes else 0.0
        return min(1.0, max(by_steps, by_time))

    def _seconds_left(self, rate: float) -> float | None:
        """Distilling seconds left, or None while there is nothing to tell it from."""
        left = []
        if self.spec.minutes is not None:
            left.append(self.spec.minutes * 60 - self.seconds)
        if self.spec.steps is not None and rate > 0:
            left.append((self.spec.steps - self.step) / rate)
        return max(0.0, min(left)) if left else None


def _rms(synthetic: SyntheticSet) -> float:
    return float(synthetic.images.square().mean().sqrt())
