"""Probe ``valuation``: what each image of a set is worth to the students trained on it.

The utility v(S) of a part S of the set is the accuracy on held-out images of students trained on S, averaged over
seeds that are the same for every part. Leave-one-out: v(all) - v(all but i). Shapley: the mean over random orders of
v(those before i, and i) - v(those before i), each order truncated once the accuracy is within a tolerance of v(all)
(Ghorbani & Zou 2019, "Data Shapley", equation 1 and algorithm 1). The empty part guesses: v = 1/K.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from engine.data import load
from engine.data.base import Dataset
from engine.errors import Refused
from engine.probes.answerer import Work
from engine.probes.desk import Answer
from engine.probes.whatif.specs import ValuationSpec
from engine.runs.evaluating import check_fit
from engine.runs.imports import read_set
from engine.students.evaluation import Real
from engine.students.train import make_plan, train_slices
from engine.synthetic import SyntheticSet

MOST = {"leave-one-out": 200, "shapley": 50}  # images of a set whose values can be had in minutes


@dataclass(frozen=True)
class Values:
    """Values of N images in accuracy (fractions of 1): ``overall`` (N,), its standard error ``error`` (N,), and
    ``by_class`` (N, K) in the accuracy on each class; ``whole`` is the accuracy of the whole set, ``parts`` how many
    parts of it were trained on."""

    overall: Tensor
    error: Tensor
    by_class: Tensor
    whole: float
    parts: int


def answer(spec: ValuationSpec, work: Work) -> Answer:
    """See ``ValuationSpec``. Table ``values``: a row an image, with its value in percentage points."""
    synthetic = read_set(work.store.result_folder(spec.source) or Path(spec.source).expanduser())
    synthetic = replace(synthetic, step_sizes=None, turns=1, start=None)
    count = len(synthetic.images)
    if not 2 <= count <= MOST[spec.way]:
        raise Refused(
            f"This set has {count:,} images; values by {spec.way} are worked out for sets of 2 to {MOST[spec.way]}. "
            "Choose another set, or leave-one-out."
        )
    work.tell(0.0, f"Loading {synthetic.dataset}.")
    data = load(synthetic.dataset, synthetic.images.shape[-1])
    check_fit(synthetic, data)
    utility = Utility(synthetic, data, spec, work)
    values = leave_one_out(utility, count) if spec.way == "leave-one-out" else shapley(utility, count, spec)
    labels = synthetic.hard_labels.tolist()
    order = values.overall.argsort().tolist()
    table = [
        {
            "image": i,
            "class": synthetic.classes[labels[i]],
            "value": 100 * float(values.overall[i]),
            "error": 100 * float(values.error[i]),
            "own_class": 100 * float(values.by_class[i, labels[i]]),
            "rank": order.index(i) + 1,
        }
        for i in range(count)
    ]
    classes = [
        {"image": i, "class": name, "value": 100 * float(values.by_class[i, c])}
        for i in range(count)
        for c, name in enumerate(synthetic.classes)
    ]
    facts: dict[str, Any] = {
        "whole": values.whole,
        "parts": values.parts,
        "worst": order[0],
        "best": order[-1],
        "judged": utility.judged,
        "classes": list(synthetic.classes),
    }
    return Answer({"values": table, "classes": classes}, facts, notes=tuple(_notes(values)))


def _notes(values: Values) -> list[str]:
    told = int((values.overall.abs() > 2 * values.error).sum())
    if math.isnan(float(values.error.max())):
        return ["With one student for each part nothing is known about chance; take 3 or more."]
    return [f"{told} of {len(values.overall)} values differ from zero by more than two standard errors."]


class Utility:
    """What a part of the set is worth: accuracies of students trained on it, class by class, each part only once."""

    def __init__(self, synthetic: SyntheticSet, data: Dataset, spec: ValuationSpec, work: Work):
        self.synthetic, self.data, self.spec, self.work = synthetic, data, spec, work
        self.real = Real(synthetic, data, "held-out", spec.images, work.accel)
        self.judged = len(self.real)
        self.truth = torch.cat([self.real.batch(i)[1] for i in range(self.real.batches)]).cpu()
        self.known: dict[frozenset[int], Tensor] = {}
        self.expected = 1

    def __call__(self, part: list[int]) -> Tensor:
        """(seeds, K) accuracies on each class of students of the images in ``part``; guesses for none."""
        key, classes = frozenset(part), len(self.synthetic.classes)
        if not key:
            return torch.full((self.spec.seeds, classes), 1 / classes, dtype=torch.float64)
        if key not in self.known:
            self.work.tell(len(self.known) / self.expected, f"Part {len(self.known) + 1} of up to {self.expected}.")
            at = torch.tensor(sorted(part))
            chosen = replace(self.synthetic, images=self.synthetic.images[at], labels=self.synthetic.labels[at])
            self.known[key] = torch.stack([self._student(chosen, self.spec.seed + s) for s in range(self.spec.seeds)])
        return self.known[key]

    def _student(self, chosen: SyntheticSet, seed: int) -> Tensor:
        plan = make_plan(chosen, self.data, "quick", accel=self.work.accel)
        slices = train_slices(plan, [seed])
        while True:
            try:
                next(slices)
            except StopIteration as end:
                group = end.value
                break
            self.work.tell(len(self.known) / self.expected, "")
        said = torch.cat([group.predict(self.real.batch(i)[0])[0].cpu() for i in range(self.real.batches)])
        right = (said == self.truth).double()
        classes = len(self.synthetic.classes)
        there = torch.bincount(self.truth, minlength=classes).clamp_min(1)
        return torch.bincount(self.truth, weights=right, minlength=classes) / there


def leave_one_out(utility: Utility, count: int) -> Values:
    """v(all) - v(all but i), with the standard error over seeds, whose students start alike with and without i."""
    everything = list(range(count))
    utility.expected = count + 1
    whole = utility(everything)
    lost = torch.stack([whole - utility([j for j in everything if j != i]) for i in everything])  # (N, seeds, K)
    own, all_of = _overall(utility, lost), float(_overall(utility, whole[None])[0].mean())
    return Values(own.mean(1), _error(own), lost.mean(1), all_of, count + 1)


def shapley(utility: Utility, count: int, spec: ValuationSpec) -> Values:
    """Truncated permutation sampling; the standard error is over orders."""
    utility.expected = 1 + spec.permutations * count
    whole = utility(list(range(count))).mean(0)
    goal = float(_overall(utility, whole[None, None])[0, 0])
    generator = torch.Generator().manual_seed(spec.seed)
    added = torch.zeros(spec.permutations, count, len(whole), dtype=torch.float64)
    parts = 1
    for number in range(spec.permutations):
        before, part = utility([]).mean(0), []
        for i in torch.randperm(count, generator=generator).tolist():
            if abs(goal - float(_overall(utility, before[None, None])[0, 0])) < spec.tolerance and part:
                break
            part.append(i)
            now = utility(part).mean(0)
            added[number, i], before = now - before, now
            parts += 1
    own = _overall(utility, added.transpose(0, 1))
    return Values(own.mean(1), _error(own), added.mean(0), goal, parts)


def _overall(utility: Utility, by_class: Tensor) -> Tensor:
    """(..., K) accuracies or differences on each class, weighted as the judging images are."""
    share = torch.bincount(utility.truth, minlength=by_class.shape[-1]).double()
    return by_class @ (share / share.sum())


def _error(rows: Tensor) -> Tensor:
    """Standard errors (N,) of the means of (N, samples)."""
    return rows.std(1) / math.sqrt(rows.shape[1]) if rows.shape[1] > 1 else torch.full((len(rows),), math.nan)
