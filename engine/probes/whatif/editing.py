"""Probes ``edited`` and ``edit``: the images of a set after edits, and what these change in students of it."""

from __future__ import annotations

from collections import Counter, OrderedDict
from itertools import combinations
from typing import Any

import numpy as np
import torch
from torch import Tensor

from engine.editing import edited
from engine.edits import parse
from engine.errors import Refused
from engine.probes.answerer import Work
from engine.probes.attribution.pictures import shown
from engine.probes.desk import Answer
from engine.probes.whatif.specs import EditedSpec, EditsSpec
from engine.probes.whatif.students import Judges, asked_set, in_a_row

MOST = 1000  # images of a set that are laid out
SHOWN = 12  # real images whose decision changed
_KEPT = 8  # sets whose students' decisions are remembered: each edit is compared with the same ones
_said: OrderedDict[Any, Tensor] = OrderedDict()


def answer(spec: EditsSpec, work: Work) -> Answer:
    """See ``EditsSpec`` and ``EditedSpec``."""
    return _compare(spec, work) if isinstance(spec, EditedSpec) else _look(spec, work)


def _look(spec: EditsSpec, work: Work) -> Answer:
    """Pictures ``before`` and ``after``: the images side by side. Facts: class names, and each image's class."""
    synthetic, data = asked_set(spec.source, work)
    if len(synthetic.images) > MOST:
        raise Refused(
            f"This set has {len(synthetic.images):,} images; up to {MOST:,} are laid out to be edited. The command "
            "“edit” takes sets of any size."
        )
    changed = edited(synthetic, parse(spec.edits), data)
    files = {name: work.picture(name, in_a_row(s)) for name, s in (("before", synthetic), ("after", changed))}
    labels = {"before": synthetic.hard_labels.tolist(), "after": changed.hard_labels.tolist()}
    return Answer({}, {"classes": list(synthetic.classes), "size": synthetic.images.shape[-1], **labels}, files)


def _compare(spec: EditedSpec, work: Work) -> Answer:
    """Accuracies are fractions. Table ``students``: a row a seed; ``classes``: a row a class; ``changed``: real images
    whose decision changed, which picture ``changed`` shows side by side."""
    synthetic, data = asked_set(spec.source, work)
    changed = edited(synthetic, parse(spec.edits), data)
    judges = Judges(synthetic, data, spec.split, spec.images, work)
    seeds = [spec.seed + s for s in range(spec.seeds)]

    def tell(share: float, says: str) -> Any:
        return lambda: work.tell(share, says)

    key = (spec.source, spec.mark, spec.split, spec.images, spec.seed, spec.seeds)
    before = _said.get(key) if spec.mark else None
    if before is None:
        before = _said[key] = judges.said(synthetic, seeds, tell(0.1, "Students of the set as it was."))
        while len(_said) > _KEPT:
            _said.popitem(last=False)
    after = judges.said(changed, seeds, tell(0.5, "Students of the edited set.")) if spec.edits.split() else before
    right = {name: judges.by_class(said) for name, said in (("before", before), ("after", after))}
    whole = {name: judges.overall(each) for name, each in right.items()}
    students = [
        {"seed": seed, "before": float(whole["before"][i]), "after": float(whole["after"][i])}
        for i, seed in enumerate(seeds)
    ]
    classes = [
        {"class": name, "before": float(right["before"][:, c].mean()), "after": float(right["after"][:, c].mean())}
        for c, name in enumerate(synthetic.classes)
    ]
    rows = decisions(before, after, judges.truth)
    files = {}
    if rows:
        pictures = [shown(judges.real.images[row["at"]].float() / 255) for row in rows[:SHOWN]]
        files["changed"] = work.picture("changed", np.concatenate(pictures, 1))
    named = [
        {**{k: synthetic.classes[row[k]] for k in ("class", "before", "after")}, "students": row["students"]}
        for row in rows[:SHOWN]
    ]
    pairs = [float((a != b).double().mean()) for a, b in combinations(before, 2)]
    facts = {
        "before": float(whole["before"].mean()),
        "after": float(whole["after"].mean()),
        "judges": len(judges),
        "split": spec.split,
        "changed": float((before != after).double().mean()),
        "images_changed": len(rows),
        "between": sum(pairs) / len(pairs) if pairs else None,
    }
    on = "test images" if spec.split == "test" else "held-out training images"
    note = (
        f"Quick students of the set as it was, and of the edited one from the same seeds, on {len(judges):,} {on}: "
        f"{facts['before']:.1%} and {facts['after']:.1%} right. {facts['changed']:.1%} of the decisions changed"
        + (f"; two students of the unedited set differ on {facts['between']:.1%}." if pairs else ".")
    )
    return Answer({"students": students, "classes": classes, "changed": named}, facts, files, (note,))


def decisions(before: Tensor, after: Tensor, truth: Tensor) -> list[dict[str, int]]:
    """The images (by place ``at``) on which students (seeds, M) decide otherwise after an edit, those on which most of
    them do first: ``class`` it is of, what they said most often ``before`` and ``after``, and how many ``students``
    changed."""
    moved = before != after
    counts = moved.sum(0)
    found = []
    for at in sorted(torch.nonzero(counts).flatten().tolist(), key=lambda m: (-int(counts[m]), m)):
        who = moved[:, at]
        said = Counter(zip(before[who, at].tolist(), after[who, at].tolist(), strict=True)).most_common(1)[0][0]
        row = {"at": at, "class": int(truth[at]), "before": said[0], "after": said[1], "students": int(counts[at])}
        found.append(row)
    return found
