"""Quick students of a set, and what each of them says about real images: what all what-ifs are measured with."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from engine.data import load
from engine.data.base import Dataset
from engine.errors import Refused
from engine.probes.answerer import Work
from engine.probes.attribution.pictures import shown
from engine.runs.evaluating import check_fit
from engine.runs.imports import read_set
from engine.students.evaluation import Real, Split
from engine.students.train import make_plan, train_slices
from engine.synthetic import SyntheticSet

PROTOCOL = "quick"


def asked_set(source: str, work: Work) -> tuple[SyntheticSet, Dataset]:
    """The set of a run, or at a path, without the steps it may prescribe, and its dataset. Raises ``Refused``."""
    folder = work.store.result_folder(source)
    if folder is None and work.store.run(source) is not None:
        raise Refused(f"Run {source} has no result yet; wait until it has finished.")
    synthetic = read_set(folder or Path(source).expanduser())
    work.tell(0.0, f"Loading {synthetic.dataset}.")
    data = load(synthetic.dataset, synthetic.images.shape[-1])
    check_fit(synthetic, data)
    return replace(synthetic, step_sizes=None, turns=1, start=None), data


def in_a_row(synthetic: SyntheticSet) -> np.ndarray:
    """The images of a set side by side as people see them, uint8 (H, N·W, 3)."""
    return np.concatenate([shown(image) for image in synthetic.pixels()], 1)


class Judges:
    """Real images in the space of a set, with their ``truth`` (M,), that judge students of it, or of parts of it."""

    def __init__(self, synthetic: SyntheticSet, data: Dataset, split: Split, limit: int, work: Work):
        self.data, self.work = data, work
        self.real = Real(synthetic, data, split, limit, work.accel)
        self.truth = self.real.labels.cpu()
        self.there = torch.bincount(self.truth, minlength=len(data.classes)).double()

    def __len__(self) -> int:
        return len(self.real)

    def said(self, synthetic: SyntheticSet, seeds: list[int], tell: Callable[[], None]) -> Tensor:
        """Predicted classes (seeds, M) of students of ``synthetic``; ``tell`` is called between steps, and may raise.

        Seeds are trained as one batched ensemble where that is faster. Those of two sets start alike.
        """
        plan = make_plan(synthetic, self.data, PROTOCOL, accel=self.work.accel)
        found = []
        for members in plan.groups(seeds):
            slices = train_slices(plan, members)
            while True:
                try:
                    next(slices)
                except StopIteration as end:
                    group = end.value
                    break
                tell()
            found.append(torch.cat([group.predict(self.real.batch(i)[0]).cpu() for i in range(self.real.batches)], 1))
        return torch.cat(found)

    def by_class(self, said: Tensor) -> Tensor:
        """(seeds, K) float64 accuracies on each class; 0 for a class without real images."""
        right = (said == self.truth).double()
        sums = [torch.bincount(self.truth, weights=row, minlength=len(self.there)) for row in right]
        return torch.stack(sums) / self.there.clamp_min(1)

    def overall(self, by_class: Tensor) -> Tensor:
        """Accuracies (...,), or differences of them, from those on each class (..., K)."""
        return by_class @ (self.there / self.there.sum())
