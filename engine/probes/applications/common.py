"""What the applications share: summaries over repeats, sentences about them, pictures, learned steps of descent."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from engine.baselines import make_baseline
from engine.data.base import Dataset
from engine.distill import make_distiller
from engine.errors import Refused
from engine.probes.answerer import Work
from engine.probes.robustness.common import sheet, t_interval
from engine.runs.imports import read_set
from engine.spec import build_spec
from engine.synthetic import SyntheticSet

Row = dict[str, Any]
HELD_OUT = 500_000_000  # seeds of pre-trained networks that no set was distilled with
SHOWN = 5  # images of a class in pictures of sets


# ---- over repeats ---------------------------------------------------------------------------------------------------


def summarise(rows: Iterable[Row], measures: Iterable[str], signed: Iterable[str] = ()) -> list[Row]:
    """A row for each ``way`` and measure: the mean over the rows of that way with Student's t interval.

    Shares end at 0 and 1, and so do their intervals; ``signed`` measures lie in [-1, 1].
    """
    rows, out = list(rows), []
    for way in dict.fromkeys(row["way"] for row in rows):
        for measure in measures:
            values = [row[measure] for row in rows if row["way"] == way]
            mean, low, high = t_interval(values)
            least = -1.0 if measure in signed else 0.0
            bounds = {"low": None if low is None else max(least, low), "high": None if high is None else min(1.0, high)}
            out.append({"way": way, "measure": measure, "mean": mean, **bounds, "repeats": len(values)})
    return out


def contrast(rows: Iterable[Row], measure: str, way: str, other: str) -> Row:
    """How much larger a measure is of one way than of another, within each repeat: mean, with its t interval."""
    found = {(row["repeat"], row["way"]): row[measure] for row in rows}
    repeats = sorted({repeat for repeat, kind in found if kind == way})
    mean, low, high = t_interval([found[r, way] - found[r, other] for r in repeats])
    return {
        "contrast": f"{way} - {other}", "measure": measure, "difference": mean, "low": low, "high": high,
        "repeats": len(repeats),
    }  # fmt: skip


def percent(row: Row, digits: int = 1) -> str:
    """A row of ``summarise`` in a sentence."""
    said = f"{100 * row['mean']:.{digits}f} %"
    if row["low"] is None:
        return said
    return f"{said} (95 %: {100 * row['low']:.{digits}f} to {100 * row['high']:.{digits}f})"


def points(row: Row) -> str:
    """A row of ``contrast`` in a sentence."""
    said = f"{100 * row['difference']:+.1f} points"
    if row["low"] is None:
        return said
    return f"{said} (95 %: {100 * row['low']:+.1f} to {100 * row['high']:+.1f})"


# ---- sets -----------------------------------------------------------------------------------------------------------


def enough(data: Dataset, ipc: int) -> None:
    """Raise ``Refused`` where a class has fewer than ``ipc`` images that methods may use."""
    least = min(len(members) for members in data.by_class)
    if ipc > least:
        raise Refused(f"The smallest class of {data.title} has {least} images; choose at most as many per class.")


def distilled(data: Dataset, ipc: int, steps: int, seed: int, work: Work, tell: Callable[[float], None], **more: Any
) -> SyntheticSet:  # fmt: skip
    """A set distilled of ``data`` by distribution matching; ``more``: further parameters of the run."""
    run = build_spec("distill", dataset=data.name, method="dm", ipc=ipc, steps=steps, seed=seed, **more)
    distiller = make_distiller("dm")
    distiller.setup(run, data, work.accel)
    for step in range(steps):
        distiller.progress = step / steps
        distiller.step()
        tell((step + 1) / steps)
    return distiller.synthetic()


def real_set(kind: str, data: Dataset, ipc: int, seed: int, work: Work) -> SyntheticSet:
    """Real images of ``data``, selected."""
    # Another seed than a distiller's, which starts from random real images, too
    return make_baseline(kind, data, ipc, seed=(seed + 500_000) % 2**31, accel=work.accel)


def asked_set(source: str, work: Work) -> SyntheticSet:
    """The set of a run, or of a file. Raises ``Refused``."""
    return read_set(work.store.result_folder(source) or Path(source).expanduser())


def picture(work: Work, name: str, chosen: SyntheticSet, scale: int = 2) -> str:
    """The first images of each class of a set, a column each, as a file of the answer; its name."""
    shown, labels = chosen.decoded().to_display(), chosen.decoded().hard_labels
    columns = [shown[labels == c][:SHOWN] for c in range(len(chosen.classes))]
    rows = min(len(column) for column in columns)
    return work.picture(name, sheet([[column[r] for column in columns] for r in range(rows)]), scale)


def accuracy(network: nn.Module, prepare: Callable[[Tensor], Tensor], images: Tensor, labels: Tensor) -> float:
    """Share of uint8 images that a network recognises; ``prepare`` brings them into its space."""
    return float((said(network, prepare, images) == labels).double().mean())


def said(network: nn.Module, prepare: Callable[[Tensor], Tensor], images: Tensor) -> Tensor:
    """Predicted classes (N,) of uint8 images, on the CPU."""
    device = next(network.parameters()).device
    with torch.no_grad():
        return torch.cat([network(prepare(part.to(device))).argmax(1).cpu() for part in images.split(500)])


def finish(slices: Generator[float, None, Any], tell: Callable[[float], None]) -> Any:
    """What a generator of fractions returns in the end; ``tell`` hears them, and may raise to stop."""
    while True:
        try:
            tell(next(slices))
        except StopIteration as end:
            return end.value


# ---- learned steps --------------------------------------------------------------------------------------------------


def descend(network: nn.Module, images: Tensor, labels: Tensor, rates: list[float]) -> nn.Module:
    """Plain gradient descent on cross-entropy, in place: a step of each size on all images."""
    for rate in rates:
        loss = F.cross_entropy(network(images), labels)
        gradients = torch.autograd.grad(loss, list(network.parameters()))
        with torch.no_grad():
            for parameter, gradient in zip(network.parameters(), gradients, strict=True):
                parameter.sub_(rate * gradient)
    return network


def unrolled(distiller: Any, steps: int, tell: Callable[[float, str], None]) -> SyntheticSet:
    """Take so many steps of a distiller that is set up; the set that comes of it."""
    for step in range(steps):
        distiller.progress = step / steps
        report = distiller.step()
        tell((step + 1) / steps, f"Distilling, step {step + 1:,} of {steps:,}, loss {report.loss:.3f}.")
    return distiller.synthetic()
