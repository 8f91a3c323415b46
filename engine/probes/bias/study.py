"""Does the shape bias change with what a network is trained on? Trains them, measures, and says what is significant."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from engine.data import load
from engine.data.base import Dataset
from engine.data.catalogue import SHAPES
from engine.data.shapes import make_shapes
from engine.data.stylise import stylised
from engine.errors import Refused
from engine.networks import STUDENT_NETWORKS
from engine.probes.answerer import Work
from engine.probes.bias.measures import interval, mean_bias, over_students, shape_bias
from engine.probes.bias.specs import StudySpec
from engine.probes.bias.stimuli import Stimuli, conflict, decide, group_of, teacher_for, test_images
from engine.probes.desk import Answer
from engine.students.fit import as_student, fit, train_one
from engine.students.kept import Student, load_student
from engine.students.train import make_plan
from engine.synthetic import SyntheticSet, load_synthetic

MOST_SETS, MOST_STUDENTS, MOST_CONDITIONS = 6, 40, 60
ENOUGH = 3  # students of each kind below which no difference is called significant
TIES = {
    "tied": "shape and texture predict",
    "shape-only": "only shape predicts (one flat colour)",
    "independent": "only shape predicts (textures at random)",
    "by-texture": "only texture predicts",
}


@dataclass(frozen=True)
class Condition:
    """A way to train a network: ``train(seed, tell)`` gives a student.

    ``kind``: of the training set, as in ``pages.components.marks``, or ``stylised`` or ``known``. ``match`` names what
    a condition may be compared with: distilled and random sets of the same number of images under one protocol.
    """

    label: str
    kind: str
    images: int
    network: str
    train: Callable[[int, Callable[[float], None]], Student]
    ipc: float | None = None
    method: str | None = None
    match: str | None = None


@dataclass(frozen=True, eq=False)
class Result:
    """One trained student: what it decided on the stimuli, and its accuracy on the test images."""

    condition: str
    kind: str
    images: int | None
    ipc: float | None
    method: str | None
    network: str
    match: str | None
    seed: int | None
    accuracy: float
    decisions: np.ndarray


def answer(spec: StudySpec, work: Work) -> Answer:
    """Tables ``students`` (one row each), ``conditions`` (over seeds, with intervals) and ``comparisons``; the
    headline in ``facts``."""
    began = time.monotonic()
    work.tell(0.0, "Loading the data.")
    data = load(spec.dataset)
    tests = test_images(data, min(spec.tests, len(data.test_labels)), 0)
    options = spec.model_dump(include={"count", "technique", "steps", "stimuli", "seed"})
    quiet = _Quiet(work)
    stimuli = conflict(quiet, spec.source, spec.dataset, data.classes, data.size, **options)
    conditions = list(_conditions(spec, work, data))
    taken = _taken(spec, work, data)
    if not conditions and not taken:
        raise Refused("There is nothing to compare: choose numbers of training images, distilled sets or students.")
    if len(conditions) > MOST_CONDITIONS:
        raise Refused(f"That makes {len(conditions)} kinds of training; choose at most {MOST_CONDITIONS}.")

    results = [_measure(s, group_of(s), _source(s), None, s.facts.get("seed"), stimuli, tests) for s in taken]
    total, missed = len(conditions) * spec.seeds, 0
    # One seed of everything first: what the time does not suffice for is missing everywhere alike
    for done, (offset, condition) in enumerate((o, c) for o in range(spec.seeds) for c in conditions):
        if time.monotonic() - began > 60 * spec.minutes:
            missed = total - done
            break
        seed = spec.seed + offset

        def tell(fraction: float, done: int = done, label: str = condition.label, seed: int = seed) -> None:
            work.tell(0.05 + 0.95 * (done + fraction) / total, f"Training {done + 1} of {total}: {label}, seed {seed}.")

        student = condition.train(seed, tell)
        about = {"kind": condition.kind, "images": condition.images, "ipc": condition.ipc, "method": condition.method}
        results.append(_measure(student, condition.label, about, condition.match, seed, stimuli, tests))

    notes = [f"Stimuli: {stimuli.origin}"]
    if missed:
        notes.append(
            f"The time of {spec.minutes:g} minutes was used up: {missed} of {total} trainings are missing. "
            "Give more minutes, fewer training steps or fewer conditions."
        )
    comparisons = compare(results, stimuli)
    headline = headline_of(comparisons)
    facts = {
        "headline": headline,
        "source": stimuli.source,
        "origin": stimuli.origin,
        "stimuli": len(stimuli),
        "dataset": spec.dataset,
        "guesser": {"bias": 0.5, "coverage": 2 / len(data.classes)},
        "missed": missed,
    }
    tables = {
        "students": [_row(r, stimuli) for r in results],
        "conditions": _pooled(results, stimuli),
        "comparisons": comparisons,
    }
    return Answer(tables, facts, {}, tuple(notes))


class _Quiet:
    """A ``Work`` whose progress stays within the first twentieth, which is what making the stimuli is of a study."""

    def __init__(self, work: Work):
        self.store, self.accel, self.picture, self._work = work.store, work.accel, work.picture, work

    def tell(self, fraction: float, sentence: str = "") -> None:
        self._work.tell(0.05 * fraction, sentence)


# ---- what is trained ------------------------------------------------------------------------------------------------


def _conditions(spec: StudySpec, work: Work, data: Dataset) -> Iterator[Condition]:
    networks = _listed(spec.networks)
    for network in networks:
        if network not in STUDENT_NETWORKS:
            raise Refused(f"There is no network “{network}”; choose from {', '.join(STUDENT_NETWORKS)}.")
    if not networks:
        raise Refused(f"Name at least one network, such as {STUDENT_NETWORKS[0]}.")
    for network in networks:
        for count in _counts(spec.counts, data):
            yield _real(spec, work, data, network, count)
        if spec.stylised != "none":
            yield _stylised(spec, work, data, network)
        if spec.ties:
            if data.classes != SHAPES:
                raise Refused("What predicts the class is only known of the dataset shapes; leave known truths out.")
            yield from (_known(spec, work, data, network, tie) for tie in TIES)
        yield from _sets(spec, work, data, network)


def _real(spec: StudySpec, work: Work, data: Dataset, network: str, count: int) -> Condition:
    everything = count >= len(data.distil_indices)

    def train(seed: int, tell: Callable[[float], None]) -> Student:
        indices = data.distil_indices if everything else _some(data, count, seed)
        return _fit(spec, work, data, network, data.train_images[indices], data.train_labels[indices], seed, tell)

    label = f"all {len(data.distil_indices):,} images" if everything else f"{count:,} real images"
    kind = "full" if everything else "random"
    return Condition(f"{label}, {network}", kind, min(count, len(data.distil_indices)), network, train)


def _stylised(spec: StudySpec, work: Work, data: Dataset, network: str) -> Condition:
    made: list[torch.Tensor] = []

    def train(seed: int, tell: Callable[[float], None]) -> Student:
        if not made:
            teacher = None if spec.stylised == "fourier" else teacher_for(_Quiet(work), data.name, data.size)
            made.append(stylised(data, spec.stylised, spec.seed, work.accel, lambda f: tell(0.5 * f), teacher))
        chosen = data.distil_indices
        return _fit(spec, work, data, network, made[0][chosen], data.train_labels[chosen], seed, tell)

    label = f"all images, stylised ({spec.stylised}), {network}"
    return Condition(label, "stylised", len(data.distil_indices), network, train, method=spec.stylised)


def _known(spec: StudySpec, work: Work, data: Dataset, network: str, tie: str) -> Condition:
    def train(seed: int, tell: Callable[[float], None]) -> Student:
        made = make_shapes(200, 4_000_000 + seed, tie)
        return _fit(spec, work, data, network, made.images, made.labels, seed, tell)

    return Condition(f"{TIES[tie]}, {network}", "known", 200 * len(data.classes), network, train, method=tie)


def _sets(spec: StudySpec, work: Work, data: Dataset, network: str) -> Iterator[Condition]:
    """Sets that were distilled or selected, and once for each of their sizes as many random real images."""
    if spec.sets.strip() == "all":
        runs = work.store.runs(kinds=["distill"], dataset=spec.dataset, statuses=["done", "stopped"])
        ids = [r.id for r in runs if work.store.result_folder(r.id)][:MOST_SETS]
    else:
        ids = _listed(spec.sets)
    random_of: set[float] = set()
    for id in ids:
        folder, run = work.store.result_folder(id), work.store.run(id)
        if folder is None or run is None:
            raise Refused(f"Run “{id[:80]}” has no set; choose runs that are done, all, or none.")
        synthetic = load_synthetic(folder)
        make_plan(synthetic, data, spec.protocol, network, work.accel)  # refused here rather than after minutes
        ipc = len(synthetic.images) / len(data.classes)
        method = str(run.spec.get("method") or run.spec.get("kind") or "imported")
        kind = {"distill": "distilled", "import": "imported"}.get(
            run.kind, "random" if method == "random" else "selected"
        )
        about = {"ipc": ipc, "match": f"{ipc:g} per class, {spec.protocol}, {network}"}
        label = f"{method}, {ipc:g} per class, {network}"
        if any(c == id for c in ids[: ids.index(id)]):
            continue
        yield Condition(
            f"{label} ({id[-5:]})", kind, len(synthetic.images), network, _on_set(spec, work, data, network, synthetic),
            method=method, **about,
        )  # fmt: skip
        if kind == "distilled" and ipc == int(ipc) and ipc not in random_of:
            random_of.add(ipc)
            yield Condition(
                f"random real, {ipc:g} per class, {network}", "random", len(synthetic.images), network,
                _on_set(spec, work, data, network, None, int(ipc)), method="random", **about,
            )  # fmt: skip


def _on_set(
    spec: StudySpec, work: Work, data: Dataset, network: str, synthetic: SyntheticSet | None, ipc: int = 0
) -> Callable[[int, Callable[[float], None]], Student]:
    """Trains on a set, or with none on ``ipc`` random real images per class, other ones for each seed."""

    def train(seed: int, tell: Callable[[float], None]) -> Student:
        chosen = synthetic
        if chosen is None:
            indices = _some(data, ipc * len(data.classes), seed)
            chosen = SyntheticSet(
                data.normalise(data.train_images[indices]), data.train_labels[indices], data.name, data.classes,
                data.mean, data.std, kind="random",
            )  # fmt: skip
        slices = train_one(make_plan(chosen, data, spec.protocol, network, work.accel), seed)
        while True:
            try:
                tell(next(slices))
            except StopIteration as end:
                student = as_student(end.value, data, "", mean=list(chosen.mean), std=list(chosen.std))
                return replace(student, zca=chosen.zca, facts={**student.facts, "network": network})

    return train


def _fit(
    spec: StudySpec,
    work: Work,
    data: Dataset,
    network: str,
    images: torch.Tensor,
    labels: torch.Tensor,
    seed: int,
    tell: Callable[[float], None],
) -> Student:
    steps, width = spec.training, spec.width
    module = fit(images, labels, data, network, seed=seed, steps=steps, accel=work.accel, tell=tell, width=width)
    return as_student(module, data, "", network=network)


def _some(data: Dataset, count: int, seed: int) -> torch.Tensor:
    """Indices of about ``count`` training images, as many of each class, drawn from ``seed``."""
    generator = torch.Generator().manual_seed(seed)
    each = max(1, round(count / len(data.classes)))
    return torch.cat([m[torch.randperm(len(m), generator=generator)[:each]] for m in data.by_class])


def _counts(text: str, data: Dataset) -> list[int]:
    """``10,100,all`` as numbers; those beyond the dataset's own are the same as all."""
    most = len(data.distil_indices)
    found = []
    for part in [] if text.strip() == "none" else _listed(text):
        if part != "all" and not (part.isdecimal() and len(part) < 9 and int(part) >= len(data.classes)):
            raise Refused(
                f"Training images (counts) were “{part[:40]}”, but must be numbers from {len(data.classes)}, which is "
                "one of each class, separated by commas; all for every image, or none."
            )
        found.append(most if part == "all" else min(int(part), most))
    return list(dict.fromkeys(found))


