"""Probe ``quality``: how good are the maps themselves?

Infidelity and max-sensitivity (Yeh et al., "On the (In)fidelity and Sensitivity of Explanations", NeurIPS 2019), and
deletion and insertion curves (Petsiuk, Das & Saenko, "RISE", BMVC 2018).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import torch
from captum.metrics import infidelity, sensitivity_max
from torch import Tensor

from engine.accel import seeded
from engine.data.base import Dataset
from engine.errors import Refused
from engine.probes.answerer import Work
from engine.probes.attribution import figures
from engine.probes.attribution.asked import asked_students, data_of, described, drawn_tests, who
from engine.probes.attribution.figures import plain
from engine.probes.attribution.methods import Pixels, attribute, blurred, check, to_maps
from engine.probes.attribution.specs import METHOD_INFO, AttributionSpec, QualitySpec
from engine.probes.desk import Answer
from engine.students.kept import Student

MOST = 5  # methods
AT_ONCE = 4  # images
RADIUS = 0.02  # by which sensitivity changes pixels, of their range
RANDOM = "random"  # pixels in random order, as a method

METRICS = {
    "infidelity": {
        "name": "Infidelity",
        "better": "lower",
        "about": "How far off a map is when it predicts how the logit changes as a random square is blurred, in "
        "squared logits; the map is first scaled as suits it best. Students with larger logits have larger values.",
    },
    "unexplained": {
        "name": "Unexplained change",
        "better": "lower",
        "about": "Infidelity over the mean squared change of the logit: 0 for a map that predicts every change, 1 for "
        "one that predicts nothing. It compares across students.",
    },
    "sensitivity": {
        "name": "Max-sensitivity",
        "better": "lower",
        "about": f"The largest relative change of a map when each pixel changes by up to {RADIUS:.0%} of its range. A "
        "map that ignores image and student has 0.",
    },
    "deletion": {
        "name": "Deletion",
        "better": "lower",
        "about": "Area under the probability of the answer as pixels are blurred, the most important first.",
    },
    "insertion": {
        "name": "Insertion",
        "better": "higher",
        "about": "Area under the probability of the answer as pixels return into the blurred image, the most important "
        "first.",
    },
}


def answer(spec: QualitySpec, work: Work) -> Answer:
    """See ``QualitySpec``."""
    methods = asked_methods(spec.methods)
    students = asked_students(work, spec.students)
    data = data_of(students[0], work)
    chosen = drawn_tests(data, spec.images, spec.seed)
    pixels, labels = data.test_images[chosen].float() / 255, data.test_labels[chosen]
    shares = np.linspace(0, 1, spec.points + 1)

    rows: list[dict[str, Any]] = []
    curves: list[dict[str, Any]] = []
    skipped: list[str] = []
    parts = pixels.split(AT_ONCE)
    total = len(students) * len(methods) * len(parts)
    done = 0
    for student in students:
        device = next(student.module.parameters()).device
        targets = student.logits(pixels).argmax(1) if spec.target == "predicted" else labels
        orders = [np.random.default_rng(spec.seed + i).permutation(data.size**2) for i in range(len(pixels))]
        reference = _curves(student, pixels, targets, orders, shares)
        _report(rows, curves, student, RANDOM, reference, shares, spec.seed)
        for method in methods:
            asked = AttributionSpec.model_validate({"students": student.id, "method": method, "seed": spec.seed})
            if why := check(method, student, asked):
                skipped.append(f"{student.name}: {why}")
                done += len(parts)
                continue
            found: dict[str, list[np.ndarray]] = {"infidelity": [], "unexplained": [], "sensitivity": []}
            orders = []
            for part, target in zip(parts, targets.split(AT_ONCE), strict=True):
                beat = partial(
                    work.tell, 0.1 + 0.9 * done / total, f"Testing {METHOD_INFO[method].name} on {student.name}."
                )
                done += 1
                x, y = part.to(device), target.to(device)
                attribution = attribute(student, x, y, asked, data, beat)
                maps = to_maps(method, attribution)
                orders += [np.argsort(-m.ravel(), kind="stable") for m in maps]
                raw, share = infidelities(student, x, y, attribution, method, spec.perturbations, spec.seed)
                found["infidelity"].append(raw)
                found["unexplained"].append(share)
                found["sensitivity"].append(_sensitivity(student, x, y, asked, data, spec.perturbations, beat))
            for metric, values in found.items():
                rows.append(_row(student, method, metric, np.concatenate(values), spec.seed))
            _report(rows, curves, student, method, _curves(student, pixels, targets, orders, shares), shares, spec.seed)
    facts = {"students": described(students), "metrics": METRICS, "skipped": skipped, "indices": chosen.tolist()}
    notes = [
        *dict.fromkeys(skipped),
        f"Means over {len(pixels)} test images with 95 % bootstrap intervals. What is taken away is blurred, not "
        "blackened, so that images stay of the kind that the students know.",
    ]
    return Answer({"quality": rows, "curves": curves}, facts, {}, tuple(notes))


def asked_methods(text: str) -> list[str]:
    """Ids of methods, separated by commas. Raises ``Refused``."""
    names = list(dict.fromkeys(filter(None, (part.strip() for part in text.split(",")))))
    for name in names:
        if name not in METHOD_INFO:
            raise Refused(f"There is no method “{name[:60]}”; choose from {', '.join(METHOD_INFO)}.")
    if not 1 <= len(names) <= MOST:
        raise Refused(f"Name 1 to {MOST} methods, separated by commas, not {len(names)}.")
    return names


# ---- infidelity and sensitivity --------------------------------------------------------------------------------------


def infidelities(
    student: Student, pixels: Tensor, targets: Tensor, attribution: Tensor, method: str, count: int, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """For each image, E[(Σ β I·Φ - (f(x) - f(x - I)))²] with the best β, and that over E[(f(x) - f(x - I))²].

    Yeh et al. 2019, definition 2.1, with their square removal: a random square of a quarter to a half of the side is
    blurred. Φ of methods that give gradients is multiplied by the change of the pixels, that of the others, which
    attribute the presence of pixels, by 1 where they are removed.
    """
    model = Pixels(student)
    local = method == "saliency"

    def measured(values: Tensor, normalise: bool) -> np.ndarray:
        generator = torch.Generator().manual_seed(seed)

        def perturb(inputs: Tensor) -> tuple[Tensor, Tensor]:
            removed = squares(len(inputs), inputs.shape[-1], generator).to(inputs.device)
            changed = torch.where(removed, blurred(inputs), inputs)
            return (inputs - changed if local else removed.expand_as(inputs).to(inputs)), changed

        out = infidelity(model, perturb, pixels, values, target=targets, n_perturb_samples=count, normalize=normalise)
        return out.detach().cpu().double().numpy()

    unexplained, change = measured(attribution, True), measured(torch.zeros_like(attribution), False)
    return unexplained, np.where(change > 0, unexplained / np.where(change > 0, change, 1), np.nan)


def squares(count: int, size: int, generator: torch.Generator) -> Tensor:
    """Masks (count, 1, size, size) bool of one random square each, of a quarter to a half of the side."""
    sides = torch.randint(size // 4, size // 2 + 1, (count,), generator=generator)
    corners = (torch.rand(count, 2, generator=generator) * (size - sides + 1)[:, None]).long()
    places = torch.arange(size)
    inside = (places >= corners[..., None]) & (places < (corners + sides[:, None])[..., None])  # (count, 2, size)
    return (inside[:, 0, :, None] & inside[:, 1, None, :]).unsqueeze(1)


def _sensitivity(
    student: Student,
    pixels: Tensor,
    targets: Tensor,
    asked: AttributionSpec,
    data: Dataset,
    count: int,
    beat: Callable[[], object],
) -> np.ndarray:
    """For each image the largest ‖map(x + δ) - map(x)‖ / ‖map(x)‖ over random δ (definition 2.2, relative)."""

    def explain(inputs: Tensor | tuple[Tensor, ...], target: Tensor) -> tuple[Tensor]:
        x = inputs[0] if isinstance(inputs, tuple) else inputs
        return (torch.from_numpy(to_maps(asked.method, attribute(student, x, target, asked, data, beat))),)

    with seeded(asked.seed):
        out = sensitivity_max(
            explain,
            pixels,
            perturb_radius=RADIUS,
            n_perturb_samples=count,
            target=targets,
            max_examples_per_batch=min(40, count * len(pixels)),
        )
    return out.detach().cpu().double().numpy()


# ---- deletion and insertion ------------------------------------------------------------------------------------------


def _curves(
    student: Student, pixels: Tensor, targets: Tensor, orders: list[np.ndarray], shares: np.ndarray
) -> dict[str, np.ndarray]:
    """``deletion`` and ``insertion``: probabilities (N, P) of the targets."""
    out: dict[str, list[np.ndarray]] = {"deletion": [], "insertion": []}
    for image, target, order in zip(pixels, targets.tolist(), orders, strict=True):
        for curve, values in deleted(image, order, shares).items():
            out[curve].append(student.logits(values).double().softmax(1)[:, target].numpy())
    return {curve: np.stack(values) for curve, values in out.items()}


def deleted(image: Tensor, order: np.ndarray, shares: np.ndarray) -> dict[str, Tensor]:
    """The images (P, C, H, W) of a deletion and of an insertion curve: the first ``shares`` of the pixels in ``order``
    are blurred, or are all that is not."""
    rank = np.empty(len(order), int)
    rank[order] = np.arange(len(order))
    first = rank[None, :] < np.round(shares * len(order))[:, None]
    first_pixels = torch.from_numpy(first).view(len(shares), 1, *image.shape[1:])
    base = blurred(image[None])
    return {
        "deletion": torch.where(first_pixels, base, image[None]),
        "insertion": torch.where(first_pixels, image[None], base),
    }


def _report(
    rows: list[dict[str, Any]],
    curves: list[dict[str, Any]],
    student: Student,
    method: str,
    found: dict[str, np.ndarray],
    shares: np.ndarray,
    seed: int,
) -> None:
    """Add the areas and the points of the curves to the tables."""
    for curve, values in found.items():
        rows.append(_row(student, method, curve, figures.area_under(shares, values), seed))
        for point, share in enumerate(shares):
            mean, low, high = figures.bootstrap_interval(values[:, point], seed)
            curves.append(
                {
                    **who(student),
                    "method": method,
                    "curve": curve,
                    "share": plain(float(share)),
                    "probability": plain(mean),
                    "low": plain(low),
                    "high": plain(high),
                }
            )


def _row(student: Student, method: str, metric: str, values: np.ndarray, seed: int) -> dict[str, Any]:
    mean, low, high = figures.bootstrap_interval(values, seed)
    return {
        **who(student),
        "method": method,
        "metric": metric,
        "mean": plain(mean),
        "low": plain(low),
        "high": plain(high),
        "n": int((~np.isnan(values)).sum()),
    }
