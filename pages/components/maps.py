"""The figures of attribution: maps side by side, and charts made from the probes' tables (torch-free, no Streamlit).

``who`` is always a table of the students in their order: ``id``, ``observer`` (name) and ``kind``.
"""

from __future__ import annotations

import html
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from pages.components.cues import ink, kind_mark, looks
from pages.components.reports import DARK, PALE

CHANCE = "random"  # the method whose pixels go in random order
CONDITIONS = {
    "original": "as it is",
    "context-swapped": "context<br>swapped",
    "context-noised": "context<br>noised",
    "object-removed": "object<br>removed",
    "context-removed": "context<br>removed",
}
SIMILARITIES = {
    "rank_correlation": ("Rank correlation", "#b4622d", "circle", "solid"),
    "ssim": ("Structural similarity", "#1b8a8f", "triangle-up", "dash"),
    "confidence": ("Probability of the answer", "#7f7f7f", "square", "dot"),
}


# ---- maps side by side ----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Card:
    """A column of the figure: ``title``, then ``pictures`` as (URL, what it shows), then ``lines`` of text.

    ``kind`` is the kind of the student's training set, empty for the image itself. ``reason``: why there is no map.
    """

    title: str
    kind: str = ""
    pictures: Sequence[tuple[str, str]] = ()
    lines: Sequence[str] = field(default_factory=tuple)
    reason: str = ""


def side_by_side(cards: Sequence[Card], key: tuple[str, str, str, str] | None = None) -> str:
    """HTML of the cards next to each other, as many as fit; ``key``: the URL of the colours, what stands at their two
    ends, and their unit."""
    body = "".join(_card(card) for card in cards)
    legend = ""
    if key:
        url, low, high, unit = map(html.escape, key)
        legend = (
            f'<div class="key"><span>{low}</span><img src="{url}" alt="Colours from {low} to {high}">'
            f"<span>{high}</span><span>{unit}</span></div>"
        )
    return f"""<style>
.maps {{ display: grid; grid-template-columns: repeat(auto-fit, minmax(min(132px, 45%), 1fr)); gap: 0 14px;
  max-width: {len(cards) * 250}px; }}
.maps figure {{ margin: 0; padding-bottom: 14px; min-width: 0; display: grid; grid-row: span 2;
  grid-template-rows: subgrid; }}
.maps figcaption {{ font-size: 14px; font-weight: 600; line-height: 1.25; display: flex; align-items: end;
  overflow-wrap: anywhere; padding-bottom: 4px; }}
.maps .name {{ display: -webkit-box; -webkit-line-clamp: 5; -webkit-box-orient: vertical; overflow: hidden; }}
.maps img {{ display: block; width: 100%; aspect-ratio: 1; image-rendering: pixelated; border-radius: 3px;
  margin-bottom: 6px; }}
.maps .none {{ border: 1px dashed; border-radius: 3px; padding: 10px; font-size: 14px; line-height: 1.4; }}
.maps ul {{ list-style: none; margin: 0; padding: 0; font-size: 14px; line-height: 1.4; }}
.maps li {{ margin: 0; padding: 0; font-size: inherit; overflow-wrap: anywhere; }}
.key {{ display: flex; flex-wrap: wrap; align-items: center; gap: 8px; padding-top: 10px; font-size: 14px; }}
.key img {{ height: 14px; width: min(220px, 40%); border-radius: 2px; }}
</style><div class="maps">{body}</div>{legend}"""


def _card(card: Card) -> str:
    mark = f'<span style="color:{kind_mark(card.kind).colour}">{card.title[:1]}</span>' if card.kind else ""
    name = html.escape(card.title[1:] if card.kind else card.title)
    shown = "".join(
        f'<img src="{html.escape(url)}" alt="{html.escape(alt)}" title="{html.escape(alt)}">'
        for url, alt in card.pictures
    )
    none = f'<div class="none">{html.escape(card.reason)}</div>' if card.reason else ""
    lines = "".join(f"<li>{html.escape(line)}</li>" for line in card.lines)
    title = html.escape(card.title)
    return (
        f'<figure><figcaption title="{title}"><span class="name">{mark}{name}</span></figcaption>'
        f"<div>{shown}{none}<ul>{lines}</ul></div></figure>"
    )


