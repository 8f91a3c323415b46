"""Probe ``poisoning``: distilled images that make a network misread one class, in a single gradient step.

Unrolled distillation with a twist: the images, and the size of the one step, are learned so that after the step real
images of the attacked class are read as the target class, and all others still as what they are (Wang et al. 2018,
"Dataset distillation", its section on different objectives). It is a demonstration, on networks that are trained here
for it and nothing else: who lets others choose training images, however few, lets them choose what is learned.
"""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn

from engine.data import load
from engine.data.base import Dataset
from engine.distill.dd import Method
from engine.distill.pretrained import begin
from engine.errors import Refused
from engine.intervals import wilson
from engine.probes.answerer import Work
from engine.probes.applications.common import (
    HELD_OUT,
    Row,
    contrast,
    descend,
    enough,
    percent,
    picture,
    said,
    summarise,
    unrolled,
)
from engine.probes.applications.specs import PoisoningSpec
from engine.probes.desk import Answer
from engine.spec import build_spec

WAYS = {"before": "Before the step", "real": "Real images, mislabelled", "distilled": "Distilled images"}
KINDS = {"before": "full", "real": "random", "distilled": "distilled"}
MEASURES = ("misread", "others")
RATES = (0.003, 0.01, 0.03, 0.1, 0.3, 1.0)  # sizes of the step that mislabelled real images may choose from


class Poisoner(Method):
    """DD towards labels among which one class bears the name of another."""

    attacked = target = 0

    def _real(self) -> tuple[Tensor, Tensor]:
        images, labels = super()._real()
        return images, torch.where(labels == self.attacked, self.target, labels)


