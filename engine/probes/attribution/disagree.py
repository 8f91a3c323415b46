"""Probe ``disagree``: the test images on which students disagree most."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from engine.errors import Refused
from engine.probes.answerer import Work
from engine.probes.attribution import pictures
from engine.probes.attribution.asked import asked_class, asked_students, data_of, described, who
from engine.probes.attribution.figures import plain
from engine.probes.attribution.specs import DisagreeSpec
from engine.probes.desk import Answer


def answer(spec: DisagreeSpec, work: Work) -> Answer:
    """See ``DisagreeSpec``."""
    students = asked_students(work, spec.students, least=2, most=8)
    data = data_of(students[0], work)
    classes = students[0].classes
    order = torch.randperm(len(data.test_labels), generator=torch.Generator().manual_seed(spec.seed))
    if spec.label.strip().lower() != "any":
        order = order[data.test_labels[order] == asked_class(spec.label, classes)]
    if not len(order):
        raise Refused(f"{data.title} has no test images of class {spec.label}.")
    chosen = order[: spec.scan].sort().values
    probabilities = []
    for i, student in enumerate(students):
        parts: list[Tensor] = []
        for part in data.test_images[chosen].split(250):
            done = (i + len(parts) * 250 / len(chosen)) / len(students)
            work.tell(0.1 + 0.85 * done, f"Asking {student.name}.")
            parts.append(student.logits(part).double().softmax(1))
        probabilities.append(torch.cat(parts))
    stacked = torch.stack(probabilities)  # (S, N, K)
    predicted = stacked.argmax(2)
    different = torch.tensor([len(set(column)) for column in predicted.T.tolist()])
    bits = divergence(stacked)
    # first by the number of answers, then by divergence; each is at most log2(S) bits
    ranking = (different * 100 + bits).argsort(descending=True, stable=True)[: spec.count].tolist()

    rows: list[dict[str, Any]] = []
    answers: list[dict[str, Any]] = []
    files = {}
    for rank, at in enumerate(ranking):
        index, true = int(chosen[at]), int(data.test_labels[chosen[at]])
        shown = pictures.shown(data.test_images[index].float() / 255)
        files[f"image-{rank}"] = work.picture(f"image-{rank}", shown, pictures.enlarged(data.size, 64))
        rows.append(
            {
                "rank": rank + 1,
                "index": index,
                "true": true,
                "class": classes[true],
                "answers": int(different[at]),
                "divergence": plain(float(bits[at])),
            }
        )
        for s, student in enumerate(students):
            c = int(predicted[s, at])
            answers.append(
                {
                    "index": index,
                    **who(student),
                    "predicted": c,
                    "class": classes[c],
                    "confidence": plain(float(stacked[s, at, c])),
                }
            )
    facts = {
        "students": described(students),
        "scanned": len(chosen),
        "disagreed": plain(float((different > 1).double().mean())),
    }
    return Answer({"images": rows, "answers": answers}, facts, files)


def divergence(probabilities: Tensor) -> Tensor:
    """Jensen-Shannon divergence in bits (N,) of S distributions (S, N, K): the entropy of their mean less the mean of
    their entropies; 0 when all agree, at most log2(S)."""

    def entropy(p: Tensor) -> Tensor:
        return -torch.xlogy(p, p).sum(-1) / torch.log(torch.tensor(2.0, dtype=p.dtype))

    return (entropy(probabilities.mean(0)) - entropy(probabilities).mean(0)).clamp_min(0)