def strip(url: str, alt: str, heads: Sequence[str] = (), cell: int = 96) -> str:
    """HTML of a picture that holds images in a row, each headed by one of ``heads``; at most ``cell`` pixels each."""
    names = "".join(f"<span>{html.escape(head)}</span>" for head in heads)
    count = max(len(heads), 1)
    return f"""<style>
.strip {{ overflow-x: auto; }}
.strip .heads {{ display: grid; font-size: 13px; line-height: 1.25; text-align: center; align-items: end;
  padding-bottom: 3px; }}
.strip .heads span {{ padding: 0 2px; overflow-wrap: anywhere; }}
.strip img {{ display: block; width: 100%; image-rendering: pixelated; }}
</style><div class="strip" tabindex="0" role="group" aria-label="{html.escape(alt)}">
<div class="in" style="max-width:{count * cell}px;min-width:{count * 34}px"><div class="heads" aria-hidden="true"
style="grid-template-columns:repeat({count},minmax(0,1fr))">{names}</div>
<img src="{html.escape(url)}" alt="{html.escape(alt)}"></div></div>"""


# ---- charts ---------------------------------------------------------------------------------------------------------


def stages(table: pd.DataFrame, dark: bool) -> go.Figure:
    """How alike a map stays while weights become random from the top: means, with the lowest and highest network."""
    text, faint = ink(dark)
    figure = go.Figure()
    for name, (title, colour, symbol, dash) in SIMILARITIES.items():
        values = table[[name, f"{name}_low", f"{name}_high"]].astype(float)
        figure.add_scatter(
            x=table["layer"],
            y=values[name],
            mode="lines+markers",
            name=title,
            line={"color": colour, "dash": dash, "width": 2},
            marker={"color": colour, "symbol": symbol, "size": 10},
            error_y=_bars(values[name], values[f"{name}_low"], values[f"{name}_high"]),
        )
    _layout(figure, 330, text)
    figure.update_xaxes(title="Random from the last layer down to", showgrid=False, tickfont={"color": text})
    figure.update_yaxes(range=[-0.3, 1.08], gridcolor=faint, zerolinecolor=faint, tickfont={"color": text})
    return figure


def quality(table: pd.DataFrame, who: pd.DataFrame, names: dict[str, str], better: str, dark: bool) -> go.Figure:
    """One metric: a row for each method, a marker for each student with its 95 % interval."""
    text, faint = ink(dark)
    figure = go.Figure()
    methods = list(dict.fromkeys(table["method"]))
    for i, (id, look) in enumerate(zip(who["id"], looks(who), strict=True)):
        mine = table[(table["id"] == id) & table["mean"].notna()]
        offset = ((len(who) - 1) / 2 - i) * 0.7 / max(len(who), 3)
        values = mine[["mean", "low", "high"]].astype(float)
        figure.add_scatter(
            x=values["mean"],
            y=[methods.index(m) + offset for m in mine["method"]],
            mode="markers",
            name=_wrapped(look.name),
            marker={"color": look.colour, "symbol": look.symbol, "size": 12},
            error_x=_bars(values["mean"], values["low"], values["high"]),
            hovertemplate="%{x:.3g}<extra>" + html.escape(look.name) + "</extra>",
        )
    _layout(figure, 150 + 54 * len(methods) + 22 * len(who), text)
    figure.update_xaxes(
        title=f"{'←' if better == 'lower' else ''} better is {better} {'→' if better == 'higher' else ''}",
        rangemode="tozero", gridcolor=faint, zerolinecolor=faint, tickfont={"color": text},
    )  # fmt: skip
    figure.update_yaxes(
        tickvals=list(range(len(methods))), ticktext=[html.escape(names.get(m, m)) for m in methods],
        range=[len(methods) - 0.5, -0.5], showgrid=False, zeroline=False, tickfont={"color": text, "size": 14},
    )  # fmt: skip
    return figure


