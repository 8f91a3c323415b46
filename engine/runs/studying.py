"""Students as runs: one network trained on a set or on all images, tested once, and kept."""

from __future__ import annotations

import dataclasses
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from engine import baselines
from engine.accel import Accel, pick_accel
from engine.data.base import Dataset
from engine.errors import Refused
from engine.networks import Network, parameter_count
from engine.runs.evaluating import check_fit, saved_set
from engine.runs.film import encode
from engine.runs.job import Heart, Job, Lost, Stopped, read_data
from engine.runs.store import FINISHED, Run, Store
from engine.runs.validate import check_student
from engine.spec import BASELINES, StudentSpec, build_spec
from engine.students.adversary import Adversary
from engine.students.fit import shortened, train_one
from engine.students.kept import Student, load_student, save_student
from engine.students.train import Plan, make_plan, make_real_plan, place
from engine.synthetic import ZCA, SyntheticSet

MISTAKES = 50  # of the most confident ones are kept
SMALL = 1000  # images; larger sets are trained on as full data is, unless another protocol is asked for

Hear = Callable[[float, str], None]


@dataclass(frozen=True)
class Lesson:
    """What a student is trained on: the plan, the protocol's name, the facts about the source, and the space."""

    plan: Plan
    protocol: str
    source: dict[str, Any]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    zca: ZCA | None = None


def study(job: Job, hear: Hear | None = None) -> None:
    """Train one network with exactly the spec's seed, test it once on all test images, and keep it with the run.

    Nothing is kept before the end: a run that was interrupted and is resumed starts over. ``hear`` is told the
    fraction and a sentence, and may raise.
    """
    spec = StudentSpec.model_validate(job.run.spec)
    check_student(spec)
    accel = pick_accel(spec.device)

    def tell(fraction: float, what: str = "Preparing the training images") -> None:
        if job.stopping():
            raise Stopped
        job.tell(f"{what.rstrip('.')}, {fraction:.0%}", progress=fraction)
        if hear:
            hear(fraction, what)

    tell(0.0, "Reading the dataset")
    data, lesson = _lesson(job, spec, accel, tell)
    job.store.update(job.id, dataset=data.name, progress=0.0)
    what = f"Training on {lesson.plan.images.shape[0]:,} images under the {lesson.protocol} protocol"
    job.say(what + ".")
    began = time.perf_counter()
    slices = train_one(lesson.plan, spec.seed)
    while True:
        try:
            fraction = next(slices)
        except StopIteration as end:
            module: Network = end.value
            break
        tell(0.97 * fraction, what)
    seconds = time.perf_counter() - began
    if not all(bool(torch.isfinite(t).all()) for t in module.state_dict().values()):
        raise Refused("The training diverged: the weights are no finite numbers any more. Try another protocol.")
    job.say("Testing.")
    facts: dict[str, Any] = {
        "name": job.run.title,
        "source": lesson.source,
        "network": spec.network,
        "protocol": lesson.protocol,
        "seed": spec.seed,
        "dataset": data.name,
        "size": data.size,
        "channels": data.channels,
        "classes": list(data.classes),
        "mean": list(lesson.mean),
        "std": list(lesson.std),
        "seconds": round(seconds, 3),
        "machine": accel.describe(),
        "spec": spec.model_dump(mode="json"),
        "parameters": parameter_count(module),
    }
    student = Student(job.id, module, facts, lesson.zca)
    facts |= examine(student, data, lambda fraction: tell(0.97 + 0.03 * fraction, "Testing"))
    keep_mistakes(job.folder / "student", data, facts["mistakes"])
    build = {**lesson.plan.build(), "seed": spec.seed}
    save_student(job.folder / "student", module, facts, build, lesson.zca)
    job.store.update(job.id, seconds=seconds, progress=1.0)
    right = round(facts["accuracy"] * facts["test_images"])
    job.store.announce(
        job.id, "done", f"{facts['accuracy']:.1%} of the test images right ({right:,} of {facts['test_images']:,})."
    )


def examine(student: Student, data: Dataset, tell: Callable[[float], None] | None = None) -> dict[str, Any]:
    """What the test images say about a student.

    ``accuracy`` and ``per_class`` are fractions (None for a class without test images), ``confusion`` counts (rows:
    true class, columns: predicted), ``mistakes`` the wrong answers with the largest softmax probability, at most
    ``MISTAKES``, each with the index of the test image.
    """
    count = len(data.test_images)
    found: list[Tensor] = []
    device = next(student.module.parameters()).device
    with torch.no_grad():
        for part in data.test_images.split(250):
            images = place(student.prepare(part), Accel(device))
            found.append(student.module(images).float().cpu())
            if tell:
                tell(len(found) * 250 / max(count, 250))
    return judged(torch.cat(found), data.test_labels)


