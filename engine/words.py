"""What ids are called, and what a run was, in the words of pages, captions and reports (torch-free)."""

from __future__ import annotations

import shlex
from collections.abc import Container
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from engine.data.catalogue import DATASETS, FOLDER
from engine.methods import METHODS
from engine.spec import SPECS
from engine.students.protocols import PROTOCOLS, TRAINING
from engine.table import Parameter, parameters

WORDS: dict[str, dict[str, str]] = {
    "init": {"real": "real images", "noise": "noise", "mean": "class means", "kmeans": "k-means centres"},
    "network": {"convnet": "ConvNet", "convnet-wide": "wide ConvNet", "lenet": "LeNet", "mlp": "MLP"},
    "method": {m.id: m.name for m in METHODS.values()},
    "protocol": {"auto": "the method's own", **{p.name: p.title for p in PROTOCOLS.values()}},
    "device": {"auto": "the fastest here", "cpu": "CPU", "cuda": "CUDA", "mps": "MPS"},
}
BASELINE_NAMES = {
    "random": "Random real images",
    "optimised": "Optimised real images",
    "kmeans": "k-means centres",
    "kmeans-real": "k-means, nearest real images",
    "average": "Class averages",
    "herding": "Herding",
    "kcenter": "k-center",
    "ccs": "Coverage-centric (CCS)",
    "forgetting": "Most forgotten",
    "el2n": "Largest early errors (EL2N)",
}
COMMANDS = {
    "distill": "distill",
    "baseline": "baseline",
    "soften": "soften",
    "edit": "edit",
}  # those that make a set anew
NAMED = ("dataset", "method", "kind", "ipc", "seed")  # said by a command also where they are the defaults
UNASKED = {"distill": {"students": 0}, "baseline": {"students": 0}}  # defaults of the command line that differ


def dataset_title(name: str) -> str:
    """A dataset as people call it."""
    if name in DATASETS:
        return DATASETS[name].title
    return f"Your images: {Path(name.removeprefix(FOLDER)).stem}" if name.startswith(FOLDER) else name


def made(kind: str, spec: dict[str, Any], dataset: str) -> str:
    """What a run is, in a line: “Gradient matching on MNIST, 1 image per class”."""
    if kind not in ("distill", "baseline"):
        what = {"soften": "A set with soft labels", "edit": "An edited set"}.get(kind, "An imported set")
        return f"{what} for {dataset_title(dataset)}"
    name = METHODS[spec["method"]].name if kind == "distill" else BASELINE_NAMES[spec["kind"]]
    return f"{name} on {dataset_title(dataset)}, {count(spec['ipc'], 'image')} per class"


def accuracy(evaluation: dict[str, Any]) -> str:
    """Mean and spread in percent: “82.4 ± 0.6 %”; of a single student without a spread."""
    spread = f" ± {100 * evaluation['std']:.1f}" if len(evaluation["accuracies"]) > 1 else ""
    return f"{100 * evaluation['mean']:.1f}{spread} %"


def under(evaluation: dict[str, Any]) -> str:
    """What a number was measured under: “DC protocol, ConvNet, 3 students”."""
    protocol, network = evaluation["protocol"], evaluation["network"]
    title = TRAINING[protocol].title if protocol in TRAINING else protocol
    students = count(len(evaluation["accuracies"]), "student")
    return f"{title} protocol, {WORDS['network'].get(network, network)}, {students}"


def measured(evaluation: dict[str, Any]) -> str:
    """An accuracy with all it takes to be believed, in a line."""
    on = "test" if evaluation.get("split", "test") == "test" else "held-out"
    return f"{accuracy(evaluation)} {on} accuracy ({under(evaluation)})"


def count(number: int, what: str) -> str:
    """“1 image”, “2,000 images”."""
    return f"{number:,} {what}{'' if number == 1 else 's'}"


def duration(seconds: float) -> str:
    """Seconds as people say them."""
    if seconds < 90:
        return f"{seconds:.0f} s" if seconds >= 10 else f"{seconds:.1f} s"
    return f"{seconds / 60:.1f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


# ---- settings -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Setting:
    """One field of a spec: its label, its value in words, and what it means. ``usual``: the value is the default."""

    label: str
    value: str
    help: str
    usual: bool


def settings(kind: str, spec: dict[str, Any]) -> list[Setting]:
    """Every field of a run's spec that had a say in it, the run's own first, then the method's."""
    return [
        Setting(row.label, said(row, value, kind), row.help, value == row.default)
        for row, value in _rows(kind, spec)
        if value is not None and _matters(row.name, spec)
    ]


def values(kind: str, spec: dict[str, Any], names: Container[str]) -> list[str]:
    """Some fields of a spec, each as “Label: value”."""
    return [f"{row.label}: {said(row, value, kind)}" for row, value in _rows(kind, spec) if row.name in names]


def said(row: Parameter, value: Any, kind: str = "distill") -> str:
    """The value of a field, of a spec of that kind, in words."""
    if value is None:
        return "none"
    if row.name == "dataset":
        return dataset_title(value)
    if row.kind == "bool":
        return "yes" if value else "no"
    if kind == "baseline" and row.name == "kind":
        return BASELINE_NAMES[value]
    if isinstance(value, float):
        return f"{value:g}"
    return WORDS.get(row.name, {}).get(value, f"{value:,}" if isinstance(value, int) else str(value))


def command(kind: str, spec: dict[str, Any]) -> str:
    """The command that makes a run anew, with what differs from the command line's defaults; empty for an import."""
    if kind not in COMMANDS:
        return ""
    parts = ["python", "-m", "engine", COMMANDS[kind]]
    if kind == "edit":
        return shlex.join([*parts, spec["source"], *spec["edits"].split(), "--save"])
    if kind == "soften":
        parts.append(spec["source"])
    fork = spec.get("fork")
    if fork:
        parts[3:] = ["fork", fork["run"], "--at", str(fork["step"])]
    for row, value in _rows(kind, spec):
        usual = UNASKED.get(kind, {}).get(row.name, row.default)
        if (kind, row.name) == ("soften", "source") or value is None:
            continue
        if row.name not in fork["changed"] if fork else value == usual and row.name not in NAMED:
            continue
        flag = row.name.replace("_", "-")
        if row.kind == "bool":
            parts.append(f"--{flag}" if value else f"--no-{flag}")
        else:
            parts += [f"--{flag}", _plain(value)]
    return shlex.join(parts)


def _plain(value: Any) -> str:
    """A value as a flag takes it, every digit of it."""
    return repr(value).removesuffix(".0") if isinstance(value, float) else str(value)


def _rows(kind: str, spec: dict[str, Any]) -> list[tuple[Parameter, Any]]:
    """The rows of a kind's table with a spec's values; a distillation's own parameters at the end."""
    rows = [(row, spec.get(row.name, row.default)) for row in parameters(SPECS[kind])]
    if kind == "distill":
        own = spec.get("parameters", {})
        rows += [(row, own.get(row.name, row.default)) for row in parameters(METHODS[spec["method"]].parameters)]
    return rows


def _matters(name: str, spec: dict[str, Any]) -> bool:
    """Whether a field had a say, whatever its value."""
    network = spec.get("network")
    if name == "size":
        return str(spec.get("dataset", "")).startswith(FOLDER)
    if name == "width":
        return network in (None, "convnet", "convnet-wide")
    if name == "depth":
        return network in (None, "convnet")
    return name != "never_learned" or spec.get("kind") == "forgetting"