def curves(table: pd.DataFrame, who: pd.DataFrame, method: str, dark: bool) -> go.Figure:
    """Deletion and insertion curves of one method, a line for each student; thin dotted: pixels in random order."""
    text, faint = ink(dark)
    titles = ("Deletion:<br>falls fast when good", "Insertion:<br>rises fast when good")
    figure = make_subplots(1, 2, subplot_titles=titles, shared_yaxes=True, horizontal_spacing=0.05)
    for id, look in zip(who["id"], looks(who), strict=True):
        for column, curve in enumerate(("deletion", "insertion"), start=1):
            for drawn in (method, CHANCE):
                mine = table[(table["id"] == id) & (table["curve"] == curve) & (table["method"] == drawn)]
                random = drawn == CHANCE
                name = f"{look.name}, random order" if random else look.name
                figure.add_scatter(
                    x=100 * mine["share"],
                    y=100 * mine["probability"].astype(float),
                    mode="lines" if random else "lines+markers",
                    name=_wrapped(name),
                    showlegend=column == 1 and not random,
                    line={"color": look.colour, "width": 1.5 if random else 2.5, "dash": "dot" if random else "solid"},
                    marker={"symbol": look.symbol, "size": 7},
                    hovertemplate="%{x:.0f} %: %{y:.1f} %<extra>" + html.escape(name) + "</extra>",
                    row=1,
                    col=column,
                )
    _layout(figure, 360 + 22 * len(who), text)
    figure.update_layout(margin={"t": 52})
    figure.update_annotations(font={"size": 14, "color": text})
    figure.update_xaxes(title="Pixels (%)", gridcolor=faint, zeroline=False, tickfont={"color": text})
    figure.update_yaxes(range=[-3, 103], gridcolor=faint, zeroline=False, tickfont={"color": text})
    figure.update_yaxes(title="Probability of the answer (%)", col=1)
    return figure


def matrix(values: Sequence[Sequence[float]], names: Sequence[str], distance: bool, dark: bool) -> go.Figure:
    """A square of every two students with its numbers; darker is more alike, by day as by night lighter."""
    text, _ = ink(dark)
    short = _short(names)
    scale = DARK if dark else PALE
    numbers = [[f"{v:.2f}" for v in row] for row in values]
    figure = go.Figure(
        go.Heatmap(
            z=[list(row) for row in values],
            x=[str(i + 1) for i in range(len(names))],
            y=[f"{name}  {i + 1}" for i, name in enumerate(short)],
            colorscale=[[1 - at, colour] for at, colour in reversed(scale)] if distance else scale,
            zmin=0,
            zmax=1,
            text=numbers,
            texttemplate="%{text}",
            xgap=2,
            ygap=2,
            showscale=False,
            hovertemplate="%{y} and %{x}: %{text}<extra></extra>",
        )
    )
    _layout(figure, 70 + 40 * len(names), text)
    figure.update_xaxes(side="top", type="category", showgrid=False, tickfont={"color": text, "size": 13})
    figure.update_yaxes(autorange="reversed", showgrid=False, tickfont={"color": text, "size": 13})
    return figure


def tree(found: dict[str, Any], who: pd.DataFrame, dark: bool) -> go.Figure:
    """The students as leaves, joined at the mean distance of their maps."""
    text, faint = ink(dark)
    figure = go.Figure()
    for xs, ys in found["lines"]:
        figure.add_scatter(
            x=ys, y=xs, mode="lines", line={"color": text, "width": 2}, showlegend=False, hoverinfo="skip"
        )
    all_looks = looks(who)
    for place, leaf in enumerate(found["order"]):
        look = all_looks[leaf]
        figure.add_scatter(
            x=[0], y=[place], mode="markers", marker={"color": look.colour, "symbol": look.symbol, "size": 13},
            name=html.escape(look.name), showlegend=False, cliponaxis=False,
            hovertemplate=html.escape(look.name) + "<extra></extra>",
        )  # fmt: skip
    names = _short(list(who["observer"]))
    _layout(figure, 90 + 40 * len(who), text)
    figure.update_xaxes(
        title="Distance at which they join", autorange="reversed", rangemode="tozero", gridcolor=faint,
        zeroline=False, tickfont={"color": text},
    )  # fmt: skip
    figure.update_yaxes(
        side="right", tickvals=list(range(len(who))), ticktext=[names[leaf] for leaf in found["order"]],
        range=[len(who) - 0.5, -0.5], showgrid=False, zeroline=False, tickfont={"color": text, "size": 13},
    )  # fmt: skip
    return figure


