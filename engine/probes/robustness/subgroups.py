"""Groups of test images by class and background colour: who is left behind?

An average hides groups in which a student fails. Groups here are class × background colour, the mean colour of an
image's border, sorted into a few by k-means. Reported are the worst group's accuracy (Sagawa et al., "Distributionally
Robust Neural Networks", ICLR 2020) and the spread over groups: the standard deviation of the groups' accuracies, all
groups counting the same ("MacroStd"). Small groups vary by chance, and the worst of many is always low, so that both
stand beside what the same answers give when colours are shuffled within classes.
"""

from __future__ import annotations

import colorsys
from typing import Any

import numpy as np
import torch
from sklearn.cluster import KMeans
from torch import Tensor

from engine.errors import Refused
from engine.probes.answerer import Work
from engine.probes.desk import Answer
from engine.probes.robustness.common import about, drawn, same_dataset, share, sheet
from engine.probes.robustness.specs import SubgroupsSpec


def answer(spec: SubgroupsSpec, work: Work) -> Answer:
    """Tables ``groups`` (a row per student, class and colour), ``summary`` (a row per student) and ``colours``; a
    picture of examples, one row a colour."""
    students, data = same_dataset(spec.students, work)
    images, labels, _ = drawn(data.test_images, data.test_labels, spec.images, spec.seed)
    work.tell(0.05, "Sorting backgrounds by colour.")
    groups, centres = background_groups(images, spec.colours, spec.border, spec.seed)
    names = _names(centres)
    sizes = (labels * len(names) + groups).bincount()
    if int(sizes.max()) < spec.smallest:
        raise Refused(
            f"No group has {spec.smallest} images, the largest {int(sizes.max())}; look at more test images, choose "
            "fewer colours, or lower the smallest group."
        )

    table: list[dict[str, Any]] = []
    summary: list[dict[str, Any]] = []
    for i, student in enumerate(students):
        said = []
        for part in images.split(250):
            said.append(student.logits(part).argmax(1))
            done = 250 * len(said) / len(images)
            work.tell(0.1 + 0.9 * (i + min(done, 1)) / len(students), f"Asking {student.name}.")
        right = torch.cat(said) == labels
        for c, name in enumerate(data.classes):
            for k, colour in enumerate(names):
                mine = (labels == c) & (groups == k)
                counts = share(int(right[mine].sum()), int(mine.sum()))
                judged = counts["images"] >= spec.smallest
                table.append({**about(student), "class": name, "colour": colour, "judged": judged, **counts})
        summary.append({**about(student), **_judge(right, labels, groups, data.classes, names, spec)})
    examples = [images[groups == k][:12] for k in range(len(names))]
    colours = [
        {
            "colour": name,
            "hex": "#" + "".join(f"{round(v):02x}" for v in _rgb(centre)),
            "images": int((groups == k).sum()),
        }
        for k, (name, centre) in enumerate(zip(names, centres, strict=True))
    ]
    picture = work.picture("backgrounds", sheet(examples), 2)
    facts = {"dataset": data.name, "images": len(images), "smallest": spec.smallest, "classes": list(data.classes)}
    left_out = sum(not row["judged"] for row in table) // len(students)
    notes = [
        "The worst of many groups is low by chance alone: read it beside the value expected from shuffled colours."
    ]
    if left_out:
        notes.append(f"{left_out} groups have fewer than {spec.smallest} images and are judged by nothing.")
    return Answer(
        {"summary": summary, "groups": table, "colours": colours}, facts, {"backgrounds": picture}, tuple(notes)
    )


def background_groups(images: Tensor, colours: int, border: int, seed: int) -> tuple[Tensor, np.ndarray]:
    """For uint8 images (N, C, H, W): the group (N,) of each, and the groups' colours (colours, C) in 0..255, from dark
    to light. The background is the outermost ``border`` pixels; k-means sorts their mean colours. Raises ``Refused``
    where borders have fewer colours than asked for."""
    size = images.shape[-1]
    if 2 * border >= size:
        raise Refused(f"A border of {border} pixels leaves nothing of images of {size}; choose a thinner one.")
    frame = torch.ones(size, size, dtype=torch.bool)
    frame[border:-border, border:-border] = False
    means = images[:, :, frame].float().mean(2).numpy()
    if len(np.unique(means.round(1), axis=0)) < colours:
        raise Refused(
            f"The backgrounds of these images have fewer than {colours} colours; choose fewer, or a dataset of "
            "photographs."
        )
    made = KMeans(colours, n_init=4, random_state=seed).fit(means)
    order = made.cluster_centers_.mean(1).argsort()
    rank = np.empty(colours, int)
    rank[order] = np.arange(colours)
    return torch.from_numpy(rank[made.labels_]).long(), made.cluster_centers_[order]


