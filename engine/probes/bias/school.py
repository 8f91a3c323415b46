"""What a study trains: networks on real images, on stylised ones, on distilled sets, and where the truth is known."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from engine.data.base import Dataset
from engine.data.catalogue import SHAPES
from engine.data.shapes import make_shapes
from engine.data.stylise import stylised
from engine.distill import Diverged, make_distiller
from engine.errors import Refused
from engine.methods import METHODS
from engine.networks import STUDENT_NETWORKS
from engine.probes.answerer import Work
from engine.probes.bias.specs import StudySpec
from engine.probes.bias.stimuli import network_name, teacher_for
from engine.spec import build_spec
from engine.students.fit import as_student, fit, shortened, train_one
from engine.students.kept import Student
from engine.students.train import make_plan
from engine.synthetic import SyntheticSet, load_synthetic

TIES = {
    "tied": "shape and texture predict",
    "shape-only": "only shape predicts (one flat colour)",
    "independent": "only shape predicts (textures at random)",
    "by-texture": "only texture predicts",
}

Tell = Callable[[float], None]


@dataclass(frozen=True)
class Condition:
    """A way to train a network: ``train(seed, tell)`` gives a student.

    ``kind``: of the training set, as pages mark it. ``match``: what a condition may be compared with, sets of one size
    under one protocol for one network. ``made``: the set it trains on where that is always the same one; None where
    every seed has a set of its own.
    """

    label: str
    kind: str
    images: int
    network: str
    train: Callable[[int, Tell], Student]
    ipc: float | None = None
    method: str | None = None
    match: str | None = None
    made: str | None = None


class School:
    """Trains the networks of a study; what several of them need is made once.

    ``work`` is told of what comes before training; ``data`` is the dataset all of them are tested on.
    """

    def __init__(self, spec: StudySpec, work: Work, data: Dataset):
        self.spec, self.work, self.data = spec, work, data
        self._sets: dict[Any, SyntheticSet] = {}
        self._styled: Dataset | None = None

    def conditions(self) -> Iterator[Condition]:
        """All ways to train that the spec asks for. Raises ``Refused`` for what can be known not to work."""
        spec, data = self.spec, self.data
        networks = listed(spec.networks)
        for network in networks:
            if network not in STUDENT_NETWORKS:
                raise Refused(f"There is no network “{network}”; choose from {', '.join(STUDENT_NETWORKS)}.")
        if not networks:
            raise Refused(f"Name at least one network, such as {STUDENT_NETWORKS[0]}.")
        methods = listed(spec.methods)
        for method in methods:
            if method not in METHODS:
                raise Refused(f"There is no method “{method}”; choose from {', '.join(METHODS)}, or none.")
        sizes = _sizes(spec.ipc, data) if methods else []
        if spec.ties and data.classes != SHAPES:
            raise Refused("What predicts the class is only known of the dataset shapes; leave known truths out.")
        for network in networks:
            yield from (self._real(network, count) for count in _counts(spec.counts, data))
            if spec.stylised != "none":
                yield self._stylised(network)
            if spec.ties:
                yield from (self._known(network, tie) for tie in TIES)
            stored = list(self._stored(network))
            for ipc in sizes:
                yield from (self._distilled(network, method, ipc) for method in methods)
                if spec.stylised != "none":
                    yield from (self._distilled(network, method, ipc, styled=True) for method in methods)
            yield from stored
            # As many random real images, once for each size that something was distilled to
            of = [*sizes, *(c.ipc for c in stored if c.kind == "distilled" and c.ipc is not None)]
            yield from (self._random(network, ipc) for ipc in dict.fromkeys(int(i) for i in of if i == int(i)))

    # ---- on real images ----

    def _real(self, network: str, count: int) -> Condition:
        data = self.data
        everything = count >= len(data.distil_indices)

        def train(seed: int, tell: Tell) -> Student:
            indices = data.distil_indices if everything else _some(data, count, seed)
            return self._fit(network, data.train_images[indices], data.train_labels[indices], seed, tell)

        label = f"all {len(data.distil_indices):,} images" if everything else f"{count:,} real images"
        kind = "full" if everything else "random"
        return self._condition(label, kind, min(count, len(data.distil_indices)), network, train)

    def _stylised(self, network: str) -> Condition:
        def train(seed: int, tell: Tell) -> Student:
            data = self.styled(lambda f: tell(0.5 * f))
            chosen = data.distil_indices
            return self._fit(
                network, data.train_images[chosen], data.train_labels[chosen], seed, lambda f: tell(0.5 + 0.5 * f)
            )

        style, count = self.spec.stylised, len(self.data.distil_indices)
        return self._condition(f"all images, stylised ({style})", "stylised", count, network, train, method=style)

    def _known(self, network: str, tie: str) -> Condition:
        def train(seed: int, tell: Tell) -> Student:
            made = make_shapes(200, 4_000_000 + seed, tie)
            return self._fit(network, made.images, made.labels, seed, tell)

        return self._condition(TIES[tie], "known", 200 * len(self.data.classes), network, train, method=tie)

    def _fit(self, network: str, images: Tensor, labels: Tensor, seed: int, tell: Tell) -> Student:
        steps, width = self.spec.training, self.spec.width
        accel = self.work.accel
        module = fit(images, labels, self.data, network, seed=seed, steps=steps, accel=accel, tell=tell, width=width)
        return as_student(module, self.data, "", network=network)

    # ---- on small sets, all under one protocol ----

    def _stored(self, network: str) -> Iterator[Condition]:
        """Sets that runs have made."""
        spec, store, data = self.spec, self.work.store, self.data
        for id in listed(spec.sets):
            folder, run = store.result_folder(id), store.run(id)
            if folder is None or run is None:
                raise Refused(f"Run “{id[:80]}” has no set; choose runs that are done, all, or none.")
            if id not in self._sets:
                self._sets[id] = load_synthetic(folder)
            synthetic = self._sets[id]
            make_plan(synthetic, data, spec.protocol, network, self.work.accel)  # refused here, not after minutes
            ipc = len(synthetic.images) / len(data.classes)
            method = str(run.spec.get("method") or run.spec.get("kind") or "imported")
            kind = {"distill": "distilled", "import": "imported"}.get(
                run.kind, "random" if method == "random" else "selected"
            )
            yield self._on_set(
                f"{method}, {ipc:g} per class ({id[-5:]})", kind, network, lambda *_, it=synthetic: it, ipc, method, id
            )

    def _distilled(self, network: str, method: str, ipc: int, styled: bool = False) -> Condition:
        """Sets distilled here, another one from each seed."""

        def make(seed: int, tell: Tell) -> SyntheticSet:
            key = (method, ipc, styled, seed)
            if key not in self._sets:
                self._sets[key] = self.distil(method, ipc, seed, styled, tell)
            return self._sets[key]

        if styled:
            label = f"{method} from stylised images ({self.spec.stylised}), {ipc} per class"
            return self._on_set(label, "distilled-stylised", network, make, ipc, method)
        return self._on_set(f"{method}, {ipc} per class", "distilled", network, make, ipc, method)

    def _random(self, network: str, ipc: int) -> Condition:
        data = self.data

        def make(seed: int, _: Tell) -> SyntheticSet:
            indices = _some(data, ipc * len(data.classes), seed)
            images = data.normalise(data.train_images[indices])
            labels = data.train_labels[indices]
            return SyntheticSet(images, labels, data.name, data.classes, data.mean, data.std, kind="random")

        return self._on_set(f"random real, {ipc} per class", "random", network, make, ipc, "random")

    def _on_set(
        self,
        label: str,
        kind: str,
        network: str,
        make: Callable[[int, Tell], SyntheticSet],
        ipc: float,
        method: str,
        made: str | None = None,
    ) -> Condition:
        spec, data = self.spec, self.data

        def train(seed: int, tell: Tell) -> Student:
            chosen = make(seed, lambda f: tell(0.7 * f))
            plan = make_plan(chosen, data, spec.protocol, network, self.work.accel)
            slices = train_one(shortened(plan, width=spec.width), seed)
            while True:
                try:
                    tell(0.7 + 0.3 * next(slices))
                except StopIteration as end:
                    student = as_student(end.value, data, "", mean=list(chosen.mean), std=list(chosen.std))
                    return replace(student, zca=chosen.zca, facts={**student.facts, "network": network})

        count = round(ipc * len(data.classes))
        match = f"{ipc:g} per class, {spec.protocol}, {network_name(network, spec.width)}"
        return self._condition(label, kind, count, network, train, ipc=ipc, method=method, match=match, made=made)

    def _condition(self, label: str, kind: str, images: int, network: str, train: Any, **about: Any) -> Condition:
        name = network_name(network, self.spec.width)
        return Condition(f"{label}, {name}", kind, images, name, train, **about)

    # ---- what they need ----

    def styled(self, tell: Tell) -> Dataset:
        """The dataset with its training images stylised."""
        if self._styled is None:
            spec, work, data = self.spec, self.work, self.data
            assert spec.stylised != "none"
            teacher = None if spec.stylised == "fourier" else teacher_for(work, data.name, data.size)
            images = stylised(data, spec.stylised, spec.seed, work.accel, tell, teacher)
            self._styled = replace(data, train_images=images)
        return self._styled

    def distil(self, method: str, ipc: int, seed: int, styled: bool, tell: Tell) -> SyntheticSet:
        """A set distilled from real or from stylised images for ``spec.distilling`` steps."""
        spec = self.spec
        data = self.styled(lambda f: tell(0.2 * f)) if styled else self.data
        wanted = build_spec(
            "distill", dataset=spec.dataset, method=method, ipc=ipc, seed=seed, steps=spec.distilling,
            width=spec.width, students=0,
        )  # fmt: skip
        distiller = make_distiller(method)
        distiller.setup(wanted, data, self.work.accel)
        for step in range(spec.distilling):
            try:
                distiller.progress = step / spec.distilling
                distiller.step()
            except Diverged:
                raise Refused(
                    f"Distilling {ipc} images per class with {method} diverged at step {step + 1}; choose fewer "
                    "distilling steps or another method."
                ) from None
            tell((step + 1) / spec.distilling)
        return distiller.synthetic()


def listed(text: str) -> list[str]:
    """The parts of ``a,b,c``, each once; ``none`` is no part."""
    parts = [part.strip() for part in text.split(",")]
    return list(dict.fromkeys(p for p in parts if p and p != "none"))


def _some(data: Dataset, count: int, seed: int) -> Tensor:
    """Indices of about ``count`` training images, as many of each class, drawn from ``seed``."""
    generator = torch.Generator().manual_seed(seed)
    each = max(1, round(count / len(data.classes)))
    return torch.cat([m[torch.randperm(len(m), generator=generator)[:each]] for m in data.by_class])


def _counts(text: str, data: Dataset) -> list[int]:
    """``10,100,all`` as numbers; those beyond the dataset's own are the same as all."""
    most = len(data.distil_indices)
    found = []
    for part in listed(text):
        if part != "all" and not (part.isdecimal() and len(part) < 9 and int(part) >= len(data.classes)):
            raise Refused(
                f"Training images (counts) were “{part[:40]}”, but must be numbers from {len(data.classes)}, which is "
                "one of each class, separated by commas; all for every image, or none."
            )
        found.append(most if part == "all" else min(int(part), most))
    return list(dict.fromkeys(found))


def _sizes(text: str, data: Dataset) -> list[int]:
    """``1,10`` as numbers of images per class."""
    least = min(len(members) for members in data.by_class)
    most = min(100, least)
    found = []
    for part in listed(text):
        if not (part.isdecimal() and len(part) < 4 and 1 <= int(part) <= most):
            raise Refused(
                f"Images per class (ipc) were “{part[:40]}”, but must be whole numbers from 1 to {most}, separated by "
                "commas."
            )
        found.append(int(part))
    if not found:
        raise Refused("Name how many images per class are distilled (ipc), such as 1,10; or no methods.")
    return list(dict.fromkeys(found))
