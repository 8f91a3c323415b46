"""Texture or shape: what the probes can be asked (torch-free)."""

from __future__ import annotations

from typing import Literal

from engine.probes.base import ProbeInfo
from engine.runs.store import Store
from engine.table import Frozen, field

SOURCES = ("auto", "shapes", "fourier", "style", "geirhos")
Source = Literal["auto", "shapes", "fourier", "style", "geirhos"]

_STUDENTS = "Ids of trained students, separated by commas."
_SOURCE = (
    "Cue-conflict stimuli. shapes: generated, exact. fourier: a test image's phase with the amplitude of one of "
    "another class. style: a test image in the style of one of another class (neural style transfer). geirhos: ready "
    "stimuli from a folder or .zip. auto: shapes for shapes, geirhos where the classes are theirs and the file is "
    "there, else fourier."
)
_STIMULI = (
    "Folder or .zip of ready stimuli named shape1-texture2.png, as in Geirhos et al.; texture-vs-shape.zip among the "
    "data unless given."
)


def _students(most: int) -> str:
    return field("", "Students", "st", f"{_STUDENTS} At most {most}.", min_length=1, max_length=2000)


def _count(default: int, most: int = 1000) -> int:
    return field(default, "Stimuli", "n", "How many stimuli are made, evenly over classes.", ge=20, le=most)


def _seed() -> int:
    return field(0, "Seed", "s", "Seed of everything random.", True, ge=0, le=2**31 - 1)


def _stimuli() -> str | None:
    return field(None, "Ready stimuli", "zip", _STIMULI, True, max_length=500)


def _technique() -> Literal["gram", "adain"]:
    return field(
        "gram",
        "Style transfer",
        "tr",
        "gram: Gram matrices of a teacher's features (Gatys et al. 2016). adain: their means and deviations (Huang & "
        "Belongie 2017), found by moving pixels.",
        True,
    )


def _steps() -> int:
    return field(40, "Transfer steps", "ts", "Steps that move the pixels in style transfer.", True, ge=1, le=500)


class BiasSpec(Frozen):
    """Shape bias of students on cue-conflict stimuli."""

    students: str = _students(8)
    source: Source = field("auto", "Stimuli from", "src", _SOURCE)
    count: int = _count(300)
    technique: Literal["gram", "adain"] = _technique()
    steps: int = _steps()
    stimuli: str | None = _stimuli()
    seed: int = _seed()


class FiveSpec(Frozen):
    """Accuracy of students on originals, greyscale, silhouettes, edges and textures."""

    students: str = _students(8)
    count: int = _count(500, 2000)
    texture: Literal["patches", "gram"] = field(
        "patches",
        "Textures",
        "tx",
        "How textures are made from test images: patches moved around at random, or images synthesised from noise "
        "with the Gram matrices of a teacher's features.",
    )
    steps: int = _steps()
    stimuli: str | None = _stimuli()
    seed: int = _seed()


class ConsistencySpec(Frozen):
    """Whether students, people and other networks err on the same images."""

    students: str = _students(12)
    source: Literal["auto", "test", "shapes", "fourier", "style", "geirhos"] = field(
        "auto", "Stimuli from", "src", f"test: the students' test images. {_SOURCE}"
    )
    count: int = _count(300, 2000)
    technique: Literal["gram", "adain"] = _technique()
    steps: int = _steps()
    stimuli: str | None = _stimuli()
    seed: int = _seed()