def context(table: pd.DataFrame, who: pd.DataFrame, value: str, dark: bool) -> go.Figure:
    """One number under the five conditions, a marker for each student with its 95 % interval.

    ``value``: ``object_share``, beside which a line marks the object's share of the pixels; ``accuracy``; ``kept``.
    """
    text, faint = ink(dark)
    figure = go.Figure()
    order = list(CONDITIONS)
    for i, (id, look) in enumerate(zip(who["id"], looks(who), strict=True)):
        mine = table[(table["id"] == id) & table[value].notna()]
        offset = (i - (len(who) - 1) / 2) * 0.7 / max(len(who), 3)
        spread = f"{value}_low" in table
        middle = 100 * mine[value].astype(float)
        figure.add_scatter(
            x=[order.index(c) + offset for c in mine["condition"]],
            y=middle,
            mode="markers",
            name=_wrapped(look.name),
            marker={"color": look.colour, "symbol": look.symbol, "size": 13},
            error_y=_bars(middle, 100 * mine[f"{value}_low"].astype(float), 100 * mine[f"{value}_high"].astype(float))
            if spread
            else None,
            hovertemplate="%{y:.1f} %<extra>" + html.escape(look.name) + "</extra>",
        )
    if value == "object_share":
        areas = table.groupby("condition")["area"].mean()
        for at, condition in enumerate(order):
            if condition in areas:
                y = 100 * float(areas[condition])
                figure.add_shape(
                    type="line", x0=at - 0.42, x1=at + 0.42, y0=y, y1=y,
                    line={"color": text, "dash": "dot", "width": 2},
                )  # fmt: skip
    _layout(figure, 330 + 22 * len(who), text)
    figure.update_xaxes(
        tickvals=list(range(len(order))), ticktext=list(CONDITIONS.values()), range=[-0.5, len(order) - 0.5],
        showgrid=False, zeroline=False, tickfont={"color": text, "size": 14},
    )  # fmt: skip
    figure.update_yaxes(range=[-3, 103], ticksuffix=" %", gridcolor=faint, zeroline=False, tickfont={"color": text})
    return figure


def spectrum(table: pd.DataFrame, dark: bool) -> go.Figure:
    """Power over frequency of the synthetic images and of real ones, with the 95 % intervals of their means."""
    text, faint = ink(dark)
    figure = go.Figure()
    for kind, mark, title, dash in (
        ("synthetic", kind_mark("distilled"), "this set", "solid"),
        ("real", kind_mark("full"), "real test images", "dash"),
    ):
        values = table[table["kind"] == kind][["frequency", "power", "low", "high"]].astype(float)
        figure.add_scatter(
            x=values["frequency"],
            y=values["power"],
            mode="lines+markers",
            name=title,
            line={"color": mark.colour, "width": 2, "dash": dash},
            marker={"symbol": mark.symbol, "size": 9},
            error_y=_bars(values["power"], values["low"], values["high"]),
            hovertemplate="%{x} cycles: %{y:.2g}<extra>" + title + "</extra>",
        )
    _layout(figure, 360, text)
    figure.update_xaxes(
        title="Cycles per image", type="log", tickvals=[2**i for i in range(8)], gridcolor=faint,
        tickfont={"color": text},
    )  # fmt: skip
    figure.update_yaxes(
        title="Power", type="log", exponentformat="power", dtick=1, gridcolor=faint, tickfont={"color": text}
    )
    return figure


def _short(names: Sequence[str]) -> list[str]:
    """Names that fit beside a figure: what tells students apart often stands at the end."""
    return [html.escape(name if len(name) <= 28 else f"{name[:12]}…{name[-15:]}") for name in names]


def _wrapped(name: str) -> str:
    """A name in a legend, in lines that a phone has room for."""
    return "<br>".join(html.escape(line) for line in textwrap.wrap(name, 40))


def _bars(middle: Any, low: Any, high: Any) -> dict[str, Any]:
    return {
        "type": "data",
        "symmetric": False,
        "array": high - middle,
        "arrayminus": middle - low,
        "thickness": 1.5,
        "width": 3,
    }


def _layout(figure: go.Figure, height: int, text: str) -> None:
    figure.update_layout(
        height=height,
        margin={"l": 8, "r": 8, "t": 12, "b": 8},
        font={"size": 14, "color": text},
        legend={"orientation": "h", "y": -64 / height, "yanchor": "top", "x": 0, "font": {"size": 14, "color": text}},
    )
