"""What a student has learned, put to use on another dataset: foretold by scores, and measured.

LEEP and NCE look at the student's answers to the target's images, H-score at its features. Beside them stands what
transfer really reaches: a logistic regression on the features as they are, and short fine-tuning of the whole network
from the student's weights and, for comparison, from random ones.
"""

from __future__ import annotations

import copy
import math
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import Tensor, nn

from engine.accel import seeded
from engine.data import load
from engine.data.base import Dataset
from engine.errors import Refused
from engine.networks import Network, make_network
from engine.probes.answerer import Work
from engine.probes.desk import Answer
from engine.probes.robustness.common import about, adapt, drawn, shape, share, spearman
from engine.probes.robustness.scores import h_score, leep, nce
from engine.probes.robustness.specs import TransferSpec
from engine.students.kept import Student, load_students

SCORES = {"leep": "LEEP", "nce": "NCE", "h_score": "H-score", "h_score_shrunk": "H-score, shrunk"}
REACHED = {"fixed": "Fixed features", "tuned": "Fine-tuned", "scratch": "From random weights"}
BATCH = 64


def answer(spec: TransferSpec, work: Work) -> Answer:
    """Tables ``students`` (scores and accuracies, a row each), ``accuracy`` (tidy: a row per student and way of
    transfer, with Wilson intervals) and ``correlations`` (Spearman's, of scores with accuracies over students)."""
    students = load_students(work.store, spec.students, work.accel)
    data, rows, accuracies = measure(students, spec, work.tell)
    facts = {
        "target": data.name,
        "title": data.title,
        "images": min(spec.images, len(data.train_labels)),
        "tested": accuracies[0]["images"],
        "steps": spec.steps,
        "chance": float(data.test_labels.bincount().max() / len(data.test_labels)),
        "scores": SCORES,
        "ways": REACHED,
    }
    correlations = _correlations(rows)
    notes = []
    if any(row["features"] >= facts["images"] for row in rows):
        notes.append(
            "H-score as published tells nothing where there are as many features as images: it is then the number of "
            "classes less one. Read the shrunk one."
        )
    notes.append(
        "Rank correlations need three students or more, and mean little below about eight."
        if correlations
        else "Choose three students or more to see whether the scores rank them as transfer does."
    )
    return Answer({"students": rows, "accuracy": accuracies, "correlations": correlations}, facts, notes=tuple(notes))


def measure(
    students: list[Student], spec: TransferSpec, tell: Callable[[float, str], None]
) -> tuple[Dataset, list[dict[str, Any]], list[dict[str, Any]]]:
    """The target dataset, a row per student of what is foretold and what is reached, and a row per student and way of
    transfer. ``tell(fraction, sentence)`` hears how far it is. Raises ``Refused``."""
    for student in students:
        if student.dataset == spec.target:
            raise Refused(f"{student.name} was trained on {spec.target} already; choose another target dataset.")
        if not hasattr(student.module, "features") or not hasattr(student.module, "head"):
            raise Refused(f"The network of {student.name} gives no features; leave it out.")
    tell(0.01, f"Loading {spec.target}.")
    data = load(spec.target, spec.size)
    train_images, train_labels, _ = drawn(data.train_images, data.train_labels, spec.images, spec.seed)
    test_images, test_labels, _ = drawn(data.test_images, data.test_labels, spec.tested, spec.seed)
    if len(train_labels.unique()) < 2:
        raise Refused("The training images drawn are all of one class; use more of them.")

    rows: list[dict[str, Any]] = []
    accuracies: list[dict[str, Any]] = []
    for i, student in enumerate(students):

        def say(fraction: float, sentence: str, i: int = i, name: str = student.name) -> None:
            tell(0.02 + 0.98 * (i + fraction) / len(students), f"{name}: {sentence}")

        seen, tests = (adapt(images, *shape(student)) for images in (train_images, test_images))
        say(0.0, "features and answers of the target's images.")
        features, outputs = _look(student, seen)
        test_features, _ = _look(student, tests, lambda fraction: say(0.1 * fraction, "features."))
        y = train_labels.numpy()
        say(0.1, "scores.")
        row = {
            **about(student),
            "source": student.dataset,
            "target": data.name,
            "features": features.shape[1],
            "leep": leep(outputs, y),
            "nce": nce(outputs.argmax(1), y),
            "h_score": h_score(features, y),
            "h_score_shrunk": h_score(features, y, shrink=True),
        }
        say(0.2, "logistic regression on the features.")
        hits = {"fixed": _fixed(features, y, test_features, test_labels.numpy())}
        if spec.steps:
            begun = {"tuned": student.module, "scratch": _fresh(student, spec.seed)}
            for j, (way, module) in enumerate(begun.items()):

                def stepped(fraction: float, j: int = j, way: str = way) -> None:
                    say(0.3 + 0.35 * (j + fraction), f"{REACHED[way].lower()}, {fraction:.0%} of the steps.")

                tuned = _tune(module, student, seen, train_labels, len(data.classes), spec, way == "tuned", stepped)
                hits[way] = _right(tuned, student, tests, test_labels)
        for way, right in hits.items():
            accuracies.append({**about(student), "way": way, **share(right, len(test_labels))})
        rows.append({**row, **{way: hits[way] / len(test_labels) if way in hits else None for way in REACHED}})
    return data, rows, accuracies


