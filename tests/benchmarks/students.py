"""What students of a few images learned, beside students of random real images and of all images: prints tables.

    LIMBECK_DATA=… python tests/benchmarks/students.py [--dataset mnist …] [--set mnist=RUN …] [--seeds N]

For each dataset: a distilled set (a preset is distilled unless a run is named with --set), random real images of as
many per class, and all training images; SEEDS students of each, ConvNets of width 128, the first two under the set's
protocol. Then shape bias, agreement of their maps, corruptions and attacks, and accuracies with other networks.
Students and answers are kept in LIMBECK_HOME, so that an interrupted table goes on where it was. Intervals are 95 % of
Student's t over the students; differences are tested with Welch's t. On two cores MNIST takes about an hour, CIFAR-10
about three.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
from itertools import product
from pathlib import Path
from typing import Any

from scipy import stats

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from engine.home import limbeck_home  # noqa: E402
from engine.presets import PRESETS  # noqa: E402
from tests.benchmarks.results import Kept, engine, flags  # noqa: E402

# dataset: preset that is distilled, protocol of the small sets, source of cue-conflict stimuli, epochs on all images
PLANS = {"mnist": ("mnist-dc-1", "dc", "auto", 3), "cifar10": ("cifar10-dm-10", "dc", "geirhos", 5)}
SOURCES = {"distilled": "distilled", "random": "random real", "full": "all images"}
NETWORKS = ("mlp", "lenet", "alexnet", "vgg11", "resnet18", "vit")


def interval(values: list[float], scale: float = 100, digits: int = 1) -> str:
    """Mean and half the 95 % interval of Student's t."""
    mean = statistics.fmean(values)
    if len(values) < 2:
        return f"{scale * mean:.{digits}f} (one)"
    half = stats.t.ppf(0.975, len(values) - 1) * statistics.stdev(values) / len(values) ** 0.5
    return f"{scale * mean:.{digits}f} ± {scale * half:.{digits}f}"


def difference(a: list[float], b: list[float]) -> str:
    """Whether two groups of students differ, in words."""
    if len(a) < 2 or len(b) < 2 or len({*a, *b}) == 1:
        return ""
    p = float(stats.ttest_ind(a, b, equal_var=False).pvalue)
    return ("p < 0.001" if p < 0.001 else f"p = {p:.3f}") + ("" if p < 0.05 else ", not significant")


