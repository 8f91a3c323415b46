"""What-ifs on a set of images: what can be asked (torch-free)."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, TypeVar

from pydantic import Field

from engine.edits import LONGEST
from engine.probes.base import ProbeInfo
from engine.runs.store import Store
from engine.table import Frozen, field

_HOME = "engine.probes.whatif"
Split = Literal["held-out", "test"]
SPLIT_HELP = (
    "held-out: training images kept aside, so that acting on what is found selects nothing on the test images. test: "
    "the test images, for a last look."
)


class SetSpec(Frozen):
    """A question about a set. ``mark`` stands for its state, and is filled in by ``marked``: a run that was resumed, or
    a file that was written anew, is another question."""

    source: str = field("", "Set", "src", "A run id, or the path of a saved set.", min_length=1, max_length=1000)
    mark: str = Field("", max_length=80)


class ValuationSpec(SetSpec):
    """What is each image of a set worth to the students trained on it?"""

    kind: Literal["leave-one-out", "shapley"] = field(
        "leave-one-out",
        "Values",
        "k",
        "leave-one-out: the accuracy lost without the image. shapley: what it adds to random parts of the set, which "
        "shares out what several images teach alike, and takes longer.",
    )
    seeds: int = field(3, "Students", "st", "Networks trained on each part of the set.", ge=1, le=20)
    images: int = field(2000, "Real images", "n", "How many real images judge the students.", ge=50, le=10_000)
    split: Split = field("held-out", "Judged on", "sp", SPLIT_HELP)
    orders: int = field(10, "Orders", "o", "Random orders for Shapley values.", True, ge=2, le=500)
    tolerance: float = field(
        0.02,
        "Tolerance",
        "tol",
        "A random order ends where the accuracy is as close as this to that of the whole set; the images left add "
        "nothing in it.",
        True,
        ge=0,
        le=0.5,
    )
    seed: int = field(0, "Seed", "s", "Seed of the students and of the orders.", True, ge=0, le=1_000_000)


class EditsSpec(SetSpec):
    """What do the images of a set look like after some edits?"""

    edits: str = field(
        "", "Edits", "ed", "What is done to the images, in this order; see the command “edit”.", max_length=LONGEST
    )


class EditedSpec(EditsSpec):
    """What do edits of a set change in the students trained on it?"""

    seeds: int = field(2, "Students", "st", "Networks trained on either set, from the same seeds.", ge=1, le=10)
    images: int = field(1000, "Real images", "n", "How many real images judge the students.", ge=50, le=10_000)
    split: Split = field("held-out", "Judged on", "sp", SPLIT_HELP)
    seed: int = field(
        0, "Seed", "s", "Seed of the first student; the others count on from it.", True, ge=0, le=1_000_000
    )


class QuizSpec(SetSpec):
    """Images of a set to guess the class of, and what a trained network says to them."""

    student: str = field(
        "", "Network", "nw", "The id of a trained student that answers too; may be empty.", max_length=80
    )
    images: int = field(10, "Questions", "q", "How many images are shown, drawn at random.", ge=3, le=30)
    seed: int = field(0, "Seed", "s", "Seed of the draw.", True, ge=0, le=1_000_000)


Asked = TypeVar("Asked", bound=SetSpec)


def marked(spec: Asked, store: Store) -> Asked:
    """The same question, about the set as it is on disk now."""
    path = store.result_folder(spec.source) or Path(spec.source).expanduser()
    try:
        path = path / "synthetic.safetensors" if path.is_dir() else path
        state = path.stat()
    except (OSError, ValueError, RuntimeError):  # whoever answers says what is wrong with it
        return spec
    return spec.model_copy(update={"mark": f"{state.st_size}-{state.st_mtime_ns}"})


WHATIF = (
    ProbeInfo(
        "valuation",
        "Which images matter?",
        "Leave-one-out or Shapley values of each image of a set, in accuracy and class by class.",
        ValuationSpec,
        f"{_HOME}.valuation",
        marked,
    ),
    ProbeInfo(
        "edited",
        "Edited images",
        "The images of a set before and after edits; see the command “edit”.",
        EditsSpec,
        f"{_HOME}.editing",
        marked,
    ),
    ProbeInfo(
        "edit",
        "What an edit changes",
        "Accuracy and decisions of students of a set and of the same set after edits; see the command “edit”.",
        EditedSpec,
        f"{_HOME}.editing",
        marked,
    ),
    ProbeInfo(
        "quiz",
        "Quiz",
        "Images of a set to guess the class of, and what a trained network says to them.",
        QuizSpec,
        f"{_HOME}.quiz",
        marked,
    ),
)
