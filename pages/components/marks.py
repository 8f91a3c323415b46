"""The one colour and marker of each kind of training set, the same in every figure (torch-free).

The colours differ in lightness as well as in hue and the markers in shape, so that figures can be read by colour-blind
eyes and in grey.
"""

from __future__ import annotations

from dataclasses import dataclass

from engine.runs.store import Run, Store


@dataclass(frozen=True)
class Mark:
    """How a kind of training set is drawn. ``symbol`` is plotly's name of the marker, ``sign`` a character of it."""

    name: str
    colour: str
    symbol: str
    sign: str


MARKS = {
    "distilled": Mark("distilled", "#b4622d", "circle", "●"),
    "imported": Mark("distilled elsewhere", "#b4622d", "circle-open", "○"),
    "random": Mark("random real", "#7f7f7f", "square", "■"),
    "selected": Mark("selected real", "#1b8a8f", "triangle-up", "▲"),
    "full": Mark("full data", "#2f5fd0", "diamond", "◆"),
}


def origin(store: Store, run: Run) -> Run:
    """The run that made the images of a set: of one with a teacher's labels, or edited by hand, the set it was made
    from."""
    while run.kind in ("soften", "edit"):
        source = store.run(run.spec["source"])
        if source is None:
            break
        run = source
    return run


def mark_of(run: Run) -> Mark:
    """The mark of the set that a run made."""
    if run.kind == "baseline":
        return MARKS["random" if run.spec.get("kind") == "random" else "selected"]
    return MARKS["imported" if run.kind == "import" else "distilled"]