def judged(logits: Tensor, labels: Tensor) -> dict[str, Any]:
    """Accuracy, confusion and mistakes of logits (N, K) for labels (N,); see ``examine``."""
    classes = logits.shape[1]
    confidence, predicted = logits.softmax(1).max(1)
    confusion = torch.bincount(labels * classes + predicted, minlength=classes**2).view(classes, classes)
    per_class = confusion.diagonal().double() / confusion.sum(1)
    wrong = torch.nonzero(predicted != labels).flatten()
    wrong = wrong[confidence[wrong].argsort(descending=True, stable=True)][:MISTAKES]
    return {
        "accuracy": float((predicted == labels).double().mean()),
        "per_class": [None if x != x else x for x in per_class.tolist()],
        "confusion": confusion.tolist(),
        "mistakes": [
            {"index": i, "true": int(labels[i]), "predicted": int(predicted[i]), "confidence": float(confidence[i])}
            for i in wrong.tolist()
        ],
        "test_images": len(labels),
    }


def keep_mistakes(folder: Path, data: Dataset, mistakes: list[dict[str, Any]]) -> None:
    """Write the test images of ``mistakes``, side by side and in their order, as ``folder``/mistakes.webp: pages show
    them without reading the dataset."""
    if mistakes:
        row = torch.cat(tuple(data.test_images[[m["index"] for m in mistakes]]), dim=2)  # (C, H, W · mistakes)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "mistakes.webp").write_bytes(encode(row.permute(1, 2, 0).numpy()))


# ---- the training set -----------------------------------------------------------------------------------------------


def _lesson(job: Job, spec: StudentSpec, accel: Accel, tell: Hear) -> tuple[Dataset, Lesson]:
    """The dataset to be tested on, and what is trained on."""
    if spec.source == "full" or spec.source in BASELINES:
        data = read_data(job, spec.dataset or "", spec.size)
        styled = data
        if spec.style != "original":
            from engine.data.stylise import stylised

            lender = None
            if spec.style == "adain":
                lender = teacher(job.store, data.name, data.size, accel, tell)
            job.say("Stylising the training images.")
            images = stylised(
                data, spec.style, spec.seed, accel, lambda f: tell(f, "Stylising the training images"), lender
            )
            styled = dataclasses.replace(data, train_images=images)
        if spec.source == "full":
            return data, _all_images(spec, data, styled, accel)
        job.say("Selecting images.")
        synthetic = baselines.make_baseline(
            spec.source, styled, spec.ipc, seed=spec.seed, accel=accel, progress=lambda f: tell(f, "Selecting images")
        )
        run = None
    else:
        run = job.store.run(spec.source)
        synthetic = saved_set(job, spec.source, spec.dataset, spec.size)
        data = read_data(job, spec.dataset or synthetic.dataset, synthetic.images.shape[-1])
        check_fit(synthetic, data)
    auto = "full" if len(synthetic.images) > SMALL else synthetic.protocol
    protocol = auto if spec.protocol == "auto" else spec.protocol
    plan = make_plan(synthetic, data, protocol, spec.network, accel)
    space = (synthetic.mean, synthetic.std, synthetic.zca)
    return data, Lesson(_as_asked(plan, spec, *space), protocol, _source_of(synthetic, spec, run), *space)


def _all_images(spec: StudentSpec, data: Dataset, styled: Dataset, accel: Accel) -> Lesson:
    """All training images of ``styled``, or ``limit`` of them drawn at random; tested on ``data``."""
    images, labels, total = styled.train_images, styled.train_labels, len(styled.train_labels)
    drawn = spec.limit is not None and spec.limit < total
    if drawn:
        chosen = torch.randperm(total, generator=torch.Generator().manual_seed(spec.seed))[: spec.limit]
        images, labels = images[chosen], labels[chosen]
    protocol = "full" if spec.protocol == "auto" else spec.protocol
    plan = make_real_plan(images, labels, data, protocol, spec.network, accel)
    text = f"{len(images):,} random training images" if drawn else f"all {total:,} training images"
    source = {
        "kind": "random" if drawn else "full",
        "text": f"{text} of {data.title}{_styled(spec)}",
        "run": None,
        "images": len(images),
        "ipc": None,
        "method": None,
    }
    return Lesson(_as_asked(plan, spec, data.mean, data.std), protocol, source, data.mean, data.std)


def _as_asked(
    plan: Plan, spec: StudentSpec, mean: tuple[float, ...], std: tuple[float, ...], zca: ZCA | None = None
) -> Plan:
    """``plan`` with the network's size, the epochs and the adversary of ``spec``."""
    options: dict[str, Any] = {"depth": spec.depth} if spec.network in ("convnet", "edge-popup") else {}
    if spec.network == "edge-popup":
        options |= {"keep": spec.keep, "weights": spec.weights}
    adversary = Adversary(spec.epsilon, spec.attack_steps, mean, std, zca) if spec.epsilon else None
    plan = dataclasses.replace(plan, options=tuple(options.items()), adversary=adversary)
    return shortened(plan, spec.epochs, spec.width)


