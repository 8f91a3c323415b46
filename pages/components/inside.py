"""Inside a distillation: a step in slow motion, and its images on their way through feature space (torch-free)."""

from __future__ import annotations

import pandas as pd
import plotly.graph_objects as go
import streamlit as st

from engine.methods import METHODS
from engine.probes.distilling.specs import FeatureMapSpec, SlowStepSpec
from engine.runs.store import Run
from pages.components import address, drawing
from pages.components.asking import Answered, ask
from pages.components.component import component
from pages.components.pieces import figure, is_dark, number, percent

SYMBOLS = ("circle", "square", "diamond", "cross", "x", "triangle-up", "triangle-down", "star", "hexagon", "pentagon")
COLOURS = (  # of Okabe and Ito, whom colour-blind eyes can follow, and darker ones where there are more classes
    "#e69f00", "#56b4e9", "#009e73", "#d0c000", "#0072b2", "#d55e00", "#cc79a7", "#7f7f7f", "#8a5a2b", "#5b4b9a",
)  # fmt: skip

TOGGLES = ("slow", "map")  # what of this is shown, in the address

_mount = component("slow")


def slow_step(run: Run, step: int | None) -> None:
    """Take one step of a run again and show its parts one after another."""
    info = METHODS[run.spec["method"]]
    drawing.draw(info)
    if not address.toggle(
        "Take one step in slow motion",
        "slow",
        "From the images that the film shows, with a network and real images drawn anew: a step like those that the "
        "run took.",
    ):
        return
    found = ask("slow-step", SlowStepSpec(run=run.id, step=step), "slow-step")
    if found is not None:
        _mount(key="slow_parts", data={"parts": _parts(found, info.moved)})


def _parts(found: Answered, moved: str) -> list[dict[str, str]]:
    facts = found.answer.facts
    pulled = found.table("classes").sort_values("gradient")["class"].tolist()
    seen = f"{facts['real']:,} real images" if facts["real"] else "Real images"
    parts = (
        ("Sample", "real", ".method .of-real.images",
         f"{seen} are drawn for the images of step {facts['step']}; some of them are shown, by class."),
        ("Look", "before", ".method .network, .method .found",
         "They and the synthetic images go through a network, and the same is computed from both."),
        ("Match", "gradient", ".method .compared",
         f"The two are compared (loss {number(facts['loss'])}), and the comparison goes back to the pixels. Orange: "
         f"make brighter; blue: darker. Pulled hardest: {pulled[-1]}; least: {pulled[0]}."),
        ("Move", "moved", ".method .moved, .method .of-synthetic.images",
         f"The {moved} go a small step that way: a pixel by at most about {percent(facts['moved'], 2)} of its range. "
         f"Orange: brighter than before. All this took {facts['seconds']:.1f} s, and a run does it again and again."),
    )  # fmt: skip
    return [
        {"title": title, "url": found.url(name), "lights": lights, "words": words, "alt": f"{title}: {words}"}
        for title, name, lights, words in parts
    ]


def feature_map(run: Run, step: int | None) -> None:
    """Where the synthetic images lie among the real ones, at the step that the film shows."""
    if not address.toggle(
        "Show where the images lie among real ones",
        "map",
        "Each point is an image, placed by the features that a network sees in it. Near each other: alike to the "
        "network.",
    ):
        return
    found = ask("feature-map", FeatureMapSpec(run=run.id), "feature-map")
    if found is None:
        return
    points, facts = found.table("points"), found.answer.facts
    steps = sorted(points.loc[points["kind"] == "synthetic", "step"].astype(int).unique())
    now = max((s for s in steps if step is None or s <= step), default=steps[0])
    figure(
        chart(points, facts["classes"], now, is_dark()), "feature_map",
        "Real test images as small points and the synthetic images as large ones in the plane of the two principal "
        "components of their features; the data can be downloaded below",
        points, f"feature-map-{run.id}",
    )  # fmt: skip
    st.caption(
        f"Features of {facts['network']}; small: real test images, large: synthetic ones at step {now}, with the "
        f"path they came. The plane holds {percent(facts['share'], 0)} of what tells real images apart."
    )


def chart(points: pd.DataFrame, classes: list[str], now: int, dark: bool) -> go.Figure:
    """Clouds, paths up to step ``now`` and where the synthetic images are then."""
    real, synthetic = points[points["kind"] == "real"], points[points["kind"] == "synthetic"]
    ink = "#f0ece4" if dark else "#211e1a"
    drawn = go.Figure()
    for i, name in enumerate(classes):
        colour, symbol = COLOURS[i % len(COLOURS)], SYMBOLS[i % len(SYMBOLS)]
        mine = real[real["class"] == name]
        drawn.add_scatter(
            x=mine["x"], y=mine["y"], mode="markers", legendgroup=name, showlegend=False, hoverinfo="skip",
            marker={"color": colour, "symbol": symbol, "size": 5, "opacity": 0.45},
        )  # fmt: skip
        own = synthetic[(synthetic["class"] == name) & (synthetic["step"] <= now)].sort_values("step")
        for _, path in own.groupby("image"):
            drawn.add_scatter(
                x=path["x"], y=path["y"], mode="lines", legendgroup=name, showlegend=False, hoverinfo="skip",
                line={"color": colour, "width": 1.2},
            )  # fmt: skip
        there = own[own["step"] == now]
        drawn.add_scatter(
            x=there["x"], y=there["y"], mode="markers", name=name, legendgroup=name,
            hovertemplate=f"{name}<extra>step {now:,}</extra>",
            marker={"color": colour, "symbol": symbol, "size": 14, "line": {"color": ink, "width": 1.8}},
        )  # fmt: skip
    axis = {"showticklabels": False, "zeroline": False, "showgrid": False}
    drawn.update_layout(
        height=460, margin={"l": 8, "r": 8, "t": 8, "b": 8}, legend={"title": {"text": "Class"}},
        xaxis={"title": {"text": "First principal component"}, **axis},
        yaxis={"title": {"text": "Second"}, "scaleanchor": "x", **axis},
        paper_bgcolor="rgba(0,0,0,0)", plot_bgcolor="rgba(0,0,0,0)", font={"color": ink, "size": 14},
        uirevision="stay",
    )  # fmt: skip
    return drawn
