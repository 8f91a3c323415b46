"""What a few random networks see of the real images, computed once, used many times, refreshed slowly."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

FIRST = 8  # the first view is made from this many times fewer real images, so that the first step need not wait


class Bank:
    """Views of the real images by random networks; each is used by many steps and replaced in turn.

    A view is a dictionary that ``begin()`` starts (a network, an augmentation) and that gains, under ``"classes"``, one
    entry per class from ``see(view, c, share)``, where ``share`` is the fraction of the usual real images to look at.
    One class is seen every ``refresh`` steps, so no step is much longer than another; a finished view replaces the
    oldest once ``size`` are kept. Steps draw uniformly among the kept views: for a method whose networks are random and
    never trained, its expectation is that of a fresh view every step.
    """

    def __init__(
        self,
        size: int,
        refresh: int,
        classes: int,
        begin: Callable[[], dict[str, Any]],
        see: Callable[[dict[str, Any], int, float], Any],
        generator: torch.Generator,
    ):
        self.size, self.refresh, self.classes = size, refresh, classes
        self.begin, self.see, self.generator = begin, see, generator
        self.views: list[dict[str, Any]] = []
        self.upcoming: dict[str, Any] | None = None
        self.ticks = 0

    def draw(self) -> dict[str, Any]:
        """One of the kept views at random, after a little work on the next one."""
        if not self.views:
            self.views.append(self.whole(1 / FIRST))
        elif self.ticks % self.refresh == 0:
            self.upcoming = self.upcoming or {**self.begin(), "classes": []}
            seen = self.upcoming["classes"]
            seen.append(self.see(self.upcoming, len(seen), 1.0))
            if len(seen) == self.classes:
                first_was_rough = self.views[0].get("rough", False)
                self.views = [*(self.views[1:] if first_was_rough else self.views), self.upcoming][-self.size :]
                self.upcoming = None
        self.ticks += 1
        return self.views[int(torch.randint(len(self.views), (1,), generator=self.generator))]

    def whole(self, share: float = 1.0) -> dict[str, Any]:
        """A view of all classes at once."""
        view = {**self.begin(), "classes": [], "rough": share < 1}
        for c in range(self.classes):
            view["classes"].append(self.see(view, c, share))
        return view

    def state_dict(self) -> dict[str, Any]:
        """The views, finished and under way."""
        return {"views": self.views, "upcoming": self.upcoming, "ticks": self.ticks}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a ``state_dict``."""
        self.views, self.upcoming, self.ticks = state["views"], state["upcoming"], state["ticks"]
