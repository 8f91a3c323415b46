"""The figures of the applications, made from the probes' tables (torch-free, no Streamlit).

``ways``: what is compared, by id, in their order; ``kinds``: of each, the kind of training set whose mark it has.
"""

from __future__ import annotations

import html
from typing import Any

import pandas as pd
import plotly.graph_objects as go

from pages.components.cues import ink, kind_mark

Names = dict[str, str]


def lanes(
    rows: pd.DataFrame, summary: pd.DataFrame, measure: str, title: str, ways: Names, kinds: Names, dark: bool,
    chance: float | None = None, scale: float = 100,
) -> go.Figure:  # fmt: skip
    """A row for each way: large markers are means with their 95 % intervals, small ones single repeats.

    ``rows`` has a column ``way`` and one of the measure; ``summary`` way, measure, mean, low and high, or is empty.
    """
    text, faint = ink(dark)
    figure, there = go.Figure(), [way for way in ways if way in set(rows["way"])]
    for place, way in enumerate(there):
        mark, own = kind_mark(kinds[way]), rows[rows["way"] == way]
        name = html.escape(ways[way])
        figure.add_scatter(
            x=scale * own[measure].astype(float),
            y=[place + 0.22] * len(own),
            mode="markers",
            marker={"symbol": f"{mark.symbol.removesuffix('-open')}-open", "size": 8, "color": mark.colour},
            showlegend=False,
            hovertemplate="%{x:.3g}<extra>one of " + name.lower() + "</extra>",
        )
        mean = summary[(summary["way"] == way) & (summary["measure"] == measure)] if len(summary) else summary
        if len(mean):
            value, low, high = (scale * float(v) for v in mean[["mean", "low", "high"]].astype(float).iloc[0])
            figure.add_scatter(
                x=[value],
                y=[place - 0.08],
                mode="markers",
                marker={"symbol": mark.symbol, "size": 14, "color": mark.colour},
                error_x=_bar(value, low, high, mark.colour),
                showlegend=False,
                hovertemplate="%{x:.3g}<extra>" + name + "</extra>",
            )
    _across(figure, chance, scale, text)
    _layout(figure, 110 + 58 * len(there), text, title)
    figure.update_xaxes(gridcolor=faint, zeroline=False, tickfont={"color": text})
    if scale == 100 and float(rows[measure].min()) >= 0:
        figure.update_xaxes(range=[-3, 103])
    figure.update_yaxes(
        tickvals=list(range(len(there))), ticktext=[_wrapped(ways[way]) for way in there], showgrid=False,
        range=[len(there) - 0.5, -0.6], zeroline=False, tickfont={"color": text, "size": 13},
    )  # fmt: skip
    return figure


def course(table: pd.DataFrame, ways: Names, kinds: Names, dark: bool, chance: float) -> go.Figure:
    """Accuracy on the classes seen so far against how many they are, with 95 % intervals."""
    text, faint = ink(dark)
    figure = go.Figure()
    for i, (way, title) in enumerate(ways.items()):
        mark, mine = kind_mark(kinds[way]), table[table["way"] == way].sort_values("classes")
        value, low, high = (100 * mine[column].astype(float) for column in ("accuracy", "low", "high"))
        figure.add_scatter(
            x=mine["classes"] + 0.08 * (i - 1),
            y=value,
            mode="lines+markers",
            name=html.escape(title),
            line={"color": mark.colour, "width": 2, "dash": ("solid", "dash", "dot")[i % 3]},
            marker={"symbol": mark.symbol, "size": 11, "color": mark.colour},
            error_y={
                "type": "data", "symmetric": False, "array": (high - value).fillna(0),
                "arrayminus": (value - low).fillna(0), "color": mark.colour, "thickness": 1.5, "width": 3,
            },
            hovertemplate="%{y:.1f} %<extra>" + html.escape(title) + "</extra>",
        )  # fmt: skip
    figure.add_hline(y=100 * chance, line={"color": text, "dash": "dot", "width": 1.5})
    _layout(figure, 400, text, "", legend=True)
    figure.update_xaxes(
        title="Classes seen", tickvals=sorted(set(table["classes"])), showgrid=False, zeroline=False,
        tickfont={"color": text},
    )  # fmt: skip
    figure.update_yaxes(
        title="Accuracy on them (%)", range=[-2, 103], gridcolor=faint, zeroline=False, tickfont={"color": text}
    )
    return figure


