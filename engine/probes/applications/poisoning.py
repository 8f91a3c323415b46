"""Probe ``poisoning``: distilled images that make a network misread one class, in a single gradient step.

Unrolled distillation with a twist: the images, and the size of the one step, are learned so that after the step real
images of the attacked class are read as the target class, and all others still as what they are (Wang et al. 2018,
"Dataset distillation", section 4.4). It is a demonstration, on networks that are trained here for it and nothing else:
who lets others choose training images, however few, lets them choose what is learned.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from engine.data import load
from engine.data.base import Dataset
from engine.distill.dd import Method
from engine.distill.pretrained import begin
from engine.errors import Refused
from engine.probes.answerer import Work
from engine.probes.applications.specs import PoisoningSpec
from engine.probes.applications.steps import HELD_OUT, descend, distil, said
from engine.probes.desk import Answer
from engine.probes.robustness.common import mean_interval, sheet
from engine.spec import build_spec


class Poisoner(Method):
    """DD towards labels among which one class bears the name of another."""

    attacked = target = 0

    def _real(self) -> tuple[Tensor, Tensor]:
        images, labels = super()._real()
        return images, torch.where(labels == self.attacked, self.target, labels)


def answer(spec: PoisoningSpec, work: Work) -> Answer:
    """See ``PoisoningSpec``. Table ``networks``: a row for each held-out network before and after the step, for the
    distilled images, and for as many real ones labelled with the same lie; ``summary`` with 95 % intervals."""
    work.tell(0.0, f"Loading {spec.dataset}.")
    data = load(spec.dataset)
    count = len(data.classes)
    if max(spec.attacked, spec.target) >= count or spec.attacked == spec.target:
        raise Refused(f"The attacked and the target class are two of the numbers 0 to {count - 1}; choose others.")
    run = build_spec(
        "distill", dataset=spec.dataset, method="dd", network="lenet", ipc=spec.ipc, init="real", steps=spec.steps,
        initial="fixed-pretrained" if spec.weights == "known" else "random-pretrained", distill_steps=1,
        distill_epochs=1, lr_step=0.02, lr_img=0.01, batch_real=512, source_steps=spec.source_steps, pool=spec.pool,
        halve=max(1, spec.steps // 3), seed=spec.seed,
    )  # fmt: skip
    distiller = Poisoner()
    distiller.attacked, distiller.target = spec.attacked, spec.target
    distiller.setup(run, data, work.accel)
    made = distil(distiller, spec.steps, lambda f, s: work.tell(0.85 * f, s))
    rates = made.step_sizes.tolist()
    lie, lie_labels = _real_lie(data, spec)
    rows: list[dict[str, Any]] = []
    victims = list(_victims(distiller, spec, data))
    for number, network in enumerate(victims):
        work.tell(0.85 + 0.15 * number / len(victims), f"Network {number + 1} of {len(victims)}.")
        attacks = {
            "before": network,
            "distilled": descend(copy.deepcopy(network), made.images, made.labels, rates),
            "real": descend(copy.deepcopy(network), lie, lie_labels, rates),
        }
        rows += [{"network": number, "images": kind, **_measured(n, data, spec)} for kind, n in attacks.items()]
    summary = []
    for kind in ("before", "distilled", "real"):
        for measure in ("misread", "others"):
            mean, low, high = mean_interval([r[measure] for r in rows if r["images"] == kind])
            summary.append({"images": kind, "measure": measure, "mean": mean, "low": low, "high": high})
    done = {(r["images"], r["measure"]): r["mean"] for r in summary}
    attacked, target = data.classes[spec.attacked], data.classes[spec.target]
    facts = {
        "headline": f"One step on {len(made.images)} distilled images: {100 * done['distilled', 'misread']:.0f} % of "
        f"{attacked} are read as {target} (before: {100 * done['before', 'misread']:.0f} %); all other classes: "
        f"{100 * done['distilled', 'others']:.1f} % right (before: {100 * done['before', 'others']:.1f} %).",
        "attacked": attacked,
        "target": target,
        "step_size": rates[0],
        "networks": len(victims),
    }
    shown = [[image for image in made.to_display()[made.hard_labels == c][:5]] for c in range(count)]
    notes = (
        "A demonstration, on networks trained here for it. What protects: knowing where training images come from, "
        "and testing a network class by class after every update.",
    )
    return Answer(
        {"summary": summary, "networks": rows}, facts, {"images": work.picture("images", sheet(shown), 3)}, notes
    )


def _real_lie(data: Dataset, spec: PoisoningSpec) -> tuple[Tensor, Tensor]:
    """As many real images, those of the attacked class labelled as the target: what a liar without distillation has."""
    generator = torch.Generator().manual_seed(spec.seed)
    chosen = torch.cat([m[torch.randperm(len(m), generator=generator)[: spec.ipc]] for m in data.by_class])
    labels = data.train_labels[chosen]
    return data.normalise(data.train_images[chosen]), torch.where(labels == spec.attacked, spec.target, labels)


def _victims(distiller: Method, spec: PoisoningSpec, data: Dataset) -> Iterator[nn.Module]:
    """The known network, or networks pre-trained from seeds that were not distilled with."""
    seeds = [0] if distiller.start.fixed else [HELD_OUT + i for i in range(spec.networks)]
    for seed in seeds:
        yield begin(distiller.start, distiller.build, seed, data, distiller.accel)


def _measured(network: nn.Module, data: Dataset, spec: PoisoningSpec) -> dict[str, float]:
    """Test images of the attacked class read as the target, and those of all other classes read rightly."""
    answers = said(network, data, data.test_images)
    attacked = data.test_labels == spec.attacked
    return {
        "misread": float((answers[attacked] == spec.target).double().mean()),
        "others": float((answers[~attacked] == data.test_labels[~attacked]).double().mean()),
    }