def _look(
    student: Student, images: Tensor, tell: Callable[[float], None] | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Features (n, D) and probabilities (n, Z), float64, of uint8 images of the student's own shape."""
    features, outputs = [], []
    with torch.no_grad():
        for i, part in enumerate(images.split(100)):
            f = student.module.features(student.prepare(part))
            features.append(f.double().cpu())
            outputs.append(student.module.head(f).double().softmax(1).cpu())
            if tell:
                tell(min(1.0, 100 * (i + 1) / len(images)))
    return torch.cat(features).numpy(), torch.cat(outputs).numpy()


def _fixed(features: np.ndarray, labels: np.ndarray, test_features: np.ndarray, test_labels: np.ndarray) -> int:
    """Test images that a logistic regression on standardised features gets right."""
    model = make_pipeline(StandardScaler(), LogisticRegression(C=0.1, max_iter=200, tol=1e-3))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # near enough: the accuracy no longer moves
        model.fit(features, labels)
    return int((model.predict(test_features) == test_labels).sum())


def _fresh(student: Student, seed: int) -> Network:
    """The student's network with random weights."""
    made = make_network(**{**student.facts["build"], "seed": seed})
    return made.to(next(student.module.parameters()).device)


def _tune(
    module: Network,
    student: Student,
    images: Tensor,
    labels: Tensor,
    classes: int,
    spec: TransferSpec,
    trained: bool,
    tell: Callable[[float], None],
) -> Network:
    """A copy of ``module`` with a new last layer, all of it trained on the target's images: SGD with momentum 0.9,
    the rate warmed up over a tenth of the steps and let down along a cosine. ``trained``: the module comes with batch
    statistics of its own, which stay: a few small batches would not give better ones."""
    module = copy.deepcopy(module).train()
    device = next(module.parameters()).device
    with seeded(spec.seed):
        inputs = next(module.head.parameters()).shape[1]
        module.head = nn.Linear(inputs, classes).to(device)
    for part in module.modules():
        if trained and isinstance(part, nn.BatchNorm2d):
            part.eval()
    optimiser = torch.optim.SGD(module.parameters(), spec.rate, momentum=0.9, weight_decay=5e-4)
    generator = torch.Generator().manual_seed(spec.seed)
    order = torch.empty(0, dtype=torch.int64)
    warm = max(1, spec.steps // 10)
    for step in range(spec.steps):
        if len(order) < min(BATCH, len(images)):
            order = torch.cat([order, torch.randperm(len(images), generator=generator)])
        chosen, order = order[:BATCH], order[BATCH:]
        cosine = (1 + math.cos(math.pi * max(0, step - warm) / max(1, spec.steps - warm))) / 2
        optimiser.param_groups[0]["lr"] = spec.rate * min(1.0, (step + 1) / warm) * cosine
        loss = F.cross_entropy(module(student.prepare(images[chosen])), labels[chosen].to(device))
        optimiser.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(module.parameters(), 5.0)
        optimiser.step()
        tell((step + 1) / spec.steps)
    return module.eval()


def _right(module: nn.Module, student: Student, images: Tensor, labels: Tensor) -> int:
    with torch.no_grad():
        said = [module(student.prepare(part)).argmax(1).cpu() for part in images.split(100)]
    return int((torch.cat(said) == labels).sum())


def _correlations(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Spearman's correlation of every score with every accuracy that transfer from a student reached."""
    out = []
    for score in SCORES:
        for way in ("fixed", "tuned"):
            pairs = [(row[score], row[way]) for row in rows if row[way] is not None]
            if len(pairs) >= 3:
                rho, p = spearman(*zip(*pairs, strict=True))
                out.append({"score": score, "way": way, "spearman": rho, "p": p, "students": len(pairs)})
    return out
