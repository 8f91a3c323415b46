"""What can be refused before a run exists, beyond what its spec refuses by itself (torch-free)."""

from __future__ import annotations

from pydantic import BaseModel

from engine.data.catalogue import DATASETS, availability
from engine.errors import Refused


def check(spec: BaseModel) -> None:
    """Raise ``Refused`` with a sentence when this machine cannot do what ``spec`` asks.

    The page calls it before it submits a run, and so does the command line.
    """
    values = spec.model_dump()
    if values.get("method") == "dc" and values["ipc"] > 1 and values["parameters"]["variant"] == "bank":
        raise Refused(
            "Gradient matching with the bank works at 1 image per class only, because beyond that the network is "
            "trained between updates. Choose the variant “plain” (--variant plain), or 1 image per class."
        )
    if values.get("dataset"):
        check_dataset(values["dataset"])
        info = DATASETS.get(values["dataset"])
        if info is not None and "ipc" in values:
            check_class_size(spec, info.train // len(info.classes) * 9 // 10, info.title)


def check_dataset(name: str) -> None:
    """Raise ``Refused`` unless the dataset is known, and there or to be downloaded.

    Whether the images of a folder can be believed shows only when they are read.
    """
    if name.removeprefix("folder:").strip() == "":
        raise Refused(
            "A folder dataset needs a path: folder:PATH, a folder or .zip with one folder of images per class."
        )
    here = availability(name)
    if here.how == "missing":
        raise Refused(here.sentence)


def check_class_size(spec: BaseModel, smallest: int, title: str) -> None:
    """Raise ``Refused`` when a class has fewer images than are asked for per class."""
    ipc = getattr(spec, "ipc", 0)
    if ipc > smallest and getattr(spec, "init", "") != "noise":
        noise = ", or noise as the initial images" if hasattr(spec, "init") else ""
        raise Refused(
            f"Images per class (ipc) was {ipc}, but the smallest class of {title} has {smallest} images to learn from; "
            f"choose {smallest} or fewer{noise}."
        )
