"""Probe ``valuation``: what each image of a set is worth to the students trained on it.

The utility v(S) of a part S of the set is the accuracy on real images of students trained on S, averaged over seeds
that are the same for every part. Leave-one-out: v(all) - v(all but i). Shapley: the mean over random orders of
v(those before i, and i) - v(those before i), each order ended once the accuracy is within a tolerance of v(all)
(Ghorbani & Zou 2019, "Data Shapley", ICML, equation 1 and algorithm 1). The empty part guesses: v = 1/K.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any, Protocol

import torch
from torch import Tensor

from engine.data.base import Dataset
from engine.errors import Refused
from engine.probes.answerer import Work
from engine.probes.desk import Answer
from engine.probes.whatif.specs import ValuationSpec
from engine.probes.whatif.students import Judges, asked_set, in_a_row
from engine.synthetic import SyntheticSet

MOST = {"leave-one-out": 200, "shapley": 50}  # images of a set whose values can be had in minutes


@dataclass(frozen=True)
class Values:
    """Values of N images in accuracy (fractions of 1): ``overall`` (N,), its standard error ``error`` (N,; NaN where
    nothing was repeated), and ``by_class`` (N, K) in the accuracy on each class; ``whole`` is the accuracy of the whole
    set, ``parts`` how many parts of it were trained on."""

    overall: Tensor
    error: Tensor
    by_class: Tensor
    whole: float
    parts: int


class Game(Protocol):
    """What values are values in: ``worth(part)`` is (seeds, K) accuracies on each class of students of the images
    in ``part``; ``overall`` weighs classes, (..., K) to (...,). ``expected``: how many parts will be asked for at most.
    """

    expected: int

    def worth(self, part: list[int]) -> Tensor: ...  # noqa: D102
    def overall(self, by_class: Tensor) -> Tensor: ...  # noqa: D102


def answer(spec: ValuationSpec, work: Work) -> Answer:
    """See ``ValuationSpec``. Values are in percentage points. Table ``values``: a row an image, ``rank`` 1 for the most
    harmful; ``classes``: a row an image and class. Picture ``set``: the images side by side."""
    synthetic, data = asked_set(spec.source, work)
    count = len(synthetic.images)
    if not 2 <= count <= MOST[spec.kind]:
        raise Refused(
            f"This set has {count:,} image{'' if count == 1 else 's'}; values of the kind {spec.kind} are worked out "
            f"for sets of 2 to {MOST[spec.kind]}. Choose another set"
            + (", or leave-one-out." if spec.kind == "shapley" and count <= MOST["leave-one-out"] else ".")
        )
    game = Students(synthetic, data, spec, work)
    values = leave_one_out(game, count) if spec.kind == "leave-one-out" else shapley(game, count, spec)
    labels = synthetic.hard_labels.tolist()
    order = values.overall.argsort(stable=True).tolist()
    rank = {image: place + 1 for place, image in enumerate(order)}
    table = [
        {
            "image": i,
            "class": synthetic.classes[labels[i]],
            "value": 100 * float(values.overall[i]),
            "error": None if math.isnan(float(values.error[i])) else 100 * float(values.error[i]),
            "own_class": 100 * float(values.by_class[i, labels[i]]),
            "rank": rank[i],
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
        "students": values.parts * spec.seeds,
        "worst": order[0],
        "best": order[-1],
        "judges": len(game.judges),
        "classes": list(synthetic.classes),
    }
    files = {"set": work.picture("set", in_a_row(synthetic))}
    return Answer({"values": table, "classes": classes}, facts, files, _notes(values, spec, game))


def _notes(values: Values, spec: ValuationSpec, game: Students) -> tuple[str, ...]:
    on = "test images" if spec.split == "test" else "held-out training images"
    said = [
        f"Students of the whole set get {values.whole:.1%} of {len(game.judges):,} {on} right (quick protocol). "
        f"{values.parts} parts of the set were trained on, by {spec.seeds} student{'s' if spec.seeds > 1 else ''} each."
    ]
    if torch.isnan(values.error).any():
        said.append("With one student for each part nothing is known about chance; take three or more.")
    else:
        told = int((values.overall.abs() > 2 * values.error).sum())
        said.append(f"{told} of {len(values.overall)} values differ from zero by more than two standard errors.")
    return tuple(said)


class Students:
    """The game of a set: accuracies of students of its parts, each part trained on only once."""

    def __init__(self, synthetic: SyntheticSet, data: Dataset, spec: ValuationSpec, work: Work):
        self.synthetic, self.work = synthetic, work
        self.judges = Judges(synthetic, data, spec.split, spec.images, work)
        self.seeds = [spec.seed + s for s in range(spec.seeds)]
        self.known: dict[frozenset[int], Tensor] = {}
        self.expected = 1

    def worth(self, part: list[int]) -> Tensor:
        """See ``Game``; students of no images at all guess."""
        key, classes = frozenset(part), len(self.synthetic.classes)
        if not key:
            return torch.full((len(self.seeds), classes), 1 / classes, dtype=torch.float64)
        if key not in self.known:
            at, done = torch.tensor(sorted(key)), len(self.known)
            chosen = replace(self.synthetic, images=self.synthetic.images[at], labels=self.synthetic.labels[at])
            says = f"Students of part {done + 1} of up to {max(self.expected, done + 1)}."
            said = self.judges.said(chosen, self.seeds, lambda: self.work.tell(done / self.expected, says))
            self.known[key] = self.judges.by_class(said)
        return self.known[key]

    def overall(self, by_class: Tensor) -> Tensor:
        """See ``Game``."""
        return self.judges.overall(by_class)


def leave_one_out(game: Game, count: int) -> Values:
    """v(all) - v(all but i), with the standard error over seeds, whose students start alike with and without i."""
    everything = list(range(count))
    game.expected = count + 1
    whole = game.worth(everything)
    lost = torch.stack([whole - game.worth([j for j in everything if j != i]) for i in everything])  # (N, seeds, K)
    own = game.overall(lost)
    return Values(own.mean(1), _error(own), lost.mean(1), float(game.overall(whole).mean()), count + 1)


def shapley(game: Game, count: int, spec: ValuationSpec) -> Values:
    """Truncated permutation sampling. Orders and seeds are crossed: the variance of a mean over both is at most the sum
    of those of the means over either, which is what the standard errors are made of."""
    game.expected = 1 + spec.orders * count
    whole = game.worth(list(range(count)))
    goal = float(game.overall(whole).mean())
    generator = torch.Generator().manual_seed(spec.seed)
    added = torch.zeros(spec.orders, count, *whole.shape, dtype=torch.float64)
    seen = {frozenset(range(count))}
    for number in range(spec.orders):
        before, part = game.worth([]), list[int]()
        for i in torch.randperm(count, generator=generator).tolist():
            if part and abs(goal - float(game.overall(before).mean())) < spec.tolerance:
                break
            part.append(i)
            seen.add(frozenset(part))
            now = game.worth(part)
            added[number, i], before = now - before, now
    own = game.overall(added)  # (orders, N, seeds)
    errors = [_error(own.mean(2).T), _error(own.mean(0))]
    error = torch.stack(errors).square().nansum(0).sqrt()
    return Values(own.mean((0, 2)), error, added.mean((0, 2)), goal, len(seen))


def _error(rows: Tensor) -> Tensor:
    """Standard errors (N,) of the means of (N, samples)."""
    return rows.std(1) / math.sqrt(rows.shape[1]) if rows.shape[1] > 1 else torch.full((len(rows),), math.nan)
