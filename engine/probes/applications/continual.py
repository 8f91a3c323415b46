"""Probe ``continual``: what a small memory keeps of classes that are not seen again.

Classes arrive a few at a time. Of each group only a memory of IPC images per class stays: distilled from that group's
real images alone, herded among them, or drawn at random. After every group a network is trained from scratch on
everything in memory (Prabhu, Torr & Dokania 2020; with distilled memories Zhao & Bilen 2023, "Dataset
condensation with distribution matching") and tested on all classes seen so far. Forgetting is, averaged over the groups
but the last, the highest accuracy that a group ever had less the one it has in the end (Chaudhry et al. 2018,
"Riemannian walk for incremental learning").
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from engine.baselines.herding import herd
from engine.data import load
from engine.data.base import Dataset
from engine.errors import Refused
from engine.probes.answerer import Work
from engine.probes.applications.common import (
    Row,
    contrast,
    distilled,
    enough,
    finish,
    percent,
    picture,
    points,
    real_set,
    said,
    summarise,
)
from engine.probes.applications.specs import ContinualSpec
from engine.probes.desk import Answer
from engine.probes.robustness.common import t_interval
from engine.students.fit import fit, train_one
from engine.students.train import make_plan
from engine.synthetic import SyntheticSet

WAYS = {"distilled": "Distilled", "herding": "Herding", "random": "Random real"}
HERDING, HERDING_WIDTH = 40, 16  # steps and width of the network whose features are herded
HERDED = 500  # images of a class, at most, that are herded among
KINDS = {"distilled": "distilled", "herding": "selected", "random": "random"}


def answer(spec: ContinualSpec, work: Work) -> Answer:
    """See ``ContinualSpec``. Tables ``course`` (accuracy on the classes seen after each group, mean over repeats),
    ``groups`` (of each group after each), ``rows`` (final accuracy and forgetting of each repeat), their ``summary``,
    and ``contrasts``, paired by repeat."""
    work.tell(0.0, f"Loading {spec.dataset}.")
    data = load(spec.dataset)
    count = len(data.classes)
    if spec.per_step >= count:
        raise Refused(f"{data.title} has {count} classes; let fewer than {count} arrive at a time.")
    enough(data, spec.ipc)
    groups: list[Row] = []
    seen_so_far: list[Row] = []
    images: dict[str, str] = {}
    whole = spec.repeats * len(WAYS)
    for repeat in range(spec.repeats):
        order = torch.randperm(count, generator=torch.Generator().manual_seed(1000 * spec.seed + repeat)).tolist()
        arriving = [order[i : i + spec.per_step] for i in range(0, count, spec.per_step)]
        for number, way in enumerate(WAYS):

            def tell(fraction: float, done: int = repeat * len(WAYS) + number, way: str = way, repeat: int = repeat
            ) -> None:  # fmt: skip
                sentence = f"Repeat {repeat + 1} of {spec.repeats}, memory of {WAYS[way].lower()} images."
                work.tell((done + fraction) / whole, sentence)

            kept: list[SyntheticSet] = []
            for step, arrived in enumerate(arriving):
                seed = 100_000 * spec.seed + 100 * repeat + step

                def share(fraction: float, step: int = step, of: int = len(arriving), tell: Any = tell) -> None:
                    tell((step + fraction) / of)

                kept.append(_memory(way, part_of(data, arrived), spec, seed, work, lambda f: share(0.5 * f)))
                seen = [c for group in arriving[: step + 1] for c in group]
                memory = together(kept, data, seen)
                right = _tested(memory, part_of(data, seen), spec, seed, work, lambda f: share(0.5 + 0.5 * f))
                where = {"repeat": repeat, "way": way, "step": step + 1, "classes": len(seen)}
                seen_so_far.append({**where, "accuracy": float(torch.stack([r.mean() for r in right]).mean())})
                for group in range(step + 1):
                    part = right[group * spec.per_step : (group + 1) * spec.per_step]
                    groups.append({**where, "group": group + 1, "accuracy": float(torch.cat(part).mean())})
            if repeat == 0:
                images[way] = picture(work, way, memory)
                shown = list(memory.classes)
    last = max(row["step"] for row in seen_so_far)
    rows = [
        {
            "repeat": row["repeat"],
            "way": row["way"],
            "accuracy": row["accuracy"],
            "forgetting": forgetting(
                [g for g in groups if (g["repeat"], g["way"]) == (row["repeat"], row["way"])]
            ),
        }
        for row in seen_so_far
        if row["step"] == last
    ]  # fmt: skip
    summary = summarise(rows, ("accuracy", "forgetting"), signed=("forgetting",))
    contrasts = [
        contrast(rows, measure, "distilled", other)
        for measure in ("accuracy", "forgetting")
        for other in ("random", "herding")
    ]
    facts = {
        "ways": WAYS,
        "kinds": KINDS,
        "steps": last,
        "held": spec.ipc * count,
        "shown": shown,
        "headline": _headline(summary, contrasts),
        "chance": 1 / count,
    }
    notes = ["All memories hold as many images; networks are trained from scratch on nothing but the memory."]
    if spec.repeats < 2:
        notes.append("A single repeat says nothing about chance: there are no intervals. Choose 3 or more.")
    tables = {
        "summary": summary, "contrasts": contrasts, "course": _course(seen_so_far), "rows": rows, "groups": groups,
    }  # fmt: skip
    return Answer(tables, facts, images, tuple(notes))


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


def _memory(
    way: str, part: Dataset, spec: ContinualSpec, seed: int, work: Work, tell: Callable[[float], None]
) -> SyntheticSet:
    """IPC images for each class of a group, made of that group's images alone."""
    if way == "random":
        return real_set(way, part, spec.ipc, seed, work)
    if way == "herding":
        return herded(part, spec.ipc, seed, work, tell)
    return distilled(part, spec.ipc, spec.steps, seed, work, tell, width=spec.width)


