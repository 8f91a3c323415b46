"""Where an image that is chosen in a film leads: what other pages ask about it (torch-free)."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlencode

from safetensors import SafetensorError
from safetensors.numpy import load_file

from engine.runs.cells import laid_out
from engine.runs.store import Run
from pages.components import hiding
from pages.components.shared import store

INDEX = "INDEX"  # stands in a link for the number of the image


def leads(run: Run) -> dict[str, Any] | None:
    """What the player needs for links from an image of a finished set, as JSON; None where there is no set.

    ``cells`` holds the number of each cell's image in the set, row by row (None in empty cells), and ``to`` titles with
    links, in which ``INDEX`` stands for that number.
    """
    folder = store().result_folder(run.id)
    layouts = store().events(run.id, kinds=("layout",))
    if folder is None or not layouts or hiding.hidden("pages"):
        return None
    try:
        cells = _cells(run, layouts[-1].data, folder / "synthetic.safetensors")
    except (OSError, SafetensorError, KeyError, ValueError):
        return None
    link = {
        "What do students see in it?": (
            "attribution",
            {"dataset": run.dataset, "image": f"synthetic:{run.id}:{INDEX}"},
        ),
        "Change it": ("pieces", {"section": "edit", "run": run.id, "image": INDEX}),
        "What is it worth?": ("pieces", {"section": "values", "run": run.id}),
    }
    return {"cells": cells, "to": [[title, f"/{page}?{urlencode(query)}"] for title, (page, query) in link.items()]}


def _cells(run: Run, layout: dict[str, Any], path: Any) -> list[int | None]:
    """Which image is where: a column a class, in the order of the set."""
    columns, rows = int(layout["columns"]), int(layout["rows"])
    if run.kind == "distill":  # class after class, whatever labels were learned
        each = int(run.spec["ipc"])
        classes = [c for c in range(columns) for _ in range(each)]
    else:
        labels = load_file(path)["labels"]
        classes = (labels.argmax(1) if labels.ndim == 2 else labels).tolist()
    return laid_out(range(len(classes)), classes, rows, columns)
