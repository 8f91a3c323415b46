"""The results table: every preset distilled for its stated minutes, evaluated, and set beside the published figures.

    LIMBECK_DATA=… python tests/benchmarks/results.py [--only NAME …] [--out FILE]

``make results`` runs it. It takes about a day on two cores, and can be interrupted at any time: every finished row is
kept in FILE (default: results.json in LIMBECK_HOME) and a run that was cut short is resumed; delete the file to measure
anew. The table is written beside it, as results.md. Measure on an otherwise idle machine. The minutes count everything
from the start of a run to its last step: initial images, compilation, whitening, expert buffers; not the students.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from engine.home import limbeck_home  # noqa: E402
from engine.presets import PRESETS  # noqa: E402


@dataclass(frozen=True)
class Row:
    """One line of the table: a preset distilled for ``minutes``, or a baseline (dataset, kind, IPC).

    ``required`` and ``published`` are percent; ``source`` says where the published figure comes from.
    """

    name: str
    protocol: str
    students: int
    preset: str = ""
    minutes: float = 0
    baseline: tuple[str, str, int] | None = None
    required: float | None = None
    published: str = ""
    source: str = ""


DD, DC, DSA = "Wang et al. 2018", "authors' repository", "Zhao & Bilen 2021"
DM, DATADAM, FREPO = "Zhao & Bilen 2023", "Sajedi et al. 2023", "Zhou et al. 2022"
MTT, RAT, NCFM = "Cazenavette et al. 2022", "Feng et al. 2024", "Wang et al. 2025"

ROWS = (
    Row("MNIST IPC 1, dd, one initialisation", "dd", 1, "mnist-dd-1", 5, None, 92, "93.8", DD),
    Row("MNIST IPC 10, dd, random initialisations", "dd", 5, "mnist-dd-10", 30, None, 80, "79.5 ± 8.1", DD),
    Row("CIFAR-10 IPC 10, rat", "rat", 3, "cifar10-rat-10", 15, None, 41, "69.4 ± 0.4", RAT),
    Row("MNIST IPC 1, dc", "dc", 5, "mnist-dc-1", 15, None, 90, "91.7", DC),
    Row("MNIST IPC 10, dc", "dc", 3, "mnist-dc-10", 15, None, 96, "97.4", DC),
    Row("CIFAR-10 IPC 1, dsa", "dsa", 5, "cifar10-dsa-1", 12, None, 27, "28.8 ± 0.7", DSA),
    Row("CIFAR-10 IPC 10, dsa", "dsa", 3, "cifar10-dsa-10", 30, None, 46, "52.1 ± 0.5", DSA),
    Row("MNIST IPC 10, dm", "dc", 3, "mnist-dm-10", 10, None, 96.5, "97.5 ± 0.1", DM),
    Row("CIFAR-10 IPC 10, dm", "dsa", 3, "cifar10-dm-10", 10, None, 46, "48.9 ± 0.6", DM),
    Row("CIFAR-10 IPC 50, dm", "dsa", 1, "cifar10-dm-50", 10, None, 58, "63.0 ± 0.4", DM),
    Row("CIFAR-10 IPC 10, datadam", "dsa", 3, "cifar10-datadam-10", 20, None, 48, "54.2 ± 0.8", DATADAM),
    Row("MNIST IPC 1, frepo", "frepo", 3, "mnist-frepo-1", 10, None, 92, "93.0", FREPO),
    Row("MNIST IPC 10, frepo", "frepo", 2, "mnist-10", 10, None, 98, "98.6", FREPO),
    Row("CIFAR-10 IPC 1, frepo", "frepo", 3, "cifar10-frepo-1", 10, None, 42, "46.8 ± 0.7", FREPO),
    Row("CIFAR-10 IPC 10, frepo", "frepo", 2, "cifar10-frepo-10", 30, None, 60, "65.5 ± 0.4", FREPO),
    Row("CIFAR-10 IPC 50, frepo", "frepo", 1, "cifar10-frepo-50", 30, None, 66, "71.7 ± 0.2", FREPO),
    Row("CIFAR-10 IPC 1, mtt, small experts", "mtt", 3, "cifar10-mtt-1", 45, None, 33, "46.3 ± 0.8", MTT),
    Row("MNIST IPC 1, random real", "dc", 5, baseline=("mnist", "random", 1), published="64.9 ± 3.5", source=DC),
    Row("MNIST IPC 10, random real", "dc", 3, baseline=("mnist", "random", 10), published="95.1 ± 0.9", source=DC),
    Row("CIFAR-10 IPC 1, random real", "dsa", 5, baseline=("cifar10", "random", 1), published="15.4", source=NCFM),
    Row("CIFAR-10 IPC 10, random real", "dsa", 3, baseline=("cifar10", "random", 10), published="31.0", source=NCFM),
    Row("CIFAR-10 IPC 50, random real", "dsa", 1, baseline=("cifar10", "random", 50), published="50.6", source=NCFM),
)


class Kept:
    """What was measured so far, in one file that survives an interruption."""

    def __init__(self, path: Path):
        self.path = path
        self.values: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}

    def get(self, key: str, make: Any) -> Any:
        """The value under ``key``, made now unless it is there."""
        if key not in self.values:
            print(f"… {key}", file=sys.stderr, flush=True)
            self.values[key] = make()
            aside = self.path.with_suffix(".part")
            aside.write_text(json.dumps(self.values, indent=1))
            os.replace(aside, self.path)
        return self.values[key]


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


def distilled(values: dict[str, Any], title: str) -> dict[str, Any]:
    """A run with these values: one of this title that was cut short goes on, else a new one."""
    for run in engine("runs", "list", "--limit", 1000):
        if run["title"] == title and run["status"] in ("interrupted", "paused", "failed"):
            return engine("runs", "resume", run["id"])
    return engine("distill", "--title", title, *flags(values))


def measure(row: Row, kept: Kept) -> dict[str, Any]:
    """Distil (or select) and evaluate one row; the distilled set and each half is kept by itself."""
    if row.baseline:
        dataset, kind, ipc = row.baseline
        source = kept.path.parent / "results" / f"{dataset}-{kind}-{ipc}"
        source.parent.mkdir(parents=True, exist_ok=True)
        command = ["baseline", "--dataset", dataset, "--kind", kind, "--ipc", ipc, "--out", source]
        made = kept.get(f"{row.name}: images", lambda: engine(*command))
    else:
        values = {**PRESETS[row.preset].values, "minutes": row.minutes, "students": 0}
        made = kept.get(f"{row.name}: images", lambda: distilled(values, f"Results: {row.name}"))
        dataset, source = values["dataset"], made["run"]
    command = ["evaluate", source, "--dataset", dataset, "--protocol", row.protocol, "--seeds", row.students]
    tested = kept.get(f"{row.name}: students", lambda: engine(*command))
    return {"seconds": made.get("seconds"), "steps": made.get("steps"), **{f"test_{k}": v for k, v in tested.items()}}


def table(found: dict[str, dict[str, Any]], machine: str) -> str:
    """The finished rows as a Markdown table."""
    lines = [
        f"{machine}; {time.strftime('%Y-%m-%d')}; one run with seed 0 a row; mean ± standard deviation over students",
        "",
        "| | budget | steps | protocol | students | accuracy, % | required | published, % | source |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for row in ROWS:
        if row.name in found:
            r = found[row.name]
            spread = f" ± {100 * r['test_std']:.1f}" if row.students > 1 else ""
            budget, steps = (f"{row.minutes:g} min", f"{r['steps']:,}") if row.preset else ("", "")
            needed = f"{row.required:g}" if row.required else ""
            cells = (row.name, budget, steps, row.protocol, row.students, f"{100 * r['test_mean']:.1f}{spread}", needed)
            lines.append("| " + " | ".join(map(str, (*cells, row.published, row.source))) + " |")
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="*", default=None, help="presets or row names to measure")
    parser.add_argument("--out", type=Path, default=None)
    args = parser.parse_args()
    kept = Kept(args.out or limbeck_home() / "results.json")
    found = {}
    machine = kept.get("machine", lambda: engine("bench", "--only", "machine")["machine"])
    for row in ROWS:
        if args.only and row.name not in args.only and row.preset not in args.only:
            continue
        try:
            found[row.name] = measure(row, kept)
        except subprocess.CalledProcessError as error:
            sys.exit(f"{' '.join(map(str, error.cmd[3:]))} failed.")
        kept.path.with_suffix(".md").write_text(table(found, machine))
    print(table(found, machine))


if __name__ == "__main__":
    main()
