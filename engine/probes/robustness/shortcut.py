"""Stars and moons: does a distilled set carry a shortcut of its training images over, amplify it, or drop it?

In training a figure's position tells its class as well as its shape does (Geirhos et al. 2020, "Shortcut learning in
deep neural networks", figure 2). Students of three sets, all trained alike, are tested where position agrees with
shape as in training (i.i.d.), where it tells nothing (random) and where it always tells the other class (flipped). On
flipped images every answer goes by shape or by position; *reliance* is the share that goes by position.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from engine.baselines import make_baseline
from engine.data.base import Dataset
from engine.data.moons import CLASSES, load_moons, make_moons
from engine.distill import make_distiller
from engine.probes.answerer import Work
from engine.probes.desk import Answer
from engine.probes.robustness.common import mean_interval, sheet
from engine.probes.robustness.specs import ShortcutSpec
from engine.spec import build_spec
from engine.students.train import make_plan, train_slices
from engine.synthetic import SyntheticSet

SETS = {"distilled": "Distilled", "random": "Random real", "full": "All images"}
TESTS = {"iid": "As in training", "random": "Random position", "flipped": "Flipped position"}
TESTED = 500  # images of each class in each test set


def answer(spec: ShortcutSpec, work: Work) -> Answer:
    """Tables ``students`` (one row a student), ``summary`` (a row per training set and measure, with 95 % intervals
    over repeats) and ``contrasts`` (differences of reliance, paired by repeat); pictures of images and sets."""
    tests = _tests(spec)
    rows: list[dict[str, Any]] = []
    shown: dict[str, SyntheticSet] = {}
    examples: Tensor | None = None
    portion = 1 / spec.sets
    for repeat in range(spec.sets):
        seed = 1000 * spec.seed + repeat
        data = load_moons(spec.images, 1, seed + 1, spec.agreement, spec.layout)
        examples = data.train_images[:12] if examples is None else examples
        start = repeat * portion
        of = f"{repeat + 1} of {spec.sets}"
        for made, fraction in _make_sets(spec, data, seed, work):
            if isinstance(made, dict):
                sets = made
            else:
                work.tell(start + 0.4 * portion * fraction, f"Distilling set {of}: {made}.")
        shown = shown or sets
        count, done = len(sets) * spec.students, 0
        for kind, chosen in sets.items():
            for number in range(spec.students):
                for fraction, module in _train(chosen, data, spec, 100 * seed + number, work):
                    whole = start + portion * (0.4 + 0.6 * (done + fraction) / count)
                    work.tell(whole, f"Training students of set {of}: {SETS[kind].lower()}.")
                done += 1
                assert module is not None
                accuracies = {f"{name}_accuracy": _accuracy(module, chosen, *test) for name, test in tests.items()}
                rows.append(
                    {
                        "set": kind,
                        "repeat": repeat,
                        "student": number,
                        "images": len(chosen.images),
                        **accuracies,
                        "reliance": 1 - accuracies["flipped_accuracy"],
                    }
                )
    summary, contrasts = _summary(rows), _contrasts(rows)
    assert examples is not None
    images = {
        "examples": work.picture("examples", sheet([examples, *(t[0][:12] for t in tests.values())]), 2),
        **{
            kind: work.picture(kind, sheet(_by_class(shown[kind])), 4 if spec.ipc <= 10 else 2)
            for kind in ("distilled", "random")
        },
    }
    facts = {
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
    spec: ShortcutSpec, data: Dataset, seed: int, work: Work
) -> Iterator[tuple[str | dict[str, SyntheticSet], float]]:
    """The three training sets of one repeat; before them, what is being done, with the fraction done."""
    yield "starting", 0.0
    run = build_spec(
        "distill", dataset=data.name, method=spec.method, ipc=spec.ipc, steps=spec.steps, seed=seed, width=spec.width
    )
    distiller = make_distiller(spec.method)
    distiller.setup(run, data, work.accel)
    for step in range(spec.steps):
        distiller.step()
        yield f"step {step + 1} of {spec.steps}", (step + 1) / spec.steps
    own = data.distil_indices
    everything = SyntheticSet(
        data.normalise(data.train_images[own]), data.train_labels[own], data.name, data.classes, data.mean, data.std,
        "selected",
    )  # fmt: skip
    # Another seed than the distiller's, which starts from random real images too.
    random = make_baseline("random", data, spec.ipc, seed=seed + 500_000)
    yield {"distilled": distiller.synthetic(), "random": random, "full": everything}, 1.0


def _train(
    chosen: SyntheticSet, data: Dataset, spec: ShortcutSpec, seed: int, work: Work
) -> Iterator[tuple[float, nn.Module | None]]:
    """The fraction done after every step, and in the end the network."""
    plan = make_plan(chosen, data, spec.protocol, spec.network, work.accel)
    slices = train_slices(plan, [seed % 2**31])
    while True:
        try:
            yield next(slices), None
        except StopIteration as end:
            module = plan.make().to(work.accel.device)
            module.load_state_dict({**module.state_dict(), **end.value.parameters})
            yield 1.0, module.eval()
            return


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
            mean, low, high = mean_interval(values)
            # An interval of a share ends where shares end.
            bounds = {"low": None if low is None else max(0.0, low), "high": None if high is None else min(1.0, high)}
            out.append({"set": kind, "measure": measure, "mean": mean, **bounds, "repeats": len(values)})
    return out


def _contrasts(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    out = []
    own = _per_repeat(rows, "distilled", "reliance")
    for other in ("full", "random"):
        theirs = _per_repeat(rows, other, "reliance")
        mean, low, high = mean_interval([a - b for a, b in zip(own, theirs, strict=True)])
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


def _notes(spec: ShortcutSpec, contrasts: list[dict[str, Any]]) -> Iterator[str]:
    words = {
        "more": "The distilled set amplifies the shortcut: its students go by position more often than those of {}.",
        "less": "The distilled set weakens the shortcut: its students go by position less often than those of {}.",
        "no significant difference": "Students of the distilled set and of {} go by position about equally often: the "
        "difference is not significant at this number of repeats.",
    }
    others = {"distilled - full": "all images", "distilled - random": "as many random real images"}
    for row in contrasts:
        if row["verdict"] in words:
            yield words[row["verdict"]].format(others[row["contrast"]])
    if spec.sets < 2:
        yield "A single repeat says nothing about chance: there are no intervals. Choose 3 or more."