def _listed(text: str) -> list[str]:
    parts = [part.strip() for part in text.split(",")]
    return list(dict.fromkeys(p for p in parts if p and p != "none"))


def _taken(spec: StudySpec, work: Work, data: Dataset) -> list[Student]:
    """Students that are taken over as they are."""
    if spec.students.strip() == "all":
        runs = work.store.runs(kinds=["student"], dataset=spec.dataset, statuses=["done"], limit=MOST_STUDENTS)
        ids = [r.id for r in runs if work.store.student(r.id)]
    else:
        ids = _listed(spec.students)
    if len(ids) > MOST_STUDENTS:
        raise Refused(f"Choose at most {MOST_STUDENTS} students, not {len(ids)}.")
    students = [load_student(work.store, id, work.accel) for id in ids]
    for student in students:
        if student.classes != data.classes:
            raise Refused(f"“{student.name}” knows the classes of {student.dataset}, not those of {data.title}.")
    return students


def _source(student: Student) -> dict[str, Any]:
    source, spec = student.facts.get("source") or {}, student.facts.get("spec") or {}
    kind = source.get("kind", "full") if spec.get("style", "original") == "original" else "stylised"
    images, ipc = source.get("images"), source.get("ipc")
    return {"kind": kind, "images": images, "ipc": ipc, "method": source.get("method")}


