"""Probe ``continual``: what a small memory keeps of classes that are not seen again.

Classes arrive a few at a time. Of each group only a memory of IPC images per class stays: distilled from that group's
real images alone, herded among them, or drawn at random. After every group a network is trained from scratch on
everything in memory (GDumb, Prabhu, Torr & Dokania 2020; with distilled memories Zhao & Bilen 2023, "Dataset
condensation with distribution matching", section 4.4) and tested on all classes seen so far. Forgetting is, averaged
over the groups but the last, the highest accuracy that a group ever had less the one it has in the end (Chaudhry et
al. 2018, equation 3).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from engine.baselines import make_baseline
from engine.data import load
from engine.data.base import Dataset
from engine.distill import make_distiller
from engine.errors import Refused
from engine.probes.answerer import Work
from engine.probes.applications.specs import ContinualSpec
from engine.probes.desk import Answer
from engine.probes.robustness.common import mean_interval, sheet
from engine.spec import build_spec
from engine.students.train import train_student
from engine.synthetic import SyntheticSet

MEMORIES = {"distilled": "Distilled", "herding": "Herding", "random": "Random"}


def answer(spec: ContinualSpec, work: Work) -> Answer:
    """See ``ContinualSpec``. Tables ``course`` (accuracy after each group), ``groups`` (of each group after each), and
    ``summary`` (final accuracy and forgetting, with 95 % intervals over repeats)."""
    work.tell(0.0, f"Loading {spec.dataset}.")
    data = load(spec.dataset)
    count = len(data.classes)
    if spec.per_step >= count:
        raise Refused(f"{data.title} has {count} classes; let fewer than {count} arrive at a time.")
    least = min(len(members) for members in data.by_class)
    if spec.ipc > least:
        raise Refused(f"The smallest class of {data.title} has {least} images; choose at most as many per class.")
    course: list[dict[str, Any]] = []
    groups: list[dict[str, Any]] = []
    images: dict[str, str] = {}
    done, whole = 0, spec.repeats * len(MEMORIES)
    for repeat in range(spec.repeats):
        order = torch.randperm(count, generator=torch.Generator().manual_seed(1000 * spec.seed + repeat)).tolist()
        arriving = [order[i : i + spec.per_step] for i in range(0, count, spec.per_step)]
        for kind in MEMORIES:

            def tell(fraction: float, said: str, kind: str = kind, repeat: int = repeat, done: int = done) -> None:
                work.tell((done + fraction) / whole, f"Repeat {repeat + 1}, {MEMORIES[kind].lower()}: {said}")

            kept: list[SyntheticSet] = []
            for step, arrived in enumerate(arriving):
                share = (step + 0.5) / len(arriving)
                tell(step / len(arriving), f"classes {', '.join(data.classes[c] for c in arrived)} arrive.")
                seed = 1000 * spec.seed + 100 * repeat + step
                kept.append(_memory(kind, part_of(data, arrived), spec, seed, work, lambda s=share: tell(s, "")))
                seen = [c for group in arriving[: step + 1] for c in group]
                right = _tested(_together(kept, data, seen), part_of(data, seen), spec, seed, work, tell, share)
                where = {"repeat": repeat, "memory": kind, "step": step + 1, "classes": len(seen)}
                course.append({**where, "accuracy": float(torch.cat(right).mean())})
                for group in range(step + 1):
                    part = right[group * spec.per_step : (group + 1) * spec.per_step]
                    groups.append({**where, "group": group + 1, "accuracy": float(torch.cat(part).mean())})
            if repeat == 0:
                images[kind] = work.picture(kind, sheet([s.to_display()[i :: spec.ipc] for s in [
                    _together(kept, data, [c for group in arriving for c in group])] for i in range(min(spec.ipc, 5))
                ]), 2)  # fmt: skip
            done += 1
    summary = list(_summary(course, groups))
    facts = {
        "memories": MEMORIES,
        "steps": len(arriving),
        "held": spec.ipc * count,
        "headline": _headline(summary),
        "order": [data.classes[c] for c in torch.randperm(
            count, generator=torch.Generator().manual_seed(1000 * spec.seed)).tolist()],
    }  # fmt: skip
    notes = () if spec.repeats > 1 else ("A single repeat says nothing about chance; choose 3 or more.",)
    return Answer({"summary": summary, "course": course, "groups": groups}, facts, images, notes)


def part_of(data: Dataset, classes: list[int]) -> Dataset:
    """Some classes of a dataset, numbered in the order given, on the scale of the whole."""
    number = torch.full((len(data.classes),), -1)
    number[torch.tensor(classes)] = torch.arange(len(classes))

    def chosen(images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        here = number[labels] >= 0
        return images[here], number[labels[here]]

    train, test = chosen(data.train_images, data.train_labels), chosen(data.test_images, data.test_labels)
    return Dataset(
        data.name, data.title, tuple(data.classes[c] for c in classes), *train, *test, data.mean, data.std
    )  # fmt: skip


def _memory(kind: str, part: Dataset, spec: ContinualSpec, seed: int, work: Work, tell: Any) -> SyntheticSet:
    """IPC images for each class of a group, made of that group's images alone."""
    if kind != "distilled":
        return make_baseline(kind, part, spec.ipc, seed=seed, accel=work.accel)
    run = build_spec(
        "distill", dataset=part.name, method="dm", ipc=spec.ipc, steps=spec.steps, seed=seed, width=spec.width
    )
    distiller = make_distiller("dm")
    distiller.setup(run, part, work.accel)
    for step in range(spec.steps):
        distiller.progress = step / spec.steps
        distiller.step()
        tell()
    return distiller.synthetic()