def spread(right: Tensor, cells: Tensor, smallest: int = 1) -> tuple[float, float, int]:
    """Over the cells (N,) of answers (N,) bool with at least ``smallest`` images: the lowest accuracy, the standard
    deviation of accuracies, and the number of the worst cell."""
    size = cells.bincount()
    hits = cells.bincount(weights=right.double())
    judged = torch.nonzero(size >= smallest).flatten()
    accuracies = hits[judged] / size[judged]
    worst = int(accuracies.argmin())
    return float(accuracies[worst]), float(accuracies.std(correction=0)), int(judged[worst])


def _judge(
    right: Tensor, labels: Tensor, groups: Tensor, classes: tuple[str, ...], names: list[str], spec: SubgroupsSpec
) -> dict[str, Any]:
    """A student's row of the summary."""
    cells = labels * len(names) + groups
    size = cells.bincount(minlength=len(classes) * len(names))
    judged = torch.nonzero(size >= spec.smallest).flatten()
    accuracies = cells.bincount(weights=right.double(), minlength=len(size))[judged] / size[judged]
    worst, deviation, cell = spread(right, cells, spec.smallest)
    generator = torch.Generator().manual_seed(spec.seed)
    chance = [
        spread(right, labels * len(names) + _shuffled(groups, labels, generator), spec.smallest)
        for _ in range(spec.shuffles)
    ]
    worsts, deviations = (torch.tensor([c[i] for c in chance]) for i in range(2))
    low, high = (share(int(right[cells == cell].sum()), int(size[cell]))[end] for end in ("low", "high"))
    return {
        "average": float(right.double().mean()),
        "macro_mean": float(accuracies.mean()),
        "worst": worst,
        "worst_low": low,
        "worst_high": high,
        "worst_group": f"{classes[cell // len(names)]} on {names[cell % len(names)]}",
        "worst_by_chance": float(worsts.double().mean()),
        "macro_std": deviation,
        "macro_std_by_chance": float(deviations.double().mean()),
        # The share of regroupings with a spread as large, the one seen among them (Phipson & Smyth 2010)
        "p": (1 + int((deviations >= deviation - 1e-12).sum())) / (1 + spec.shuffles),
        "groups": len(judged),
        "images": len(right),
    }


def _shuffled(groups: Tensor, labels: Tensor, generator: torch.Generator) -> Tensor:
    """Colours dealt anew among the images of each class."""
    out = groups.clone()
    for c in labels.unique():
        members = torch.nonzero(labels == c).flatten()
        out[members] = groups[members[torch.randperm(len(members), generator=generator)]]
    return out


def _rgb(centre: np.ndarray) -> list[float]:
    """A colour of one or three channels as red, green and blue in 0..255."""
    return [float(v) for v in (centre if len(centre) == 3 else np.repeat(centre, 3))]


def _names(centres: np.ndarray) -> list[str]:
    """What people call the colours, numbered where two are called the same."""
    names = [_name(*(v / 255 for v in _rgb(centre))) for centre in centres]
    return [n if names.count(n) == 1 else f"{n} {names[: i + 1].count(n)}" for i, n in enumerate(names)]


def _name(red: float, green: float, blue: float) -> str:
    hue, saturation, value = colorsys.rgb_to_hsv(red, green, blue)
    if value < 0.15:
        return "black"
    if saturation < 0.12:
        return "dark grey" if value < 0.4 else "grey" if value < 0.65 else "light grey" if value < 0.88 else "white"
    hues = ("red", "orange", "yellow", "green", "green", "green", "cyan", "blue", "blue", "violet", "magenta", "red")
    tone = "dark " if value < 0.4 else "pale " if value > 0.7 and saturation < 0.4 else ""
    return tone + hues[round(hue * 12) % 12]
