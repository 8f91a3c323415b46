"""One thread against two for steps of dd with a LeNet, which distil.py leaves to one: seconds a step, prints a table.

    LIMBECK_DATA=… python tests/benchmarks/threads.py [--rounds N]

Both run in this process, in turn, in fp32, each compiled for its own number of threads; a round is five seconds of
each. A figure is the median over rounds with the smallest and the largest.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from engine.accel import at_most, compiling, pick_accel  # noqa: E402
from engine.data import load  # noqa: E402
from engine.distill import dd  # noqa: E402
from engine.presets import PRESETS  # noqa: E402
from engine.spec import build_spec  # noqa: E402

ROUND = 5.0  # seconds
THREADS = (1, 2)


def prepared(preset: str, threads: int) -> dd.Method:
    """A distiller whose steps are compiled for so many threads."""
    dd.programs.cache_clear()
    distiller = dd.Method()
    accel = replace(pick_accel("cpu"), bf16=False)
    with at_most(threads):
        distiller.setup(build_spec("distill", **PRESETS[preset].values), load("mnist"), accel)
        distiller.step()
        while compiling():
            time.sleep(0.1)
            distiller.step()
    return distiller


def seconds_a_step(distiller: Any, threads: int) -> float:
    """Over a round."""
    with at_most(threads):
        began, steps = time.perf_counter(), 0
        while (taken := time.perf_counter() - began) < ROUND or not steps:
            distiller.step()
            steps += 1
    return taken / steps


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=6)
    args = parser.parse_args()
    print("| preset | threads | ms a step (smallest to largest) |\n|---|---|---|")
    for preset in ("mnist-dd-1", "mnist-dd-10"):
        arms = {threads: prepared(preset, threads) for threads in THREADS}
        taken: dict[int, list[float]] = {threads: [] for threads in THREADS}
        for _ in range(args.rounds):
            for threads, distiller in arms.items():
                taken[threads].append(1000 * seconds_a_step(distiller, threads))
        for threads, found in taken.items():
            middle = statistics.median(found)
            print(f"| {preset} | {threads} | {middle:.0f} ({min(found):.0f} to {max(found):.0f}) |", flush=True)


if __name__ == "__main__":
    main()