def recovery(curve: pd.DataFrame, dark: bool) -> go.Figure:
    """How like the image is (left axis), and the part of the gradient not explained yet (right), by step."""
    text, faint = ink(dark)
    mark, other = kind_mark("distilled"), kind_mark("selected")
    figure = go.Figure()
    figure.add_scatter(
        x=curve["step"], y=curve["ssim"], mode="lines+markers", name="SSIM to the image (left)",
        line={"color": mark.colour, "width": 2}, marker={"symbol": mark.symbol, "size": 6},
        hovertemplate="step %{x}: SSIM %{y:.2f}<extra></extra>",
    )  # fmt: skip
    figure.add_scatter(
        x=curve["step"], y=curve["distance"], mode="lines", name="Squared distance of the gradients (right)",
        line={"color": other.colour, "width": 2, "dash": "dash"}, yaxis="y2",
        hovertemplate="step %{x}: distance %{y:.2g}<extra></extra>",
    )  # fmt: skip
    _layout(figure, 380, text, "", legend=True)
    figure.update_xaxes(title="Step", showgrid=False, zeroline=False, tickfont={"color": text})
    figure.update_yaxes(range=[-0.1, 1.05], gridcolor=faint, zeroline=False, tickfont={"color": text})
    figure.update_layout(
        yaxis2={
            "overlaying": "y", "side": "right", "type": "log", "showgrid": False, "tickfont": {"color": text},
            "exponentformat": "power", "nticks": 6,
        }
    )  # fmt: skip
    return figure


def ranks(networks: pd.DataFrame, ways: Names, kinds: Names, dark: bool) -> go.Figure:
    """Each network's accuracy after training on little against that after training on everything."""
    text, faint = ink(dark)
    figure = go.Figure()
    for way, title in ways.items():
        if way == "full":
            continue
        mark = kind_mark(kinds[way])
        figure.add_scatter(
            x=100 * networks["full"],
            y=100 * networks[way],
            mode="markers",
            name=html.escape(title),
            marker={"symbol": mark.symbol, "size": 12, "color": mark.colour},
            customdata=networks[["network"]],
            hovertemplate="%{customdata[0]}: %{y:.1f} %, trained on everything %{x:.1f} %<extra>"
            + html.escape(title)
            + "</extra>",
        )
    _layout(figure, 420, text, "", legend=True)
    axis: dict[str, Any] = {"gridcolor": faint, "zeroline": False, "tickfont": {"color": text}}
    figure.update_xaxes(title="Accuracy trained on everything (%)", **axis)
    figure.update_yaxes(title="Accuracy trained on little (%)", **axis)
    return figure


def _bar(value: float, low: float, high: float, colour: str) -> dict[str, Any]:
    """The interval of one value; none where it has none."""
    known = low == low and high == high
    return {
        "type": "data", "symmetric": False, "array": [high - value if known else 0],
        "arrayminus": [value - low if known else 0], "color": colour, "thickness": 2, "width": 5,
    }  # fmt: skip


def _across(figure: go.Figure, chance: float | None, scale: float, text: str) -> None:
    if chance is None:
        return
    figure.add_vline(x=scale * chance, line={"color": text, "dash": "dot", "width": 1.5})
    figure.add_annotation(
        x=scale * chance, y=1, yref="paper", text="chance", showarrow=False, yanchor="bottom", xanchor="left",
        font={"size": 12, "color": text},
    )  # fmt: skip


def _wrapped(name: str) -> str:
    """A name in lines of about sixteen characters."""
    lines = [""]
    for word in html.escape(name).split():
        if len(lines[-1]) + len(word) > 16 and lines[-1]:
            lines.append("")
        lines[-1] = f"{lines[-1]} {word}".strip()
    return "<br>".join(lines)


def _layout(figure: go.Figure, height: float, text: str, title: str, legend: bool = False) -> None:
    figure.update_layout(
        height=height,
        margin={"l": 8, "r": 8, "t": 44 if title else 22, "b": 8},
        font={"size": 14, "color": text},
        showlegend=legend,
        legend={"y": -90 / height, "yanchor": "top", "x": 0, "font": {"size": 13, "color": text}},
    )
    if title:
        figure.update_layout(title={"text": html.escape(title), "font": {"size": 15, "color": text}, "x": 0})
