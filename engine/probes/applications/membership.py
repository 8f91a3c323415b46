"""Probe ``membership``: does a student give away which real images stood behind its training?

Members are real images that a set was made of, non-members as many others of the same classes that nobody used. The
attacker asks the student about an image and its class and calls it a member where the loss is low (Yeom et al. 2018,
adversary 1); reported are the area under the ROC curve, 0.5 for a guess, and the true positives at 1 % false ones
(Carlini et al. 2022). Students of distilled sets never saw a member, only images in which all left a trace (Dong, Zhao
& Lyu 2022, "Privacy for free"): how much of it remains?
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
import torch.nn.functional as F
from sklearn.metrics import roc_auc_score, roc_curve
from torch import Tensor, nn

from engine.baselines import make_baseline
from engine.data import load
from engine.data.base import Dataset
from engine.distill import make_distiller
from engine.errors import Refused
from engine.probes.answerer import Work
from engine.probes.applications.specs import MembershipSpec
from engine.probes.desk import Answer
from engine.probes.robustness.common import mean_interval, sheet
from engine.spec import build_spec
from engine.students.fit import fit
from engine.students.train import train_student
from engine.synthetic import SyntheticSet

SETS = {"full": "All members", "random": "Random members", "distilled": "Distilled"}
AT = 0.01  # share of false positives


def answer(spec: MembershipSpec, work: Work) -> Answer:
    """See ``MembershipSpec``. Table ``students``: AUC, true positives at 1 % false ones and test accuracy of each;
    ``summary`` with 95 % intervals over repeats; ``curve``: the mean ROC curve of each set."""
    work.tell(0.0, f"Loading {spec.dataset}.")
    data = load(spec.dataset)
    least = min(len(members) for members in data.by_class) // 2
    if spec.members > least or spec.ipc > 0.9 * spec.members:
        raise Refused(
            f"{data.title} has room for {least} members per class, of whom at most nine tenths can be the images of a "
            "set; choose fewer."
        )
    rows: list[dict[str, Any]] = []
    images: dict[str, str] = {}
    for repeat in range(spec.repeats):
        seed = 1000 * spec.seed + repeat
        inside, outside = _split(data, spec.members, seed)
        for number, kind in enumerate(SETS):
            work.tell((repeat + number / len(SETS)) / spec.repeats, f"Repeat {repeat + 1}: {SETS[kind].lower()}.")
            network, chosen = _student(kind, inside, spec, seed, work)
            if chosen is not None and repeat == 0:
                shown = [chosen.to_display()[chosen.hard_labels == c][:5] for c in range(len(data.classes))]
                images[kind] = work.picture(kind, sheet(shown), 2)
            pool = inside.distil_indices
            member = losses(network, data, inside.train_images[pool], inside.train_labels[pool])
            other = losses(network, data, *outside)
            held = losses(network, data, data.test_images, data.test_labels, right=True)
            found = {
                "auc": auc(member, other),
                "tpr": true_positives(member, other, AT),
                "accuracy": float(held.mean()),
            }
            rows.append({"repeat": repeat, "set": kind, "members": len(member), **found})
            if kind == "random" and chosen is not None:
                own = torch.tensor(chosen.provenance["indices"])
                seen = losses(network, data, inside.train_images[own], inside.train_labels[own])
                apart = {"auc": auc(seen, other), "tpr": true_positives(seen, other, AT), "accuracy": found["accuracy"]}
                rows.append({"repeat": repeat, "set": "seen", "members": len(seen), **apart})
    summary = []
    for kind in (*SETS, "seen"):
        for measure in ("auc", "tpr", "accuracy"):
            mean, low, high = mean_interval([r[measure] for r in rows if r["set"] == kind])
            summary.append({"set": kind, "measure": measure, "mean": mean, "low": low, "high": high})
    mean = {(row["set"], row["measure"]): row["mean"] for row in summary}
    facts = {
        "sets": {**SETS, "seen": "Random members, told apart from others by the very images trained on"},
        "headline": f"Area under the curve, 0.5 being a guess: all members {mean['full', 'auc']:.2f}, distilled "
        f"{mean['distilled', 'auc']:.2f}, the very images of a random set {mean['seen', 'auc']:.2f}.",
        "at": AT,
    }
    notes = ("Distilled sets start from noise here: one that starts from real images keeps some nearly as they were.",)
    return Answer({"summary": summary, "students": rows}, facts, images, notes)


def _split(data: Dataset, count: int, seed: int) -> tuple[Dataset, tuple[Tensor, Tensor]]:
    """A dataset of ``count`` members per class, and as many images and labels of others."""
    generator = torch.Generator().manual_seed(seed)
    orders = [members[torch.randperm(len(members), generator=generator)] for members in data.by_class]
    inside = torch.cat([order[:count] for order in orders])
    outside = torch.cat([order[count : 2 * count] for order in orders])
    chosen = replace(data, train_images=data.train_images[inside], train_labels=data.train_labels[inside], masks={})
    return chosen, (data.train_images[outside], data.train_labels[outside])


def _student(
    kind: str, inside: Dataset, spec: MembershipSpec, seed: int, work: Work
) -> tuple[nn.Module, SyntheticSet | None]:
    """A student of all members, or of a set made of them, and that set."""
    if kind == "full":
        pool = inside.distil_indices
        chosen = inside.train_images[pool], inside.train_labels[pool]
        tell = lambda fraction: work.tell(0.0, "")  # noqa: E731  (only to be able to be cancelled)
        return fit(*chosen, inside, "convnet", seed=seed, accel=work.accel, width=32, tell=tell), None
    if kind == "random":
        made = make_baseline("random", inside, spec.ipc, seed=seed, accel=work.accel)
    else:
        run = build_spec(
            "distill",
            dataset=inside.name,
            method="dm",
            ipc=spec.ipc,
            init="noise",
            steps=spec.steps,
            seed=seed,
            width=64,
        )
        distiller = make_distiller("dm")
        distiller.setup(run, inside, work.accel)
        for step in range(spec.steps):
            distiller.progress = step / spec.steps
            distiller.step()
            work.tell(0.0, "")
        made = distiller.synthetic()
    return train_student(made, inside, "quick", seed=seed, accel=work.accel), made


def losses(network: nn.Module, data: Dataset, images: Tensor, labels: Tensor, right: bool = False) -> Tensor:
    """Cross-entropy (N,) of uint8 images, or whether (0 or 1) they are recognised."""
    with torch.no_grad():
        logits = torch.cat([network(data.normalise(part)) for part in images.split(500)]).double()
    return (logits.argmax(1) == labels).double() if right else F.cross_entropy(logits, labels, reduction="none")


def auc(member: Tensor, other: Tensor) -> float:
    """The chance that a member's loss is below that of another image."""
    truth = torch.cat([torch.ones(len(member)), torch.zeros(len(other))])
    return float(roc_auc_score(truth.numpy(), -torch.cat([member, other]).numpy()))


def true_positives(member: Tensor, other: Tensor, at: float) -> float:
    """The largest share of members found at no more than a share ``at`` of false positives."""
    truth = torch.cat([torch.ones(len(member)), torch.zeros(len(other))])
    false, true, _ = roc_curve(truth.numpy(), -torch.cat([member, other]).numpy(), drop_intermediate=False)
    return float(true[false <= at].max())