def answer(spec: PoisoningSpec, work: Work) -> Answer:
    """See ``PoisoningSpec``. Table ``rows``: for each attacked network before and after the step the share of the
    attacked class that is read as the target (``misread``) and of all other classes that is read rightly (``others``);
    ``summary`` with 95 % intervals."""
    work.tell(0.0, f"Loading {spec.dataset}.")
    data = load(spec.dataset)
    count = len(data.classes)
    if max(spec.attacked, spec.target) >= count or spec.attacked == spec.target:
        raise Refused(f"The attacked and the target class are two of the numbers 0 to {count - 1}; choose others.")
    enough(data, spec.ipc)
    known = spec.weights == "known"
    run = build_spec(
        "distill", dataset=spec.dataset, method="dd", network=spec.network, ipc=spec.ipc, init="real", steps=spec.steps,
        initial="fixed-pretrained" if known else "random-pretrained", distill_steps=1, distill_epochs=1, lr_step=0.02,
        lr_img=0.05, batch_real=512, source_steps=spec.source_steps, pool=spec.pool, halve=max(1, spec.steps // 3),
        seed=spec.seed,
    )  # fmt: skip
    distiller = Poisoner()
    distiller.attacked, distiller.target = spec.attacked, spec.target
    distiller.setup(run, data, work.accel)
    made = unrolled(distiller, spec.steps, lambda f, s: work.tell(0.8 * f, s))
    step = made.step_sizes
    assert step is not None

    def network(seed: int) -> nn.Module:
        return begin(distiller.start, distiller.build, seed, data, distiller.accel)

    lie, labels = _real_lie(data, spec)
    work.tell(0.82, "Looking for the step size of mislabelled real images.")
    rate = _best_rate(network(HELD_OUT - 1), lie, labels, data, spec)
    rows: list[Row] = []
    victims = [network(0)] if known else [network(HELD_OUT + i) for i in range(spec.networks)]
    for number, victim in enumerate(victims):
        work.tell(0.85 + 0.15 * number / len(victims), f"Network {number + 1} of {len(victims)}.")
        after = {
            "before": victim,
            "real": descend(copy.deepcopy(victim), lie, labels, [rate]),
            "distilled": descend(copy.deepcopy(victim), made.images, made.hard_labels, step.tolist()),
        }
        for way, attacked in after.items():
            found = measured(attacked, data, spec, data.test_images, data.test_labels)
            rows.append({"repeat": number, "way": way, **found})
    summary = _of_one(rows, data, spec) if known else summarise(rows, MEASURES)
    facts = {
        "ways": WAYS,
        "kinds": KINDS,
        "headline": _headline(summary, made, data, spec, len(victims)),
        "attacked": data.classes[spec.attacked],
        "target": data.classes[spec.target],
        "shown": list(data.classes),
        "step_size": float(step[0]),
        "rate": rate,
        "networks": len(victims),
        "images": len(made.images),
    }
    contrasts = [] if known else [contrast(rows, measure, "distilled", "real") for measure in MEASURES]
    notes = (
        "A demonstration, on networks trained here for it. What protects: knowing where training images come from, "
        "and testing a network class by class after every update.",
    )
    return Answer(
        {"summary": summary, "contrasts": contrasts, "rows": rows}, facts, {"images": picture(work, "images", made)},
        notes,
    )  # fmt: skip


def _headline(summary: list[Row], made: Any, data: Dataset, spec: PoisoningSpec, networks: int) -> str:
    done = {(row["way"], row["measure"]): row for row in summary}
    attacked, target = data.classes[spec.attacked], data.classes[spec.target]
    whose = "the network they were made for" if spec.weights == "known" else f"{networks} networks never distilled with"
    return (
        f"One step on {len(made.images)} distilled images, and {whose} read {percent(done['distilled', 'misread'])} of "
        f"{attacked} as {target}, {100 * done['before', 'misread']['mean']:.1f} % before; of all other classes "
        f"{percent(done['distilled', 'others'])} are read rightly, {100 * done['before', 'others']['mean']:.1f} % "
        "before."
    )


def _of_one(rows: list[Row], data: Dataset, spec: PoisoningSpec) -> list[Row]:
    """The summary of a single network: intervals are over test images."""
    own = int((data.test_labels == spec.attacked).sum())
    of = {"misread": own, "others": len(data.test_labels) - own}
    out = []
    for row in rows:
        for measure in MEASURES:
            low, high = wilson(round(row[measure] * of[measure]), of[measure])
            out.append(
                {"way": row["way"], "measure": measure, "mean": row[measure], "low": low, "high": high, "repeats": 1}
            )
    return out


def _real_lie(data: Dataset, spec: PoisoningSpec) -> tuple[Tensor, Tensor]:
    """As many real images, those of the attacked class labelled as the target: what a liar without distillation has."""
    generator = torch.Generator().manual_seed(spec.seed)
    chosen = torch.cat([m[torch.randperm(len(m), generator=generator)[: spec.ipc]] for m in data.by_class])
    labels = data.train_labels[chosen]
    return data.normalise(data.train_images[chosen]), torch.where(labels == spec.attacked, spec.target, labels)


def _best_rate(network: nn.Module, lie: Tensor, labels: Tensor, data: Dataset, spec: PoisoningSpec) -> float:
    """The size of the step of ``RATES`` after which a network does best what it is to do, on held-out images."""
    images, truth = data.train_images[data.held_out], data.train_labels[data.held_out]

    def worth(rate: float) -> float:
        return sum(measured(descend(copy.deepcopy(network), lie, labels, [rate]), data, spec, images, truth).values())

    return max(RATES, key=worth)


def measured(
    network: nn.Module, data: Dataset, spec: PoisoningSpec, images: Tensor, labels: Tensor
) -> dict[str, float]:
    """The share of the attacked class that is read as the target, and that of all other classes read rightly."""
    answers = said(network, data.normalise, images)
    attacked = labels == spec.attacked
    return {
        "misread": float((answers[attacked] == spec.target).double().mean()),
        "others": float((answers[~attacked] == labels[~attacked]).double().mean()),
    }
