"""Expert trajectories: networks trained on the real images, and the weights they pass through (Cazenavette et al. 2022,
section 3.1).

Experts are recorded here, a little at a time, so that a run can show its images at once and match what is there while
the rest is recorded. What an expert becomes depends on its number and the settings alone: each epoch draws its batches
and augmentations from a seed of its own. Trajectories are kept on disk in half precision and found again by every run
with the same data, network and settings; an interrupted recording goes on at its last epoch.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from engine import augment
from engine.accel import Accel
from engine.data.base import Dataset
from engine.distill.images import looked_at, network_key
from engine.errors import Refused
from engine.home import aside, cache_folder
from engine.methods import MTTParameters
from engine.networks import make_network
from engine.spec import RunSpec
from engine.students.train import place, place_parameter, program
from engine.synthetic import ZCA

Weights = dict[str, Tensor]

VERSION = 2  # raise it when anything below changes the trajectories
FIRST_SEED = 1_000_000  # no student that is evaluated starts where an expert did
NOW = "now."  # before the names of an unfinished expert's weights in full precision


class Experts:
    """The expert trajectories of a run's settings: those on disk, and the one being recorded.

    A trajectory is ``epochs + 1`` snapshots of the weights: as initialised, and after each epoch of plain SGD.
    """

    def __init__(self, spec: RunSpec, data: Dataset, accel: Accel, zca: ZCA | None):
        """Finds what there is. Raises ``Refused`` when the disk has no room for the rest."""
        assert isinstance(spec.parameters, MTTParameters)
        self.own, self.data, self.accel = spec.parameters, data, accel
        self.key = network_key(spec, data)
        device = accel.device
        self.zca = zca and replace(
            zca, components=zca.components.to(device), gains=zca.gains.to(device), centre=zca.centre.to(device)
        )
        self.images, self.labels = data.train_images.to(device), data.train_labels.to(device)
        self.per_epoch = min(self.own.expert_images or len(data.distil_indices), len(data.distil_indices))
        self.batch = min(self.own.batch_real, self.per_epoch)
        self.strategy = augment.strategy_for(data, "dsa") if self.own.augment else None
        self.about = {
            "version": VERSION,
            "data": data.digest,
            "network": self.key,
            "zca": zca is not None,
            "epochs": self.own.epochs,
            "images": self.per_epoch,
            "batch": self.batch,
            "rate": self.own.expert_rate,
            "augment": self.strategy,
            "deterministic": accel.deterministic and device.type,
        }
        name = hashlib.sha256(json.dumps(self.about, sort_keys=True).encode()).hexdigest()[:24]
        self.folder = cache_folder("experts") / name
        self.folder.mkdir(exist_ok=True)
        self.shapes = {k: tuple(p.shape) for k, p in make_network(*self.key).named_parameters()}
        self.recorded = [i for i in range(self.own.experts) if self._whole(self._path(i))]
        self.young: list[Weights] = []  # snapshots so far of the expert that is being recorded
        self.fraction = 0.0  # of it that is done
        self._work = self._record()
        self._check_room()

    # ---- what there is ----

    @property
    def complete(self) -> bool:
        """Whether all experts that were asked for are recorded."""
        return len(self.recorded) >= self.own.experts

    @property
    def progress(self) -> str:
        """Which expert is being recorded, for people."""
        return f"expert {min(len(self.recorded) + 1, self.own.experts)} of {self.own.experts}"

    def segments(self) -> list[tuple[int, int]]:
        """(expert, number of epochs at which a segment may start) of all experts that can be matched now."""
        own = self.own
        found = [(i, own.max_start) for i in self.recorded]
        starts = min(own.max_start, len(self.young) - own.expert_epochs)
        return [*found, (self._next(), starts)] if starts > 0 else found

    def weights(self, expert: int, epoch: int) -> Weights:
        """Float32 weights of ``expert`` after ``epoch`` epochs, on the device."""
        if expert in self.recorded:
            with safe_open(self._path(expert), "pt") as file:
                snapshot = {name: file.get_slice(name)[epoch] for name in self.shapes}
        else:
            snapshot = self.young[epoch]
        return {name: place_parameter(w.float(), self.images, ensemble=False) for name, w in snapshot.items()}

    # ---- recording ----

    def record(self, seconds: float) -> None:
        """Record for about so long, or until there is nothing left to record."""
        until = time.perf_counter() + seconds
        for _ in self._work:
            if time.perf_counter() >= until:
                return

    def _record(self) -> Iterator[None]:
        """All missing experts, one training step at a time."""
        channels, size, classes, width, depth = self.key[1:]
        made = program(self.key[0], channels, size, classes, width, "cross-entropy", False, self.accel, depth=depth)
        while not self.complete:
            expert = self._next()
            weights = self._begin(expert)
            while (epoch := len(self.young) - 1) < self.own.epochs:
                batches = list(self._indices(expert, epoch))
                generator = torch.Generator().manual_seed(FIRST_SEED + 1000 * expert + epoch)
                for done, picked in enumerate(batches, 1):
                    slopes, loss = made.fast_step(weights, self._augmented(picked, generator), self.labels[picked])
                    for name, weight in weights.items():
                        weight.sub_(slopes[name], alpha=self.own.expert_rate)
                    self.fraction = (epoch + done / len(batches)) / self.own.epochs
                    yield
                if not bool(loss.isfinite()):
                    raise Refused(
                        f"The experts diverge at a learning rate (expert_rate) of {self.own.expert_rate:g}; "
                        "choose a smaller one."
                    )
                self.young.append(_halved(weights))
                self._keep(expert, weights)
            self.recorded.append(expert)
            self.young, self.fraction = [], 0.0

    def _next(self) -> int:
        """The number of the first expert that is missing."""
        return next(i for i in range(self.own.experts) if i not in self.recorded)

    def _begin(self, expert: int) -> Weights:
        """Where ``expert`` goes on: at initialisation, or at the last epoch that an earlier process recorded."""
        path = self._path(expert, ".part")
        try:
            kept = load_file(path)
            weights = {name: kept[NOW + name] for name in self.shapes}
            epochs = len(kept[next(iter(self.shapes))])
            self.young = [{name: kept[name][epoch].clone() for name in self.shapes} for epoch in range(epochs)]
            if any(tuple(weights[name].shape) != shape for name, shape in self.shapes.items()):
                raise ValueError("another network")
        except (OSError, SafetensorError, KeyError, IndexError, ValueError):  # there is none, or it is damaged
            network = make_network(*self.key, seed=FIRST_SEED + expert)
            weights = {name: p.detach() for name, p in network.named_parameters()}
            self.young = [_halved(weights)]
        return {name: place_parameter(w, self.images, ensemble=False) for name, w in weights.items()}

    def _indices(self, expert: int, epoch: int) -> Iterator[Tensor]:
        """Whole batches of training images in random order; the rest of the last one waits for another epoch."""
        pool = self.data.distil_indices
        generator = torch.Generator().manual_seed(2 * FIRST_SEED + 1000 * expert + epoch)
        order = pool[torch.randperm(len(pool), generator=generator)][: self.per_epoch]
        for picked in order.split(self.batch):
            if len(picked) == self.batch:
                yield picked.to(self.images.device)

    def _augmented(self, picked: Tensor, generator: torch.Generator) -> Tensor:
        """A batch in the space of the network, under one operation with parameters of each image's own."""
        looked_at(picked)
        images = self.data.normalise(self.images[picked])
        if self.zca:
            images = self.zca.whiten(images)
        if self.strategy:
            images = augment.apply(images, augment.draw(self.strategy, generator, self.data.size, len(images)))
        return place(images, self.accel)

    # ---- the disk ----

    def _path(self, expert: int, part: str = "") -> Path:
        return self.folder / f"{expert:03d}{part}.safetensors"

    def _whole(self, path: Path) -> bool:
        """Whether a file holds the whole trajectory of a network like ours."""
        try:
            with safe_open(path, "pt") as file:
                found = {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118
        except (OSError, SafetensorError):
            return False
        return found == {name: (self.own.epochs + 1, *shape) for name, shape in self.shapes.items()}

    def _keep(self, expert: int, weights: Weights) -> None:
        """Write the snapshots so far aside and rename them; what is whole replaces its part."""
        whole = len(self.young) == self.own.epochs + 1
        tensors = {name: torch.stack([s[name] for s in self.young]).contiguous() for name in self.shapes}
        if not whole:
            tensors |= {NOW + name: w.cpu().contiguous() for name, w in weights.items()}
        for left in self.folder.glob(".*"):  # what a killed writer left an hour ago or more
            if time.time() - left.stat().st_mtime > 3600:
                left.unlink(missing_ok=True)
        with aside(self._path(expert, "" if whole else ".part")) as part:
            save_file(tensors, part, {"about": json.dumps(self.about)})
        if whole:
            self._path(expert, ".part").unlink(missing_ok=True)

    def _check_room(self) -> None:
        missing = self.own.experts - len(self.recorded)
        numbers = sum(torch.Size(shape).numel() for shape in self.shapes.values())
        need, free = 2.0 * missing * (self.own.epochs + 1) * numbers, shutil.disk_usage(self.folder).free
        if need > 0.9 * free:
            raise Refused(
                f"{missing} experts of {self.own.epochs} epochs take {need / 1e9:.1f} GB on disk, but {free / 1e9:.1f} "
                "GB are free where runs are kept. Choose fewer experts (experts), fewer epochs (epochs) or a narrower "
                "network (width), or free some space."
            )


def _halved(weights: Weights) -> Weights:
    """A snapshot: float16 on the CPU, of its own memory."""
    return {name: w.detach().to("cpu", torch.float16, copy=True).contiguous() for name, w in weights.items()}
