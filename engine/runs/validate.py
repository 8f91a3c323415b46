"""What can be refused before a run exists, beyond what its spec refuses by itself (torch-free)."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from pydantic import BaseModel

from engine.data.catalogue import DATASETS, FOLDER, availability
from engine.data.folder_check import opened
from engine.edits import parse
from engine.errors import Refused
from engine.estimate import estimate
from engine.exports.setfile import says_all
from engine.methods import (
    ATTENTION_NEEDS_LAYERS,
    BANK_NEEDS_UNTRAINED,
    DCParameters,
    DDParameters,
    MTTParameters,
    RaTParameters,
)
from engine.spec import BASELINES, BaselineSpec, EditSpec, EvaluationSpec, RunSpec, StudentSpec
from engine.students.architecture import architecture_of
from engine.students.protocols import PROTOCOLS

TENSOR_FILES = (".pt", ".pth", ".npz")  # images and labels that do not say which dataset they stand for


def check(spec: BaseModel) -> None:
    """Raise ``Refused`` with a sentence when this machine cannot do what ``spec`` asks.

    The page calls it before it submits a run, and so does the command line.
    """
    values = spec.model_dump()
    if isinstance(spec, RunSpec) and isinstance(spec.parameters, DCParameters):
        if spec.parameters.variant == "bank" and spec.parameters.trains(spec.ipc):
            raise Refused(BANK_NEEDS_UNTRAINED)
    if isinstance(spec, RunSpec) and spec.method == "datadam":
        if spec.network == "mlp" or (spec.network == "convnet" and spec.depth == 1):
            raise Refused(ATTENTION_NEEDS_LAYERS)
    if isinstance(spec, RunSpec) and isinstance(spec.parameters, MTTParameters):
        if problem := spec.parameters.problem():
            raise Refused(problem)
    if isinstance(spec, RunSpec) and isinstance(spec.parameters, DDParameters):
        spec.parameters.check(spec.ipc, spec.zca)
        if spec.parameters.source and "pretrained" in spec.parameters.initial:
            check_dataset(spec.parameters.source)
    if isinstance(spec, RunSpec) and isinstance(spec.parameters, RaTParameters):
        spec.parameters.check()
    if isinstance(spec, RunSpec | BaselineSpec):
        check_own_steps(spec)
    if isinstance(spec, StudentSpec):
        check_student(spec)
    if isinstance(spec, EditSpec):
        parse(spec.edits)
    if isinstance(spec, EvaluationSpec):
        architecture_of(spec)
    if isinstance(spec, RunSpec):
        check_run(spec)
    if values.get("dataset"):
        check_dataset(values["dataset"])
        sized = "ipc" in values and (not isinstance(spec, StudentSpec) or spec.source in BASELINES)
        if values["dataset"].startswith(FOLDER) and sized:
            path = Path(values["dataset"].removeprefix(FOLDER)).expanduser()
            check_class_size(spec, smallest_class(path), path.stem)


def check_run(spec: RunSpec) -> None:
    """Raise ``Refused`` when a run needs more memory than there is, or more real images at once than the dataset has.

    A batch that was left at its default shrinks to a small dataset by itself; one that somebody chose is refused.
    """
    needed = estimate(spec)
    if not needed.fits:
        raise Refused(needed.refusal())
    info, batch = DATASETS.get(spec.dataset), getattr(spec.parameters, "batch_real", 0)
    default = type(spec.parameters).model_fields["batch_real"].default if batch else 0
    if info and batch > info.train and batch != default:
        raise Refused(
            f"Real images at once (batch_real) was {batch}, but {info.title} has {info.train:,} training images; "
            "choose fewer."
        )


def check_own_steps(spec: RunSpec | BaselineSpec) -> None:
    """Raise ``Refused`` when the final accuracy needs learned step sizes, which the set will not have."""
    protocol = spec.final_protocol if isinstance(spec, RunSpec) else spec.protocol
    if PROTOCOLS[protocol].own_steps and not (isinstance(spec, RunSpec) and spec.method == protocol):
        raise Refused(
            f"The protocol {protocol} trains by learned step sizes, which only sets distilled with {protocol} have; "
            "choose another protocol."
        )


def check_student(spec: StudentSpec) -> None:
    """Raise ``Refused`` when the fields of a student's spec do not go together."""
    saved = spec.source != "full" and spec.source not in BASELINES
    if not saved and not spec.dataset:
        raise Refused(f"The training set “{spec.source}” needs a dataset (dataset) to take images from; name it.")
    if saved and spec.style != "original":
        raise Refused(
            "Only images of a dataset can be stylised (style); distil a stylised set, or train on full or a baseline."
        )
    if spec.limit is not None and spec.source != "full":
        raise Refused("A limit on the training images (limit) is for all of them (source full); drop one of the two.")
    if len(spec.name) > 200 or not spec.name.isprintable():
        raise Refused("A student's name (name) must be one line of at most 200 characters.")


def check_dataset(name: str) -> None:
    """Raise ``Refused`` unless the dataset is known, and there or to be downloaded.

    Whether the images in a folder can be read shows only when they are.
    """
    if name.removeprefix(FOLDER).strip() == "":
        raise Refused(
            "A folder dataset needs a path: folder:PATH, a folder or .zip with one folder of images per class."
        )
    here = availability(name)
    if here.how == "missing":
        raise Refused(here.sentence)


def needs_dataset(path: str | Path) -> bool:
    """Whether a file does not say itself which dataset it stands for."""
    return Path(path).suffix.lower() in TENSOR_FILES and not says_all(Path(path))


def smallest_class(path: Path) -> int:
    """Images of the smallest class in a folder or zip that methods may use, counted without opening them.

    As ``engine.data`` splits them: a fifth for testing where there is no test part, then a tenth held out.
    """
    with opened(path) as folder:
        counts = list(Counter(found.label for found in folder.train).values())
        if not folder.test:
            counts = [n - _share(0.2 * n, n) for n in counts]
    total = sum(counts)
    held_out = min(5000, total // 10)
    return min(n - _share(held_out * n / total, n) for n in counts)


def _share(wanted: float, of: int) -> int:
    return min(max(round(wanted), 1), of - 1)


def check_class_size(spec: BaseModel, smallest: int, title: str) -> None:
    """Raise ``Refused`` when a class has fewer images than are asked for per class."""
    ipc, factor = getattr(spec, "ipc", 0), getattr(getattr(spec, "parameters", None), "factor", 1)
    if ipc * factor**2 > smallest and getattr(spec, "init", "") != "noise":
        noise = ", or noise as the initial images" if hasattr(spec, "init") else ""
        each = f" of {factor**2} pictures each (factor {factor})" if factor > 1 else ""
        most = smallest // factor**2
        raise Refused(
            f"Images per class (ipc) was {ipc}{each}, but the smallest class of {title} has {smallest} images to learn "
            f"from; choose {f'{most} or fewer' if most else 'a smaller factor'}{noise}."
        )