def _source_of(synthetic: SyntheticSet, spec: StudentSpec, run: Run | None) -> dict[str, Any]:
    """The facts about a set: what it is, in figures and in a sentence."""
    count = len(synthetic.images)
    sizes = synthetic.hard_labels.bincount(minlength=len(synthetic.classes))
    ipc = int(sizes[0]) if bool((sizes == sizes[0]).all()) else None
    provenance = synthetic.provenance
    about = provenance.get("spec")
    made: dict[str, Any] = about if isinstance(about, dict) else {}
    method = provenance.get("baseline") or made.get("method") or (run.spec.get("method") if run else None)
    noun = {"distilled": "distilled images", "random": "random real images", "imported": "imported images"}.get(
        synthetic.kind, f"{synthetic.kind} images"
    )
    way = f" ({method})" if method and method != synthetic.kind else ""
    soft = (", softly labelled" if "softened" in provenance else "") + (", edited" if "edited" in provenance else "")
    grids = f", each a grid of {synthetic.factor} × {synthetic.factor} pictures" if synthetic.factor > 1 else ""
    return {
        "kind": synthetic.kind,
        "text": f"{count:,} {noun}{way}" + (f", {ipc} per class" if ipc else "") + grids + soft + _styled(spec),
        "run": run.id if run else None,
        "images": count,
        "ipc": ipc,
        "method": method,
    }


def _styled(spec: StudentSpec) -> str:
    return "" if spec.style == "original" else f", stylised ({spec.style})"


# ---- teachers -------------------------------------------------------------------------------------------------------


def teacher(store: Store, dataset: str, size: int, accel: Accel, tell: Hear, **network: Any) -> Student:
    """The ConvNet trained on all images of ``dataset`` (``size``: of a folder's images), from seed 0.

    ``network``: further fields of its spec, such as another ``network`` or ``width``.

    The first finished student run of that spec; where there is none, one is trained here and kept as such a run (one
    that is being trained elsewhere is waited for). ``tell`` hears fraction and sentence and may raise to give up.
    Raises ``Refused`` when the dataset is not there, or somebody stops the training.
    """
    spec = build_spec("student", source="full", dataset=dataset, size=size, device=accel.device.type, **network)
    while True:
        store.sweep()
        alike = _alike(store, spec)
        if (done := _first_done(store, alike)) is not None:
            return load_student(store, done, accel)
        busy = next((run for run in alike if run.status == "running"), None)
        if busy is None:
            break
        tell(busy.progress, "Waiting for the teacher network, which is being trained")
        time.sleep(0.3)
    waiting = next((run for run in alike if run.status in ("queued", "interrupted")), None)
    if waiting is None:
        id = store.submit("student", spec, pid=os.getpid())
    else:
        id = waiting.id
        store.adopt(id, os.getpid())
    job = Job(store, _run(store, id), shares=False)
    try:
        with Heart(store, id):
            study(job, lambda fraction, what: tell(fraction, f"Teacher network: {what[:1].lower()}{what[1:]}"))
    except Stopped:
        store.announce(id, "stopped", "Stopped before it was trained.")
        raise Refused("The training of the teacher network was stopped; ask again to train it.") from None
    except Refused as refusal:
        store.announce(id, "failed", str(refusal))
        raise
    except Lost:
        raise Refused("Another process has taken over the training of the teacher network; ask again.") from None
    except BaseException:
        if _run(store, id).status not in FINISHED:
            store.announce(id, "interrupted", "The training was given up. Resume starts it over.")
        raise
    return load_student(store, id, accel)


def finished_full(store: Store, dataset: str, size: int, accel: Accel) -> Student | None:
    """The teacher of ``dataset`` (see ``teacher``) where it is trained already, else None."""
    spec = build_spec("student", source="full", dataset=dataset, size=size, device=accel.device.type)
    done = _first_done(store, _alike(store, spec))
    return None if done is None else load_student(store, done, accel)


def _alike(store: Store, spec: StudentSpec) -> list[Run]:
    """The runs that train or trained the student that ``spec`` describes, newest first."""
    return [run for run in store.runs(kinds=["student"], limit=100_000) if _same(run.spec, spec)]


def _first_done(store: Store, runs: list[Run]) -> str | None:
    """The id of the oldest of ``runs`` (newest first) whose student is there."""
    return next((run.id for run in reversed(runs) if run.status == "done" and store.student(run.id)), None)


def _same(values: dict[str, Any], spec: StudentSpec) -> bool:
    """Whether a run's spec trains the same student: names and devices aside."""
    aside = ("name", "device")
    wanted = spec.model_dump(mode="json")
    return all(values.get(key) == value for key, value in wanted.items() if key not in aside)


def _run(store: Store, id: str) -> Run:
    run = store.run(id)
    assert run is not None, id
    return run