def herded(part: Dataset, ipc: int, seed: int, work: Work, tell: Callable[[float], None]) -> SyntheticSet:
    """Images of each class whose features have the mean nearest to the class's (Welling 2009), those of a small network
    that was trained for a moment on the group itself."""
    own = part.distil_indices
    network = fit(
        part.train_images[own], part.train_labels[own], part, "convnet", seed=seed, steps=HERDING, width=HERDING_WIDTH,
        accel=work.accel, tell=tell,
    )  # fmt: skip
    generator, chosen = torch.Generator().manual_seed(seed), []
    for members in part.by_class:
        some = members[torch.randperm(len(members), generator=generator)[:HERDED]]
        with torch.no_grad():
            parts = part.normalise(part.train_images[some]).split(250)
            points = torch.cat([network.features(x.to(work.accel.device)).float().cpu() for x in parts])
        chosen.append(some[herd(points, ipc)])
    picked = torch.cat(chosen)
    images, labels = part.normalise(part.train_images[picked]), part.train_labels[picked]
    return SyntheticSet(images, labels, part.name, part.classes, part.mean, part.std, "selected")


def together(kept: list[SyntheticSet], data: Dataset, seen: list[int]) -> SyntheticSet:
    """All memories as one set of the classes seen, in the order of their arrival."""
    offset, labels = 0, []
    for memory in kept:
        labels.append(memory.hard_labels + offset)
        offset += len(memory.classes)
    classes = tuple(data.classes[c] for c in seen)
    images = torch.cat([memory.images for memory in kept])
    return replace(kept[0], images=images, labels=torch.cat(labels), classes=classes)


def _tested(
    memory: SyntheticSet, part: Dataset, spec: ContinualSpec, seed: int, work: Work, tell: Callable[[float], None]
) -> list[Tensor]:
    """For each class seen, whether each of its test images is recognised (0 or 1), by a network trained on memory."""
    module = finish(train_one(make_plan(memory, part, spec.protocol, None, work.accel), seed), tell)
    found = []
    for c in range(len(part.classes)):
        own = part.test_images[part.test_labels == c]
        order = torch.randperm(len(own), generator=torch.Generator().manual_seed(spec.seed))[: spec.tested]
        found.append((said(module, memory.prepare, own[order]) == c).double())
    return found


def forgetting(groups: list[Row]) -> float:
    """Of the rows (step, group, accuracy) of one course: how much of the best is lost in the end, over the groups but
    the last; 0 where there is only one."""
    last = max(row["step"] for row in groups)
    lost = []
    for group in range(1, last):
        over_time = {row["step"]: row["accuracy"] for row in groups if row["group"] == group}
        lost.append(max(v for step, v in over_time.items() if step < last) - over_time[last])
    return sum(lost) / len(lost) if lost else 0.0


def _course(rows: list[Row]) -> list[dict[str, Any]]:
    """Accuracy after each group, over repeats."""
    out = []
    for way in WAYS:
        for step in sorted({row["step"] for row in rows}):
            mine = [row for row in rows if (row["way"], row["step"]) == (way, step)]
            mean, low, high = t_interval([row["accuracy"] for row in mine])
            out.append({
                "way": way, "step": step, "classes": mine[0]["classes"], "accuracy": mean,
                "low": None if low is None else max(0.0, low), "high": None if high is None else min(1.0, high),
                "repeats": len(mine),
            })  # fmt: skip
    return out


def _headline(summary: list[Row], contrasts: list[Row]) -> str:
    found = {(row["way"], row["measure"]): row for row in summary}
    more = {row["contrast"]: row for row in contrasts if row["measure"] == "accuracy"}
    return (
        f"After the last group a network trained on the distilled memory knows all classes with "
        f"{percent(found['distilled', 'accuracy'])}: {points(more['distilled - random'])} against random and "
        f"{points(more['distilled - herding'])} against herded images."
    )
