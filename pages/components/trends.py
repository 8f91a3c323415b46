"""Accuracy against images per class and against distilling time, a line for each method (torch-free, no Streamlit)."""

from __future__ import annotations

import html
from collections.abc import Sequence

import pandas as pd
import plotly.graph_objects as go

from engine.runs.store import Run, Store
from pages.components.comparison import BASELINE_NAMES, made_by
from pages.components.cues import ink
from pages.components.marks import MARKS

DASHES = ("solid", "dash", "dot", "dashdot", "longdash", "longdashdot")
SYMBOLS = ("circle", "square", "diamond", "triangle-up", "cross", "x", "star", "triangle-down")


def by_ipc(table: pd.DataFrame, key: tuple[str, str, str]) -> pd.DataFrame:
    """One row per method (or baseline) and images per class: the mean over its sets under one protocol, network, split.

    ``std`` is that of the sets' accuracies where there are several, else that of the one set's students.
    """
    same = table[(table["protocol"] == key[0]) & (table["network"] == key[1]) & (table["split"] == key[2])]
    rows = []
    for (made, ipc), mine in same.dropna(subset=["ipc"]).groupby(["made_by", "ipc"], sort=False):
        several = len(mine) > 1
        rows.append(
            {
                "made_by": made,
                "kind": mine.iloc[0]["kind"],
                "ipc": ipc,
                "protocol": key[0],
                "network": key[1],
                "split": key[2],
                "mean": mine["mean"].mean(),
                "std": mine["mean"].std(ddof=0) if several else mine.iloc[0]["std"],
                "sets": len(mine),
            }
        )
    columns = ["made_by", "kind", "ipc", "protocol", "network", "split", "mean", "std", "sets"]
    return pd.DataFrame(rows, columns=columns).sort_values(["made_by", "ipc"], ignore_index=True)


def by_time(store: Store, runs: Sequence[Run], names: dict[str, str]) -> pd.DataFrame:
    """Every accuracy that was measured while a run was distilling, against its distilling seconds."""
    rows = [
        {
            "run": run.id,
            "name": names[run.id],
            "made_by": made_by(run),
            "seconds": event.data["seconds"],
            "step": event.step,
            "accuracy": event.data["accuracy"],
            "protocol": event.data.get("protocol", "quick"),
            "split": event.data.get("split", "held-out"),
        }
        for run in runs
        if run.kind == "distill"
        for event in store.events(run.id, kinds=("accuracy",), limit=10_000)
    ]
    return pd.DataFrame(rows, columns=["run", "name", "made_by", "seconds", "step", "accuracy", "protocol", "split"])


def ipc_chart(table: pd.DataFrame, dark: bool) -> go.Figure:
    """Accuracy against images per class, on a logarithmic axis, of the rows of ``by_ipc``."""
    text, faint = ink(dark)
    figure = go.Figure()
    colours = {mark.name: mark.colour for mark in MARKS.values()}
    for i, (made, mine) in enumerate(table.groupby("made_by", sort=False)):
        figure.add_scatter(
            x=mine["ipc"],
            y=100 * mine["mean"],
            error_y={"array": 100 * mine["std"].fillna(0), "thickness": 1.5, "width": 4},
            mode="lines+markers",
            name=html.escape(BASELINE_NAMES.get(str(made), str(made))),
            line={"color": colours.get(mine.iloc[0]["kind"], text), "dash": DASHES[i % len(DASHES)], "width": 2},
            marker={"symbol": SYMBOLS[i % len(SYMBOLS)], "size": 11},
            customdata=mine["sets"],
            hovertemplate="%{x:g} per class: %{y:.1f} % (%{customdata} sets)<extra>"
            + html.escape(str(made))
            + "</extra>",
        )
    ticks = sorted(table["ipc"].unique())
    _layout(figure, text)
    figure.update_xaxes(
        type="log", title="Images per class", tickvals=ticks, ticktext=[f"{t:g}" for t in ticks], showgrid=False,
        zeroline=False, tickfont={"color": text},
    )  # fmt: skip
    first = table.iloc[0]
    _percent(figure, "Test accuracy" if first["split"] == "test" else "Accuracy", text, faint)
    return figure


def time_chart(table: pd.DataFrame, dark: bool) -> go.Figure:
    """Accuracy against distilling seconds of the rows of ``by_time`` of one protocol and split."""
    text, faint = ink(dark)
    figure = go.Figure()
    for i, (_, mine) in enumerate(table.groupby("run", sort=False)):
        name = html.escape(mine.iloc[0]["name"])
        figure.add_scatter(
            x=mine["seconds"],
            y=100 * mine["accuracy"],
            mode="lines+markers",
            name=name,
            line={"color": MARKS["distilled"].colour, "dash": DASHES[i % len(DASHES)], "width": 2},
            marker={"symbol": SYMBOLS[i % len(SYMBOLS)], "size": 9},
            hovertemplate="%{x:.1f} s: %{y:.1f} %<extra>" + name + "</extra>",
        )
    _layout(figure, text)
    figure.update_xaxes(
        title="Distilling time (s)", rangemode="tozero", showgrid=False, zeroline=False, tickfont={"color": text}
    )
    _percent(figure, group_title(table), text, faint)
    return figure


def group_title(table: pd.DataFrame) -> str:
    """What the accuracies of ``by_time`` are measured under."""
    first = table.iloc[0]
    images = "test" if first["split"] == "test" else first["split"]
    return f"Accuracy on {images} images"


def _percent(figure: go.Figure, title: str, text: str, faint: str) -> None:
    figure.update_yaxes(
        title=f"{title} (%)", gridcolor=faint, zeroline=False, tickfont={"color": text}, rangemode="normal"
    )


def _layout(figure: go.Figure, text: str) -> None:
    figure.update_layout(
        height=420,
        margin={"l": 8, "r": 12, "t": 8, "b": 8},
        legend={"orientation": "h", "y": -0.22, "yanchor": "top", "x": 0, "font": {"size": 13, "color": text}},
        font={"size": 14, "color": text},
        plot_bgcolor="rgba(0,0,0,0)",
        paper_bgcolor="rgba(0,0,0,0)",
    )