def _measure(
    student: Student,
    label: str,
    about: dict[str, Any],
    match: str | None,
    seed: int | None,
    stimuli: Stimuli,
    tests: tuple[torch.Tensor, torch.Tensor],
) -> Result:
    images, labels = tests
    accuracy = float((decide(student, images)[0] == labels.numpy()).mean())
    decisions = decide(student, stimuli.images)[0]
    if match is None and about["ipc"]:
        match = f"{about['ipc']:g} per class, {student.facts.get('protocol')}, {student.facts.get('network')}"
    network = str(student.facts.get("network", "network"))
    return Result(label, network=network, match=match, seed=seed, accuracy=accuracy, decisions=decisions, **about)


# ---- what is said ---------------------------------------------------------------------------------------------------


def _row(result: Result, stimuli: Stimuli) -> dict[str, Any]:
    return {
        "condition": result.condition,
        "kind": result.kind,
        "images": result.images,
        "ipc": result.ipc,
        "method": result.method,
        "network": result.network,
        "seed": result.seed,
        "accuracy": result.accuracy,
        **shape_bias(result.decisions, stimuli.shape, stimuli.texture).row(),
    }


def _hits(results: Sequence[Result], stimuli: Stimuli) -> tuple[np.ndarray, np.ndarray]:
    decisions = np.stack([r.decisions for r in results])
    return decisions == stimuli.shape, decisions == stimuli.texture


