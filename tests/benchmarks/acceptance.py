"""What Limbeck reaches on this machine: distil for the stated minutes, then train students, and print the table.

    LIMBECK_DATA=… python tests/benchmarks/acceptance.py [--only NAME …] [--out FILE]

Takes about three hours on two cores. Every finished row is kept in FILE (default: acceptance.json in
LIMBECK_HOME), so an interrupted table goes on where it was; delete the file to measure anew. Measure on an otherwise
idle machine. The minutes count everything from the start of the run to its last step: initial images, compilation,
whitening; not the students.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from engine.home import limbeck_home  # noqa: E402
from engine.presets import PRESETS  # noqa: E402


@dataclass(frozen=True)
class Row:
    """One line of the table: a preset distilled and evaluated, or a baseline; ``required`` is a fraction."""

    name: str
    preset: str | None
    protocol: str
    students: int
    required: float | None = None
    baseline: tuple[str, str, int] | None = None  # dataset, kind, IPC


ROWS = (
    Row("MNIST IPC 1, gradient matching", "mnist-dc-1", "dc", 5, 0.90),
    Row("MNIST IPC 10, FRePo", "mnist-10", "frepo", 2, 0.97),
    Row("CIFAR-10 IPC 1, FRePo", "cifar10-frepo-1", "frepo", 3, 0.37),
    Row("CIFAR-10 IPC 10, distribution matching", "cifar10-dm-10", "dsa", 3, 0.45),
    Row("CIFAR-10 IPC 10, FRePo", "cifar10-frepo-10", "frepo", 2, 0.54),
    Row("MNIST IPC 1, random real", None, "dc", 5, None, ("mnist", "random", 1)),
    Row("MNIST IPC 10, random real", None, "frepo", 2, None, ("mnist", "random", 10)),
    Row("CIFAR-10 IPC 1, random real", None, "frepo", 3, None, ("cifar10", "random", 1)),
    Row("CIFAR-10 IPC 10, random real", None, "dsa", 3, None, ("cifar10", "random", 10)),
)


def engine(*arguments: object) -> dict:
    """``python -m engine … --json`` as a dictionary."""
    command = [sys.executable, "-m", "engine", *map(str, arguments), "--json"]
    return json.loads(subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True).stdout)


def flags(values: dict) -> list[str]:
    """Spec values as command-line flags."""
    out = []
    for name, value in values.items():
        flag = "--" + name.replace("_", "-")
        out += [flag if value else "--no-" + flag[2:]] if isinstance(value, bool) else [flag, str(value)]
    return out


def measure(row: Row) -> dict:
    """Distil (or select) and evaluate one row."""
    if row.preset:
        made = engine("distill", *flags({**PRESETS[row.preset].values, "students": 0}))
        source, seconds, steps = made["run"], made["seconds"], made["steps"]
    else:
        dataset, kind, ipc = row.baseline
        out = limbeck_home() / "acceptance" / f"{dataset}-{kind}-{ipc}"
        began = time.perf_counter()
        engine("baseline", "--dataset", dataset, "--kind", kind, "--ipc", ipc, "--out", out)
        source, seconds, steps = out, time.perf_counter() - began, None
    dataset = PRESETS[row.preset].values["dataset"] if row.preset else row.baseline[0]
    tested = engine("evaluate", source, "--dataset", dataset, "--protocol", row.protocol, "--seeds", row.students)
    return {**tested, "distil_seconds": seconds, "steps": steps, "source": str(source)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="*", default=None, help="presets or row names to measure")
    parser.add_argument("--out", type=Path, default=None)
    args = parser.parse_args()
    out = args.out or limbeck_home() / "acceptance.json"
    results = json.loads(out.read_text()) if out.exists() else {}
    for row in ROWS:
        if row.name in results or (args.only and row.name not in args.only and row.preset not in args.only):
            continue
        print(f"… {row.name}", file=sys.stderr, flush=True)
        results[row.name] = measure(row)
        aside = out.with_suffix(".part")
        aside.write_text(json.dumps(results, indent=1))
        os.replace(aside, out)
    print(f"{time.strftime('%Y-%m-%d')}, {platform.machine()}, {os.cpu_count()} cores\n")
    print("| | protocol | students | accuracy | required | distilling | steps | evaluating |")
    print("|---|---|---|---|---|---|---|---|")
    for row in ROWS:
        if row.name in results:
            r = results[row.name]
            needed = f"{100 * row.required:.0f} %" if row.required else ""
            accuracy = f"{100 * r['mean']:.1f} ± {100 * r['std']:.1f} %"
            times = f"{r['distil_seconds']:.0f} s | {r['steps'] or ''} | {r['seconds']:.0f} s"
            print(f"| {row.name} | {row.protocol} | {row.students} | {accuracy} | {needed} | {times} |")


if __name__ == "__main__":
    main()
