"""Stars and moons: does a distilled set carry a shortcut of its training images over, amplify it, or drop it?

In training a figure's position tells its class as well as its shape does (Geirhos et al. 2020, "Shortcut learning in
deep neural networks", figure 2). Students of three sets, all trained alike, are tested where position agrees with
shape as in training (i.i.d.), where it tells nothing (random) and where it always tells the other class (flipped). On
flipped images every answer goes by shape or by position; *reliance* is the share that goes by position.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

from engine.baselines import make_baseline
from engine.data.base import Dataset
from engine.data.moons import CLASSES, load_moons, make_moons
from engine.distill import make_distiller
from engine.probes.answerer import Work
from engine.probes.desk import Answer
from engine.probes.robustness.common import sheet, t_interval
from engine.probes.robustness.specs import ShortcutSpec
from engine.spec import build_spec
from engine.students.fit import train_one
from engine.students.train import make_plan
from engine.synthetic import SyntheticSet

SETS = {"distilled": "Distilled", "random": "Random real", "full": "All real"}
TESTS = {"iid": "As in training", "random": "Random position", "flipped": "Flipped position"}
TESTED = 500  # images of each class in each test set


def answer(spec: ShortcutSpec, work: Work) -> Answer:
    """Tables ``students`` (one row a student), ``summary`` (a row per training set and measure, with 95 % intervals
    over repeats) and ``contrasts`` (differences of reliance, paired by repeat); pictures of images and sets."""
    tests = _tests(spec)
    rows: list[dict[str, Any]] = []
    first: dict[str, SyntheticSet] = {}
    for repeat in range(spec.sets):

        def tell(fraction: float, sentence: str, repeat: int = repeat) -> None:
            work.tell((repeat + fraction) / spec.sets, f"Repeat {repeat + 1} of {spec.sets}: {sentence}")

        seed = 1000 * spec.seed + repeat
        data = load_moons(spec.images, 1, seed + 1, spec.agreement, spec.layout)
        sets = _make_sets(spec, data, seed, work, tell)
        rows += [{"repeat": repeat, **row} for row in _students(spec, data, sets, tests, seed, work, tell)]
        if not first:
            first, examples = sets, data.train_images[:12]
    summary, contrasts = _summary(rows), _contrasts(rows)
    images = {
        "examples": work.picture("examples", sheet([examples, *(t[0][:12] for t in tests.values())]), 2),
        **{
            kind: work.picture(kind, sheet(_by_class(first[kind])), 4 if spec.ipc <= 10 else 2)
            for kind in ("distilled", "random")
        },
    }
    facts = {
        "headline": _headline(summary, contrasts),
        "verdicts": {row["contrast"]: row["verdict"] for row in contrasts},
        "classes": list(CLASSES),
        "tests": TESTS,
        "sets": SETS,
        "per_class": spec.images,
        "tested": 2 * TESTED,
    }
    return Answer(
        {"summary": summary, "contrasts": contrasts, "students": rows}, facts, images, tuple(_notes(spec, contrasts))
    )


def _tests(spec: ShortcutSpec) -> dict[str, tuple[Tensor, Tensor]]:
    """Test images and labels, the same for all repeats; none of them is among any training images."""
    agreements = {"iid": spec.agreement, "random": 0.5, "flipped": 0.0}
    return {
        name: make_moons(TESTED, 2_000_000_000 + 10 * spec.seed + i, agreement, spec.layout)[:2]
        for i, (name, agreement) in enumerate(agreements.items())
    }


def _make_sets(
    spec: ShortcutSpec, data: Dataset, seed: int, work: Work, tell: Callable[[float, str], None]
) -> dict[str, SyntheticSet]:
    """The three training sets of one repeat."""
    tell(0.0, "preparing to distil.")
    run = build_spec(
        "distill", dataset=data.name, method=spec.method, ipc=spec.ipc, steps=spec.steps, seed=seed, width=spec.width
    )
    distiller = make_distiller(spec.method)
    distiller.setup(run, data, work.accel)
    for step in range(spec.steps):
        distiller.progress = step / spec.steps
        distiller.step()
        tell(0.4 * (step + 1) / spec.steps, "distilling.")
    own = data.distil_indices
    images, labels = data.normalise(data.train_images[own]), data.train_labels[own]
    return {
        "distilled": distiller.synthetic(),
        # Another seed than the distiller's, which starts from random real images too
        "random": make_baseline("random", data, spec.ipc, seed=seed + 500_000),
        "full": SyntheticSet(images, labels, data.name, data.classes, data.mean, data.std, "selected"),
    }


def _students(
    spec: ShortcutSpec,
    data: Dataset,
    sets: dict[str, SyntheticSet],
    tests: dict[str, tuple[Tensor, Tensor]],
    seed: int,
    work: Work,
    tell: Callable[[float, str], None],
) -> Iterator[dict[str, Any]]:
    """A row for every student of one repeat."""
    count, done = len(sets) * spec.students, 0
    for kind, chosen in sets.items():
        plan = make_plan(chosen, data, spec.protocol, spec.network, work.accel)
        for number in range(spec.students):
            slices = train_one(plan, (100 * seed + number) % 2**31)
            while True:
                try:
                    tell(0.4 + 0.6 * (done + next(slices)) / count, f"training on {SETS[kind].lower()} images.")
                except StopIteration as end:
                    module: nn.Module = end.value
                    break
            done += 1
            found = {f"{name}_accuracy": _accuracy(module, chosen, *test) for name, test in tests.items()}
            columns = {"set": kind, "student": number, "images": len(chosen.images)}
            yield {**columns, **found, "reliance": 1 - found["flipped_accuracy"]}


def _accuracy(module: nn.Module, chosen: SyntheticSet, images: Tensor, labels: Tensor) -> float:
    device = next(module.parameters()).device
    with torch.no_grad():
        said = [module(chosen.prepare(part.to(device))).argmax(1).cpu() for part in images.split(250)]
    return float((torch.cat(said) == labels).float().mean())


def _by_class(chosen: SyntheticSet) -> list[Tensor]:
    """At most ten images of each class, a row each."""
    return [chosen.to_display()[chosen.hard_labels == c][:10] for c in range(len(CLASSES))]


def _per_repeat(rows: list[dict[str, Any]], kind: str, measure: str) -> list[float]:
    """A measure of each repeat, averaged over its students: those of one set are not independent."""
    repeats = sorted({row["repeat"] for row in rows})
    found = [[r[measure] for r in rows if r["set"] == kind and r["repeat"] == repeat] for repeat in repeats]
    return [sum(values) / len(values) for values in found]


def _summary(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    out = []
    for kind in SETS:
        for measure in (*(f"{test}_accuracy" for test in TESTS), "reliance"):
            values = _per_repeat(rows, kind, measure)
            mean, low, high = t_interval(values)
            # An interval of a share ends where shares end.
            bounds = {"low": None if low is None else max(0.0, low), "high": None if high is None else min(1.0, high)}
            out.append({"set": kind, "measure": measure, "mean": mean, **bounds, "repeats": len(values)})
    return out


def _contrasts(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    out = []
    own = _per_repeat(rows, "distilled", "reliance")
    for other in ("full", "random"):
        theirs = _per_repeat(rows, other, "reliance")
        mean, low, high = t_interval([a - b for a, b in zip(own, theirs, strict=True)])
        verdict = "unclear"
        if low is not None and high is not None:
            verdict = "more" if low > 0 else "less" if high < 0 else "no significant difference"
        out.append(
            {
                "contrast": f"distilled - {other}",
                "difference": mean,
                "low": low,
                "high": high,
                "repeats": len(own),
                "verdict": verdict,
            }
        )
    return out


def _headline(summary: list[dict[str, Any]], contrasts: list[dict[str, Any]]) -> str:
    """Whether the distilled set carries the shortcut of all images over, amplifies, weakens or drops it."""
    reliance = {row["set"]: row for row in summary if row["measure"] == "reliance"}
    own, whole = reliance["distilled"], reliance["full"]
    verdict = next(row["verdict"] for row in contrasts if row["contrast"] == "distilled - full")
    if verdict == "more":
        sentence = "The distilled set amplifies the shortcut."
    elif verdict == "less":  # below a half, shape wins over position
        sentence = f"The distilled set {'drops' if own['high'] < 0.5 else 'weakens'} the shortcut."
    elif verdict == "unclear":
        sentence = "One repeat cannot tell chance from an effect."
    elif min(own["low"], whole["low"]) > 0.5:
        sentence = "The distilled set carries the shortcut over; no difference to all images is significant."
    else:
        sentence = "At this number of repeats no difference between the distilled set and all images is significant."
    return (
        f"{sentence} Where position and shape disagree, students of the distilled set go by position in "
        f"{100 * own['mean']:.0f} % of their answers, those of all images in {100 * whole['mean']:.0f} %."
    )


def _notes(spec: ShortcutSpec, contrasts: list[dict[str, Any]]) -> Iterator[str]:
    words = {
        "more": "more often than",
        "less": "less often than",
        "no significant difference": "about as often (the difference is not significant) as",
    }
    verdict = next(row["verdict"] for row in contrasts if row["contrast"] == "distilled - random")
    if verdict in words:
        yield (
            f"Students of the distilled set go by position {words[verdict]} those of as many random real images: what "
            "a small set does and what distilling does are two things."
        )
    yield "Somebody who guesses goes by position in half of the answers: read it beside the accuracy as in training."
    if spec.sets < 2:
        yield "A single repeat says nothing about chance: there are no intervals. Choose 3 or more."