class StudySpec(Frozen):
    """Trains students in different ways and measures the shape bias of each."""

    dataset: str = field(
        "shapes", "Dataset", "d", "A dataset id, or folder:PATH for images of your own.", min_length=1, max_length=500
    )
    source: Source = field("auto", "Stimuli from", "src", _SOURCE)
    counts: str = field(
        "10,100,1000,all",
        "Training images",
        "c",
        "Numbers of real training images, in all classes together, separated by commas; all for every one; "
        "none for none.",
        max_length=100,
    )
    networks: str = field(
        "convnet", "Networks", "net", "Networks to train, separated by commas, such as convnet,vit.", max_length=200
    )
    sets: str = field(
        "all",
        "Distilled sets",
        "sets",
        "Runs whose sets students are trained on, next to as many random real images under the same protocol: ids "
        "separated by commas, all for up to six distilled sets that the dataset has then, or none.",
        max_length=2000,
    )
    methods: str = field(
        "none",
        "Distil now",
        "m",
        "Methods that distil sets for the study, another one from each seed, separated by commas, such as dm,frepo; or "
        "none. With stylised training, the stylised images are distilled too.",
        max_length=100,
    )
    ipc: str = field(
        "1,10", "Images per class", "ipc", "Sizes of the sets distilled now, separated by commas.", max_length=100
    )
    protocol: Literal["quick", "dc", "dsa", "frepo"] = field(
        "quick", "Protocol of the sets", "p", "How students are trained on sets, and on as many random real images."
    )
    students: str = field(
        "none",
        "Trained students",
        "st",
        "Students taken over as they are: ids separated by commas, all for up to forty that the dataset has then, or "
        "none.",
        max_length=4000,
    )
    stylised: Literal["none", "fourier", "adain"] = field(
        "none",
        "Stylised training",
        "sty",
        "Also train on images that carry the amplitude spectrum (fourier) or the feature statistics (adain) of an "
        "image of another class.",
    )
    ties: bool = field(
        False,
        "Known truths",
        "tie",
        "Shapes only: also train where only shape, only texture, or both predict the class.",
    )
    distilling: int = field(
        200, "Distilling steps", "nd", "Steps of every set that is distilled now.", True, ge=1, le=100_000
    )
    seeds: int = field(3, "Students of each kind", "k", "Networks trained from different seeds.", ge=1, le=20)
    training: int = field(
        400, "Training steps", "ns", "Optimiser steps of every network on real images.", True, ge=10, le=20_000
    )
    width: int = field(
        64, "Network width", "w", "Channels of each ConvNet layer, on real images and on sets.", True, ge=8, le=256
    )
    minutes: float = field(10.0, "Minutes", "min", "No further network is trained after this time.", ge=0.1, le=1440.0)
    tests: int = field(
        2000, "Test images", "nt", "How many test images an accuracy is measured on.", True, ge=100, le=100_000
    )
    count: int = _count(300)
    technique: Literal["gram", "adain"] = _technique()
    steps: int = _steps()
    stimuli: str | None = _stimuli()
    seed: int = _seed()


MOST_STUDENTS, MOST_SETS = 40, 6  # of its dataset that a study takes over


def named(spec: StudySpec, store: Store) -> StudySpec:
    """A study with the ids of the students and sets that ``all`` means now, the newest first."""
    found = {}
    if spec.students.strip() == "all":
        runs = store.runs(kinds=["student"], dataset=spec.dataset, statuses=["done"], limit=1000)
        found["students"] = [r.id for r in runs if store.student(r.id)][:MOST_STUDENTS]
    if spec.sets.strip() == "all":
        runs = store.runs(kinds=["distill"], dataset=spec.dataset, statuses=["done", "stopped"])
        found["sets"] = [r.id for r in runs if store.result_folder(r.id) and not r.gallery][:MOST_SETS]
    return spec.model_copy(update={name: ",".join(ids) or "none" for name, ids in found.items()})


BIAS: tuple[ProbeInfo, ...] = (
    ProbeInfo(
        "bias",
        "Shape bias",
        "Where shape and texture name different classes: which of the two decides? (Geirhos et al. 2019)",
        BiasSpec,
        "engine.probes.bias.conflict",
    ),
    ProbeInfo(
        "five",
        "Five experiments",
        "Accuracy on originals, greyscale, silhouettes, edges and textures. (Geirhos et al. 2019)",
        FiveSpec,
        "engine.probes.bias.five",
    ),
    ProbeInfo(
        "consistency",
        "Error consistency",
        "Do two students, or a student and people, err on the same images more than chance has it? (Cohen's kappa; "
        "Geirhos, Meding & Wichmann 2020)",
        ConsistencySpec,
        "engine.probes.bias.consistency",
    ),
    ProbeInfo(
        "bias-study",
        "What changes the shape bias?",
        "Trains students on few and many images, distilled sets, stylised images and with other networks, and sets "
        "their shape bias against their accuracy.",
        StudySpec,
        "engine.probes.bias.study",
        named,
    ),
)