def _together(kept: list[SyntheticSet], data: Dataset, seen: list[int]) -> SyntheticSet:
    """All memories as one set of the classes seen, in the order of their arrival."""
    offset, labels = 0, []
    for memory in kept:
        labels.append(memory.hard_labels + offset)
        offset += len(memory.classes)
    classes = tuple(data.classes[c] for c in seen)
    images = torch.cat([memory.images for memory in kept])
    return replace(kept[0], images=images, labels=torch.cat(labels), classes=classes)


def _tested(
    memory: SyntheticSet, part: Dataset, spec: ContinualSpec, seed: int, work: Work, tell: Any, share: float
) -> list[Tensor]:
    """For each class seen, whether each of its test images is recognised (0 or 1), by a network trained on memory."""
    tell(share, "training on the memory.")
    module = train_student(memory, part, spec.protocol, seed=seed, accel=work.accel)
    device = next(module.parameters()).device
    with torch.no_grad():
        said = [module(memory.prepare(x.to(device))).argmax(1).cpu() for x in part.test_images.split(250)]
    right = (torch.cat(said) == part.test_labels).double()
    return [right[part.test_labels == c] for c in range(len(part.classes))]


def forgetting(groups: list[dict[str, Any]]) -> float:
    """Of the rows (step, group, accuracy) of one course: how much of the best is lost in the end, over the groups but
    the last; 0 where there is only one."""
    last = max(row["step"] for row in groups)
    lost = []
    for group in range(1, last):
        over_time = {row["step"]: row["accuracy"] for row in groups if row["group"] == group}
        lost.append(max(v for step, v in over_time.items() if step < last) - over_time[last])
    return sum(lost) / len(lost) if lost else 0.0


def _summary(course: list[dict[str, Any]], groups: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    repeats, last = sorted({r["repeat"] for r in course}), max(r["step"] for r in course)
    for kind in MEMORIES:
        final = [
            r["accuracy"] for repeat in repeats for r in course
            if (r["repeat"], r["memory"], r["step"]) == (repeat, kind, last)
        ]  # fmt: skip
        lost = [forgetting([r for r in groups if (r["repeat"], r["memory"]) == (repeat, kind)]) for repeat in repeats]
        for measure, values in (("accuracy", final), ("forgetting", lost)):
            mean, low, high = mean_interval(values)
            yield {"memory": kind, "measure": measure, "mean": mean, "low": low, "high": high, "repeats": len(values)}


def _headline(summary: list[dict[str, Any]]) -> str:
    final = {row["memory"]: row["mean"] for row in summary if row["measure"] == "accuracy"}
    told = ", ".join(f"{MEMORIES[kind].lower()} {100 * mean:.1f} %" for kind, mean in final.items())
    return f"Accuracy on all classes in the end: {told}."