def measure(dataset: str, source: str | None, seeds: int, networks: list[str], kept: Kept) -> None:
    """Everything about one dataset, printed as tables."""
    preset, protocol, stimuli, epochs = PLANS[dataset]
    values = PRESETS[preset].values
    ipc = values["ipc"]
    run = source or kept.get(f"{dataset} set", lambda: engine("distill", *flags({**values, "students": 0}))["run"])
    trained = {
        "distilled": ["--source", run, "--protocol", protocol],
        "random": ["--source", "random", "--ipc", ipc, "--protocol", protocol],
        "full": ["--source", "full", "--epochs", epochs],
    }
    students: dict[str, list[dict[str, Any]]] = {kind: [] for kind in SOURCES}
    for seed, kind in product(range(seeds), SOURCES):
        command = ["student", "train", "--dataset", dataset, "--seed", seed, *trained[kind]]
        students[kind].append(kept.get(f"{dataset} {kind} {seed}", lambda c=command: engine(*c)))
    ids = {kind: [s["run"] for s in found] for kind, found in students.items()}
    everybody = [id for found in ids.values() for id in found]

    bias, robust = {}, {}
    for kind, found in ids.items():  # one kind at a time: a probe takes only so many students
        who = ["--students", ",".join(found)]
        answer = kept.get(
            f"{dataset} bias of {kind}, {len(found)}",
            lambda who=who: engine("probe", "bias", *who, "--source", stimuli),
        )
        bias |= {row["id"]: row for row in answer["tables"]["observers"] if row.get("id")}
        answer = kept.get(
            f"{dataset} robustness of {kind}, {len(found)}",
            lambda who=who: engine("probe", "robustness", *who, "--images", 500, "--attacked", 200, "--searched", 0),
        )
        robust |= {row["student"]: row for row in answer["tables"]["summary"]}
    pairs = kept.get(
        f"{dataset} agreement {len(everybody)}",
        lambda: engine("probe", "agreement", "--students", ",".join(everybody)),
    )["tables"]["pairs"]

    print(f"\n### {dataset}, {ipc} per class, {seeds} students each, {protocol} protocol\n")
    print("| % | " + " | ".join(SOURCES.values()) + " | distilled and random | distilled and all |")
    print("|---|---|---|---|---|---|")
    rows = {
        "test accuracy": lambda id: next(s["accuracy"] for f in students.values() for s in f if s["run"] == id),
        "shape bias": lambda id: bias[id]["bias"],
        "its coverage": lambda id: bias[id]["coverage"],
        "accuracy under corruptions": lambda id: robust[id]["corrupted"],
        "share of accuracy kept": lambda id: robust[id]["kept"],
        "accuracy under PGD, radius 2/255": lambda id: robust[id]["pgd_1"],
        "accuracy under PGD, radius 8/255": lambda id: robust[id]["pgd_3"],
    }
    for name, value in rows.items():
        found = {kind: [v for v in map(value, ids[kind]) if v is not None] for kind in SOURCES}
        cells = [interval(found[kind]) if found[kind] else "none" for kind in SOURCES]
        tests = [difference(found["distilled"], found[other]) for other in ("random", "full")]
        print(f"| {name} | " + " | ".join(cells + tests) + " |")

    print(f"\n| rank correlation of maps, {dataset} | " + " | ".join(SOURCES.values()) + " |\n|---|---|---|---|")
    kind_of = {id: kind for kind, found in ids.items() for id in found}
    for a in SOURCES:
        cells = []
        for b in SOURCES:
            found = [p["rank_correlation"] for p in pairs if {kind_of[p["id_a"]], kind_of[p["id_b"]]} == {a, b}]
            cells.append(f"{statistics.fmean(found):.2f} ({min(found):.2f} to {max(found):.2f})" if found else "")
        print(f"| {SOURCES[a]} | " + " | ".join(cells) + " |")

    if not networks:
        return
    print(f"\n| accuracy of other networks, {dataset}, % | distilled | random real | |\n|---|---|---|---|")
    random_set = limbeck_home() / "results" / f"{dataset}-random-{ipc}"
    random_set.parent.mkdir(parents=True, exist_ok=True)
    kept.get(
        f"{dataset} random set",
        lambda: engine("baseline", "--dataset", dataset, "--kind", "random", "--ipc", ipc, "--out", random_set),
    )
    for network in networks:
        found = {}
        for kind, where in (("distilled", run), ("random", random_set)):
            command = ["evaluate", where, "--dataset", dataset, "--network", network, "--protocol", "dc"]
            key = f"{dataset} {kind} {network}"
            found[kind] = kept.get(key, lambda c=command: engine(*c, "--seeds", seeds))["accuracies"]
        a, b = found["distilled"], found["random"]
        print(f"| {network} | {interval(a)} | {interval(b)} | {difference(a, b)} |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset", nargs="*", default=list(PLANS), choices=list(PLANS))
    parser.add_argument("--set", nargs="*", default=[], help="dataset=RUN: a set that was distilled before")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--networks", nargs="*", default=list(NETWORKS), help="other networks to train; none: nothing")
    parser.add_argument("--out", type=Path, default=None)
    args = parser.parse_args()
    kept = Kept(args.out or limbeck_home() / "students.json")
    named = dict(text.split("=", 1) for text in args.set)
    for dataset in args.dataset:
        try:
            measure(dataset, named.get(dataset), args.seeds, args.networks, kept)
        except subprocess.CalledProcessError as error:
            sys.exit(f"{' '.join(map(str, error.cmd[3:]))} failed.")


if __name__ == "__main__":
    main()