def _pooled(results: Sequence[Result], stimuli: Stimuli) -> list[dict[str, Any]]:
    """A row for each condition: means over seeds, ``low`` to ``high`` the 95 % bootstrap interval of the bias over
    seeds and stimuli, ``accuracy_std`` the deviation over seeds."""
    rows = []
    for condition in dict.fromkeys(r.condition for r in results):
        mine = [r for r in results if r.condition == condition]
        shape, texture = _hits(mine, stimuli)
        low, high = interval(over_students(shape, texture))
        accuracies = [r.accuracy for r in mine]
        first = mine[0]
        rows.append(
            {
                "condition": condition,
                "kind": first.kind,
                "images": first.images,
                "ipc": first.ipc,
                "method": first.method,
                "network": first.network,
                "students": len(mine),
                "accuracy": float(np.mean(accuracies)),
                "accuracy_std": float(np.std(accuracies)),
                "bias": mean_bias(shape, texture),
                "low": low,
                "high": high,
                "coverage": float((shape | texture).mean()),
                "usable": int((shape | texture).sum()),
            }
        )
    return rows


def compare(results: Sequence[Result], stimuli: Stimuli) -> list[dict[str, Any]]:
    """Distilled sets against random real images (of the same number, protocol and network) and against all images (of
    the same network): the difference of their mean shape biases with a paired bootstrap interval.

    ``significant``: 1 where the interval leaves out zero and there are at least three students of either kind. A size
    or network that only one side has is left out, so that neither tells them apart.
    """
    rows = []
    for against, name in (("random", "as many random real images"), ("full", "all training images")):

        def cell(result: Result, against: str = against) -> str | None:
            return result.match if against == "random" else result.network

        cells = {cell(r) for r in results if r.kind == "distilled"} & {cell(r) for r in results if r.kind == against}
        cells -= {None}
        if not cells:
            continue
        draws, means = [], []
        sides: dict[str, list[Result]] = {"distilled": [], against: []}
        for c in sorted(cells):
            one = []
            for kind in sides:
                mine = [r for r in results if r.kind == kind and cell(r) == c]
                sides[kind] += mine
                one.append((over_students(*_hits(mine, stimuli)), mean_bias(*_hits(mine, stimuli))))
            if one[0][1] is not None and one[1][1] is not None:
                draws.append(one[0][0] - one[1][0])
                means.append((one[0][1], one[1][1]))
        if not means:
            continue
        low, high = interval(np.nanmean(np.stack(draws), axis=0))
        first, second = (float(np.mean(side)) for side in zip(*means, strict=True))
        enough = min(len(mine) for mine in sides.values()) >= ENOUGH
        apart = low is not None and high is not None and (low > 0 or high < 0)
        rows.append(
            {
                "distilled": first,
                "against": name,
                "other": second,
                "difference": first - second,
                "low": low,
                "high": high,
                "significant": int(enough and apart),
                "distilled_students": len(sides["distilled"]),
                "other_students": len(sides[against]),
                "distilled_accuracy": float(np.mean([r.accuracy for r in sides["distilled"]])),
                "other_accuracy": float(np.mean([r.accuracy for r in sides[against]])),
                "distilled_coverage": float(np.mean([np.logical_or(*_hits([r], stimuli)) for r in sides["distilled"]])),
                "other_coverage": float(np.mean([np.logical_or(*_hits([r], stimuli)) for r in sides[against]])),
            }
        )
    return rows


