"""Probe ``membership``: does a student give away which real images stood behind its training?

Members are real images that a set was made of, non-members as many others of the same classes that nobody used. The
attacker asks the student about an image and its class and calls it a member where the loss is low (Yeom et al. 2018,
"Privacy risk in machine learning"); reported are the area under the ROC curve, 0.5 for a guess, and the true positives
at 1 % false ones, as Carlini et al. 2022, "Membership inference attacks from first principles", ask for. Students of
distilled sets never saw a member, only images in which all left a trace (Dong, Zhao & Lyu 2022, "Privacy for free"):
how much of it remains?
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch
import torch.nn.functional as F
from sklearn.metrics import roc_auc_score, roc_curve
from torch import Tensor, nn

from engine.data import load
from engine.data.base import Dataset
from engine.errors import Refused
from engine.probes.answerer import Work
from engine.probes.applications.common import (
    Row,
    accuracy,
    contrast,
    distilled,
    finish,
    picture,
    real_set,
    summarise,
)
from engine.probes.applications.specs import MembershipSpec
from engine.probes.desk import Answer
from engine.students.fit import fit, train_one
from engine.students.train import make_plan
from engine.synthetic import SyntheticSet

WAYS = {
    "full": "All members", "seen": "Random real, the images themselves", "random": "Random real, all members",
    "distilled": "Distilled",
}  # fmt: skip
KINDS = {"full": "full", "seen": "random", "random": "random", "distilled": "distilled"}
MEASURES = ("auc", "tpr", "accuracy")
AT = 0.01  # share of false positives


def answer(spec: MembershipSpec, work: Work) -> Answer:
    """See ``MembershipSpec``. Table ``rows``: AUC, true positives at 1 % false ones and test accuracy of each student;
    ``summary`` with 95 % intervals over repeats, ``contrasts`` paired by repeat."""
    work.tell(0.0, f"Loading {spec.dataset}.")
    data = load(spec.dataset)
    least = min(len(members) for members in data.by_class) // 2
    if spec.members > least:
        raise Refused(f"{data.title} has room for {least} members per class and as many others; choose fewer.")
    if spec.ipc > 0.8 * spec.members:
        raise Refused(f"Of {spec.members} members per class at most eight tenths can be in a set; choose fewer images.")
    rows: list[Row] = []
    images: dict[str, str] = {}
    kinds = ("full", "random", "distilled")
    for repeat in range(spec.repeats):
        seed = 1000 * spec.seed + repeat
        inside, (others, labels) = split(data, spec.members, seed)
        for number, way in enumerate(kinds):

            def tell(fraction: float, done: int = repeat * len(kinds) + number, way: str = way, repeat: int = repeat
            ) -> None:  # fmt: skip
                sentence = f"Repeat {repeat + 1} of {spec.repeats}: {WAYS[way].lower()}."
                work.tell((done + fraction) / (spec.repeats * len(kinds)), sentence)

            network, chosen = _student(way, inside, spec, seed, work, tell)
            if chosen is not None and repeat == 0:
                images[way] = picture(work, way, chosen)
            other = losses(network, data, others, labels)
            right = accuracy(network, data.normalise, data.test_images, data.test_labels)
            behind = {way: inside.distil_indices}
            if way == "random" and chosen is not None:
                behind["seen"] = torch.tensor(chosen.provenance["indices"])
            for name, members in behind.items():
                member = losses(network, data, inside.train_images[members], inside.train_labels[members])
                found = {"auc": auc(member, other), "tpr": true_positives(member, other, AT), "accuracy": right}
                rows.append({"repeat": repeat, "way": name, "members": len(member), **found})
    summary = summarise(rows, MEASURES)
    contrasts = [contrast(rows, "auc", "distilled", other) for other in ("full", "seen")]
    facts = {
        "ways": WAYS,
        "kinds": KINDS,
        "shown": list(data.classes),
        "at": AT,
        "headline": _headline(summary),
    }
    notes = (
        "The attack is the simplest there is, a threshold on the loss; stronger ones train many networks of their own. "
        "Distilled sets start from noise here: one that starts from real images keeps some nearly as they were.",
    )
    return Answer({"summary": summary, "contrasts": contrasts, "rows": rows}, facts, images, notes)


def _headline(summary: list[Row]) -> str:
    found = {row["way"]: row for row in summary if row["measure"] == "auc"}

    def said(way: str) -> str:
        row = found[way]
        span = "" if row["low"] is None else f" (95 %: {row['low']:.2f} to {row['high']:.2f})"
        return f"{row['mean']:.2f}{span}"

    return (
        f"Telling members from others by the loss, 0.50 being a guess: {said('full')} for students of all members, "
        f"{said('distilled')} for those of the distilled set, {said('seen')} for the very images of a random set."
    )


def split(data: Dataset, count: int, seed: int) -> tuple[Dataset, tuple[Tensor, Tensor]]:
    """A dataset of ``count`` members per class, and as many images and labels of others."""
    generator = torch.Generator().manual_seed(seed)
    orders = [members[torch.randperm(len(members), generator=generator)] for members in data.by_class]
    inside = torch.cat([order[:count] for order in orders])
    outside = torch.cat([order[count : 2 * count] for order in orders])
    chosen = replace(data, train_images=data.train_images[inside], train_labels=data.train_labels[inside], masks={})
    return chosen, (data.train_images[outside], data.train_labels[outside])


def _student(
    way: str, inside: Dataset, spec: MembershipSpec, seed: int, work: Work, tell: Callable[[float], None]
) -> tuple[nn.Module, SyntheticSet | None]:
    """A student of all members, or of a set made of them, and that set."""
    if way == "full":
        own = inside.distil_indices
        chosen = inside.train_images[own], inside.train_labels[own]
        return fit(
            *chosen, inside, "convnet", seed=seed, accel=work.accel, width=32, steps=spec.training, tell=tell
        ), None  # fmt: skip
    if way == "random":
        made = real_set("random", inside, spec.ipc, seed, work)
    else:
        made = distilled(
            inside, spec.ipc, spec.steps, seed, work, lambda f: tell(0.8 * f), init="noise", width=64
        )  # fmt: skip
    plan = make_plan(made, inside, "quick", None, work.accel)
    return finish(train_one(plan, seed), lambda f: tell(0.8 + 0.2 * f)), made


def losses(network: nn.Module, data: Dataset, images: Tensor, labels: Tensor) -> Tensor:
    """Cross-entropy (N,) of uint8 images."""
    with torch.no_grad():
        logits = torch.cat([network(data.normalise(part)) for part in images.split(500)]).double()
    return F.cross_entropy(logits, labels, reduction="none")


def auc(member: Tensor, other: Tensor) -> float:
    """The chance that a member's loss is below that of another image, equal ones counting half."""
    truth = torch.cat([torch.ones(len(member)), torch.zeros(len(other))])
    return float(roc_auc_score(truth.numpy(), -torch.cat([member, other]).numpy()))


def true_positives(member: Tensor, other: Tensor, at: float) -> float:
    """The largest share of members found at no more than a share ``at`` of false positives."""
    truth = torch.cat([torch.ones(len(member)), torch.zeros(len(other))])
    false, true, _ = roc_curve(truth.numpy(), -torch.cat([member, other]).numpy(), drop_intermediate=False)
    return float(true[false <= at].max())
