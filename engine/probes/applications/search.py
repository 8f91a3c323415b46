"""Probe ``search``: can students of a distilled set rank architectures as training on everything does?

Every network of a small grid of ConvNets is trained on the set, which takes seconds, on as many random real images, and
on all real images. What counts is Spearman's rank correlation of the accuracies with those of full training, what the
first choice costs, and how much of the time the set saves (Zhao, Mopuri & Bilen 2021, "Dataset condensation with
gradient matching", its section on neural architecture search; their grid has 720 ConvNets).
"""

from __future__ import annotations

import itertools
import time
from dataclasses import replace
from typing import Any

from engine.baselines import make_baseline
from engine.data import load
from engine.probes.answerer import Work
from engine.probes.applications.common import accuracy, asked_set, finish
from engine.probes.applications.specs import SearchSpec
from engine.probes.desk import Answer
from engine.probes.robustness.common import drawn, spearman
from engine.runs.evaluating import check_fit
from engine.students.architecture import Architecture
from engine.students.fit import train_one
from engine.students.train import make_plan, make_real_plan

WAYS = {"set": "The set", "random": "Random real", "full": "All images"}
KINDS = {"set": "distilled", "random": "random", "full": "full"}
GRIDS = {
    "small": list(itertools.product((8, 32), (1, 3), ("none", "instance"))),
    "large": list(itertools.product((8, 16, 32, 64), (1, 2, 3), ("none", "instance", "batch"))),
}


def answer(spec: SearchSpec, work: Work) -> Answer:
    """See ``SearchSpec``. Tables ``networks`` (accuracies and seconds of each on the set, on as many random real
    images, and on everything) and ``ranks`` (rank correlation with full training, and what the first choice costs)."""
    synthetic = asked_set(spec.source, work)
    work.tell(0.0, f"Loading {synthetic.dataset}.")
    data = load(synthetic.dataset, synthetic.images.shape[-1])
    check_fit(synthetic, data)
    ipc = max(1, len(synthetic.decoded().images) // len(data.classes))
    least = min(len(members) for members in data.by_class)
    random = make_baseline("random", data, min(ipc, least), seed=spec.seed)
    own = data.distil_indices
    real = make_real_plan(data.train_images[own], data.train_labels[own], data, "full", "convnet", work.accel)
    real = replace(real, protocol=replace(real.protocol, epochs=None, steps=((1, spec.steps),)))
    plans = {
        "set": (make_plan(synthetic, data, spec.protocol, "convnet", work.accel), synthetic.prepare, 0.1),
        "random": (make_plan(random, data, spec.protocol, "convnet", work.accel), random.prepare, 0.1),
        "full": (real, data.normalise, 0.8),
    }
    images, labels, _ = drawn(data.test_images, data.test_labels, spec.tested, spec.seed)
    grid = [Architecture("convnet", width, depth, norm) for width, depth, norm in GRIDS[spec.grid]]
    rows: list[dict[str, Any]] = []
    for number, network in enumerate(grid):
        row: dict[str, Any] = {
            "network": network.label, "width": network.width, "depth": network.depth, "norm": network.norm,
        }  # fmt: skip
        done = 0.0
        for way, (plan, prepare, share) in plans.items():

            def tell(fraction: float, done: float = done, share: float = share, way: str = way, number: int = number
            ) -> None:  # fmt: skip
                sentence = f"Network {number + 1} of {len(grid)}, {grid[number].label}: {WAYS[way].lower()}."
                work.tell((number + done + share * fraction) / len(grid), sentence)

            began = time.perf_counter()
            module = finish(train_one(network.applied(plan), spec.seed), tell)
            row[f"{way}_seconds"] = time.perf_counter() - began
            row[way] = accuracy(module, prepare, images, labels)
            done += share
        rows.append(row)
    ranks = [_rank(rows, way) for way in ("set", "random")]
    seconds = {way: sum(row[f"{way}_seconds"] for row in rows) for way in WAYS}
    facts = {
        "ways": WAYS,
        "kinds": KINDS,
        "seconds": seconds,
        "distilling": synthetic.provenance.get("seconds"),
        "chance": 1 / len(data.classes),
        "headline": _headline(ranks, seconds, len(rows)),
    }
    notes = (
        "Each network is trained once in each way, so networks of nearly the same accuracy may change places by "
        "chance; p is that of a rank correlation as large among networks in random order. The time to make the set "
        "is not counted.",
    )
    return Answer({"networks": rows, "ranks": ranks}, facts, notes=notes)


def _rank(rows: list[dict[str, Any]], way: str) -> dict[str, Any]:
    """How the ranking of one way agrees with full training, and how much worse its first choice is than the best."""
    full = [row["full"] for row in rows]
    rho, p = spearman([row[way] for row in rows], full)
    chosen = max(rows, key=lambda row: row[way])
    return {"way": way, "rho": rho, "p": p, "chosen": chosen["network"], "lost": max(full) - chosen["full"]}


def _headline(ranks: list[dict[str, Any]], seconds: dict[str, float], count: int) -> str:
    own, random = ranks

    def said(rank: dict[str, Any]) -> str:
        return "none" if rank["rho"] is None else f"{rank['rho']:.2f} (p = {rank['p']:.3f})"

    return (
        f"Students of the set rank {count} networks with a rank correlation of {said(own)} with full training, in "
        f"{seconds['set']:.0f} s instead of {seconds['full']:.0f} s; students of random images with {said(random)}. "
        f"The first choice of the set is {100 * own['lost']:.1f} points below the best."
    )