def headline_of(comparisons: Sequence[dict[str, Any]]) -> str:
    """*Does distilling make networks more texture-biased?*, answered from the comparisons alone."""
    if not comparisons:
        return (
            "Not answered yet: that needs students of distilled sets next to students of as many random real images, "
            "or of all images. Distil a set of this dataset, then run the study with it."
        )
    return " ".join(_sentence(row) for row in comparisons)


def _sentence(row: dict[str, Any]) -> str:
    few = min(row["distilled_students"], row["other_students"]) < ENOUGH
    if row["significant"]:
        verdict = "more texture-biased" if row["difference"] < 0 else "less texture-biased"
        start = f"Compared with {row['against']}, distilling made these networks {verdict}"
    elif few:
        start = f"Compared with {row['against']}, there are too few students to tell (it takes {ENOUGH} of each kind)"
    else:
        start = f"Compared with {row['against']}, no significant difference"
    return (
        f"{start}: shape bias {row['distilled']:.1%} (coverage {row['distilled_coverage']:.0%}, accuracy "
        f"{row['distilled_accuracy']:.1%}) against {row['other']:.1%} (coverage {row['other_coverage']:.0%}, accuracy "
        f"{row['other_accuracy']:.1%}), a difference of {100 * row['difference']:+.1f} points, 95 % interval "
        f"{100 * row['low']:+.1f} to {100 * row['high']:+.1f}."
    )
