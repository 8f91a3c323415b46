"""Probe ``search``: can students of a distilled set rank architectures as training on everything does?

Every network of a small grid of ConvNets is trained twice: on the set, which takes seconds, and on all real images.
What counts is Spearman's rank correlation of the two accuracies, and how much of the time the set saves (Zhao, Mopuri
& Bilen 2021, "Dataset condensation", section 4.3; their grid has 720 ConvNets).
"""

from __future__ import annotations

import itertools
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from engine.baselines import make_baseline
from engine.data import load
from engine.data.base import Dataset
from engine.probes.answerer import Work
from engine.probes.applications.specs import SearchSpec
from engine.probes.desk import Answer
from engine.probes.robustness.common import spearman
from engine.runs.evaluating import check_fit
from engine.runs.imports import read_set
from engine.students.architecture import Architecture
from engine.students.fit import train_one
from engine.students.train import Plan, make_plan, make_real_plan
from engine.synthetic import SyntheticSet

GRIDS = {
    "small": list(itertools.product((8, 32), (1, 3), ("none", "instance"))),
    "large": list(itertools.product((8, 16, 32, 64), (1, 2, 3), ("none", "instance", "batch"))),
}


def answer(spec: SearchSpec, work: Work) -> Answer:
    """See ``SearchSpec``. Table ``networks``: accuracies and seconds of each on the set, on as many random real images,
    and on everything."""
    synthetic = read_set(work.store.result_folder(spec.source) or Path(spec.source).expanduser())
    work.tell(0.0, f"Loading {synthetic.dataset}.")
    data = load(synthetic.dataset, synthetic.images.shape[-1])
    check_fit(synthetic, data)
    ipc = max(1, len(synthetic.decoded().images) // len(data.classes))
    least = min(len(members) for members in data.by_class)
    random = make_baseline("random", data, min(ipc, least), seed=spec.seed)
    own = data.distil_indices
    everything = data.train_images[own], data.train_labels[own]
    grid = [Architecture("convnet", width, depth, norm) for width, depth, norm in GRIDS[spec.grid]]
    rows: list[dict[str, Any]] = []
    for number, network in enumerate(grid):

        def tell(fraction: float, what: str, number: int = number, network: Architecture = network) -> None:
            work.tell((number + fraction) / len(grid), f"Network {number + 1} of {len(grid)}, {network.label}: {what}")

        real = make_real_plan(*everything, data, "full", "convnet", work.accel)
        real = replace(real, protocol=replace(real.protocol, epochs=None, steps=((1, spec.steps),)))
        plans = {
            "set": (make_plan(synthetic, data, spec.protocol, "convnet", work.accel), synthetic, 0.0),
            "random": (make_plan(random, data, spec.protocol, "convnet", work.accel), random, 0.1),
            "full": (real, None, 0.2),
        }
        row: dict[str, Any] = {
            "network": network.label,
            "width": network.width,
            "depth": network.depth,
            "norm": network.norm,
        }
        for kind, (plan, space, from_) in plans.items():
            began = time.perf_counter()
            module = _trained(
                network.applied(plan), spec.seed, lambda f, b=from_, k=kind: tell(b + 0.1 * f, f"on {k}.")
            )
            row[f"{kind}_seconds"] = time.perf_counter() - began
            row[kind] = _accuracy(module, data, space, work)
        rows.append(row)
    full = [row["full"] for row in rows]
    (own_rank, own_p), (random_rank, _) = (spearman([row[kind] for row in rows], full) for kind in ("set", "random"))
    best = max(rows, key=lambda row: row["set"])
    seconds = {kind: sum(row[f"{kind}_seconds"] for row in rows) for kind in ("set", "random", "full")}
    told = "no rank correlation can be had" if own_rank is None else f"rank correlation {own_rank:.2f}"
    facts = {
        "rank": own_rank,
        "p": own_p,
        "rank_random": random_rank,
        "seconds": seconds,
        "chosen": best["network"],
        "lost": max(full) - best["full"],
        "headline": f"{told[:1].upper()}{told[1:]} of {len(rows)} networks, in {seconds['set']:.0f} s instead of "
        f"{seconds['full']:.0f} s; its first choice is {100 * (max(full) - best['full']):.1f} points below the best.",
    }
    return Answer({"networks": rows}, facts)


def _trained(plan: Plan, seed: int, tell: Any) -> nn.Module:
    slices = train_one(plan, seed)
    while True:
        try:
            tell(next(slices))
        except StopIteration as end:
            return end.value


def _accuracy(module: nn.Module, data: Dataset, space: SyntheticSet | None, work: Work) -> float:
    """Share of the test images recognised, in the space of the set that the network was trained on."""
    prepare = space.prepare if space else data.normalise
    with torch.no_grad():
        said = [module(prepare(part).to(work.accel.device)).argmax(1).cpu() for part in data.test_images.split(500)]
    return float((torch.cat(said) == data.test_labels).double().mean())
