"""Probe ``sanity``: does a map change when the student forgets, layer by layer from the top?

Adebayo et al., "Sanity Checks for Saliency Maps", NeurIPS 2018, section 3.1 (cascading randomisation): a map that
looks the same for random weights shows the image, not what the student learned.
"""

from __future__ import annotations

import copy
from functools import partial
from typing import Any

import numpy as np
from torch import nn

from engine.errors import Refused
from engine.networks import make_network
from engine.probes.answerer import Work
from engine.probes.attribution import figures, pictures
from engine.probes.attribution.asked import (
    asked_image,
    asked_students,
    asked_target,
    data_of,
    described,
    network_of,
    who,
)
from engine.probes.attribution.figures import plain
from engine.probes.attribution.maps import ask, explained
from engine.probes.attribution.methods import check
from engine.probes.attribution.specs import METHOD_INFO, SanitySpec, baseline_note
from engine.probes.desk import Answer
from engine.students.kept import Student

NORMS = (nn.GroupNorm, nn.BatchNorm2d, nn.LayerNorm)
STRANGE = 2**31  # beyond all seeds of training: a student must not come back to the weights that it started from
ALIKE = 0.5  # rank correlation from which a map of random weights counts as much the same


def answer(spec: SanitySpec, work: Work) -> Answer:
    """See ``SanitySpec``."""
    student = asked_students(work, spec.students, most=1)[0]
    if why := check(spec.method, student, spec):
        raise Refused(why)
    if "build" not in student.facts:
        raise Refused(f"{student.name} was not kept with its architecture; train it again.")
    picture = asked_image(spec.image, student, work)
    data = data_of(student, work) if spec.baseline == "mean" else None
    probabilities, predicted = ask(student, picture)
    target = asked_target(spec.target, picture, predicted, student.classes)
    original = explained(student, picture, target, spec, data)[0]

    groups = layers(student.module)
    measured: list[list[dict[str, float]]] = [[] for _ in groups]
    strip = [original]
    for draw in range(spec.repeats):
        build = {**student.facts["build"], "seed": STRANGE + (spec.seed + draw) % STRANGE}
        fresh = make_network(**build).to(next(student.module.parameters()).device).state_dict()
        forgetful = copy.deepcopy(student.module)
        for stage, (name, keys) in enumerate(groups):
            done = (draw * len(groups) + stage) / (spec.repeats * len(groups))
            beat = partial(work.tell, 0.1 + 0.85 * done, f"Random from the top down to {name}.")
            beat()
            state = forgetful.state_dict()
            forgetful.load_state_dict({**state, **{key: fresh[key] for key in keys}})
            stranger = Student(student.id, forgetful.eval(), student.facts, student.zca)
            found = explained(stranger, picture, target, spec, data, beat)[0]
            if draw == 0:
                strip.append(found)
            measured[stage].append(
                {
                    "rank_correlation": figures.rank_correlation(np.abs(found), np.abs(original)),
                    "signed_correlation": figures.rank_correlation(found, original),
                    "ssim": figures.ssim(np.abs(found), np.abs(original)),
                    "confidence": float(ask(stranger, picture)[0][target]),
                }
            )

    first = {
        "rank_correlation": 1.0,
        "signed_correlation": 1.0,
        "ssim": 1.0,
        "confidence": float(probabilities[target]),
    }
    rows = [_row(student, 0, "trained", [first])]
    rows += [
        _row(student, i + 1, name, found) for i, ((name, _), found) in enumerate(zip(groups, measured, strict=True))
    ]

    # Every map on its own scale: the check asks whether the picture changes, not whether it fades.
    drawn = [pictures.coloured(m, figures.limit_of([m])) for m in strip]
    big = pictures.enlarged(student.facts["size"], 128)
    files = {f"stage-{i}": work.picture(f"stage-{i}", image, big) for i, image in enumerate(drawn)}
    files["strip"] = work.picture("strip", pictures.sheet([drawn]), big)
    files["input"] = work.picture("input", pictures.shown(picture.pixels[0]), big)
    facts = {
        "students": described([student]),
        "verdict": _verdict(METHOD_INFO[spec.method].name, rows[-1]),
        "target": student.classes[target],
        "image": picture.facts(student.classes),
    }
    notes = ["Each map has a colour scale of its own, so that its shape can be compared."]
    if note := baseline_note(spec.method, spec.baseline, network_of(student)):
        notes.append(note)
    return Answer({"stages": rows}, facts, files, tuple(notes))


def layers(module: nn.Module) -> list[tuple[str, list[str]]]:
    """The layers of a network from the top down: a name, and the keys of the layer's part of the state.

    A normalisation belongs to the layer before it, and a block of a residual network or a transformer is one layer.
    """
    top: list[tuple[str, nn.Module]] = []
    for name, child in module.named_children():
        inner = (
            [(f"{name}.{i}", part) for i, part in child.named_children()] if isinstance(child, nn.Sequential) else []
        )
        top += inner or [(name, child)]
    groups: list[tuple[str, list[str]]] = []
    for name, part in top:
        keys = [f"{name}.{key}" for key in part.state_dict()]
        if keys and isinstance(part, NORMS) and groups:
            groups[-1][1].extend(keys)
        elif keys:
            groups.append((name, keys))
    own = [key for key in module.state_dict() if "." not in key]  # a transformer's positions go with its patches
    groups[0][1].extend(own)
    numbered = [(_title(i, len(groups)), keys) for i, (_, keys) in enumerate(groups)]
    return numbered[::-1]


def _title(position: int, count: int) -> str:
    return "last layer" if position == count - 1 else f"layer {position + 1} of {count}"


def _row(student: Student, stage: int, layer: str, found: list[dict[str, float]]) -> dict[str, Any]:
    row: dict[str, Any] = {**who(student), "stage": stage, "layer": layer, "draws": len(found)}
    for name in found[0]:
        values = [one[name] for one in found]
        row |= {name: plain(float(np.mean(values))), f"{name}_low": plain(min(values))}
        row[f"{name}_high"] = plain(max(values))
    return row


def _verdict(method: str, last: dict[str, Any]) -> str:
    alike = last["rank_correlation"]
    if alike >= ALIKE:
        return (
            f"Not passed: with all weights random the map of {method} still ranks the pixels much as before (rank "
            f"correlation {alike:.2f}). On this image it shows the image more than what the student learned."
        )
    return (
        f"Passed: with all weights random the map of {method} ranks the pixels differently (rank correlation "
        f"{alike:.2f})."
    )
