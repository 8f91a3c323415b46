"""How long leave-one-out takes for ten MNIST images, and how often it finds a bad one: prints a table.

    python tests/benchmarks/valuation.py [--trials N] [--sets distilled]

Each trial makes a set of MNIST with one random real image for each class, gives one of the ten a wrong label, and works
out leave-one-out values with three students for each part, on 2,000 held-out images, as the page does. Found: the image
with the wrong label has the smallest value. The same is done with the distilled MNIST set of the gallery. MNIST is read
from LIMBECK_DATA, or downloaded. Measure on an otherwise idle machine.
"""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from engine.baselines import make_baseline  # noqa: E402
from engine.data import load  # noqa: E402
from engine.exports.runzip import unpacked  # noqa: E402
from engine.probes.answerer import work_out  # noqa: E402
from engine.probes.desk import Desk  # noqa: E402
from engine.probes.whatif.specs import ValuationSpec  # noqa: E402
from engine.runs.executor import cores  # noqa: E402
from engine.runs.store import Store  # noqa: E402
from engine.runs.worker import settle  # noqa: E402
from engine.synthetic import SyntheticSet, load_synthetic  # noqa: E402

GALLERY = ROOT / "assets" / "gallery" / "gallery-mnist-dc-1.zip"


def planted(honest: SyntheticSet, trial: int) -> tuple[SyntheticSet, int]:
    """The set with the label of one image moved on by 1 to 9 classes, and which one it is."""
    wrong, labels = (7 * trial + 3) % len(honest.images), honest.labels.clone()
    labels[wrong] = (labels[wrong] + 1 + trial % 9) % 10
    return replace(honest, labels=labels), wrong


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=10)
    parser.add_argument("--kind", choices=["leave-one-out", "shapley"], default="leave-one-out")
    parser.add_argument("--sets", nargs="+", choices=["random real", "distilled"], default=["random real", "distilled"])
    args = parser.parse_args()
    settle(niceness=0)
    data = load("mnist")
    with unpacked(GALLERY) as carried:
        distilled = load_synthetic(carried.folder / "result")
    kinds = {
        "random real": lambda trial: make_baseline("random", data, 1, seed=trial),
        "distilled": lambda trial: distilled,
    }
    print(f"{time.strftime('%Y-%m-%d')}, {platform.machine()}, {cores()} cores, {args.kind}\n")
    print("| ten images, one with a wrong label | seconds | found first | second |\n|---|---|---|---|", flush=True)
    for name, make in ((name, kinds[name]) for name in args.sets):
        seconds, ranks = [], []
        for trial in range(args.trials):
            bad, wrong = planted(make(trial), trial)
            with tempfile.TemporaryDirectory() as folder:
                os.environ["LIMBECK_HOME"] = folder
                desk, store = Desk(Path(folder)), Store(Path(folder))
                spec = ValuationSpec(source=str(bad.save(Path(folder) / "set")), kind=args.kind)
                began = time.perf_counter()
                answer = work_out(desk, store, desk.ask("valuation", spec))
                seconds.append(time.perf_counter() - began)
                assert not isinstance(answer, str), answer
                ranks += [row["rank"] for row in answer.tables["values"] if row["image"] == wrong]
            print(f"{name}, trial {trial}: {seconds[-1]:.1f} s, rank {ranks[-1]}", file=sys.stderr, flush=True)
        spread = f"{statistics.median(seconds):.1f} ({min(seconds):.1f} to {max(seconds):.1f})"
        print(f"| {name} | {spread} | {ranks.count(1)} of {args.trials} | {ranks.count(2)} |", flush=True)


if __name__ == "__main__":
    main()
