"""The cells of a sweep as small pictures, and its figures (torch-free)."""

from __future__ import annotations

import html
import time
from collections.abc import Sequence
from typing import Any
from urllib.parse import urlencode

import pandas as pd
import plotly.graph_objects as go

from engine import forks, words
from engine.runs.store import Run, Store
from engine.sweep import Cell, fields
from pages.components import address
from pages.components.cues import ink
from pages.components.inside import COLOURS
from pages.components.marks import MARKS
from pages.components.trends import DASHES, SYMBOLS

STATUS = {"queued": "waiting", "running": "distilling"}  # others are called as they are


def grid(store: Store, cells: Sequence[Cell], runs: dict[int, Run], hidden: bool) -> str:
    """All cells as HTML: picture, what it varies, how far it is, and its accuracy so far, unless that is ``hidden``."""
    return f'<ul class="cells">{"".join(_cell(store, cell, runs.get(cell.place), hidden) for cell in cells)}</ul>'


def _cell(store: Store, cell: Cell, run: Run | None, hidden: bool) -> str:
    label = html.escape(cell.label)
    if run is None:
        return f"<li><b>{label}</b><p>not begun</p></li>"
    steps = store.frames(run.id)
    picture = ""
    if steps:
        url = f"/api/runs/{run.id}/frames/{steps[-1]}.webp?e=f{int(run.finished or time.time())}"
        picture = f'<img class="thumbnail" src="{url}" alt="">'
    to = html.escape(f"/distil?{urlencode({'run': run.id, **address.along()})}", quote=True)
    said = [STATUS.get(run.status, run.status), f"step {run.step:,}"]
    live = None if hidden else forks.live_accuracy(store, run.id)
    if live:
        said.append(f"{100 * live['accuracy']:.1f} % ({live['protocol']}, held-out)")
    share = min(max(run.progress, 0.0), 1.0)
    bar = f'<progress max="1" value="{share:.3f}" aria-label="{label}"></progress>' if run.status != "done" else ""
    facts = html.escape(", ".join(said))
    return f"<li><a href='{to}' target='_self'>{picture}<b>{label}</b></a>{bar}<p>{facts}</p></li>"


def line_name(row: dict[str, Any], names: Sequence[str]) -> str:
    """What tells a line of a figure from the others."""
    return ", ".join(f"{fields()[n].label.lower()} {words.said(fields()[n], row[n])}" for n in names)


def chart(
    rows: Sequence[dict[str, Any]], names: Sequence[str], along: str, title: str, share: bool, dark: bool
) -> go.Figure:
    """Means along a setting, with their intervals, a line for each combination of the other settings; ``rows`` as
    ``engine.sweep.trend`` gives them, ``share``: they are fractions, drawn in percent."""
    text, faint = ink(dark)
    row, scale = fields()[along], 100.0 if share else 1.0
    others = [name for name in names if name not in (along, "seed")]
    figure = go.Figure()
    table = pd.DataFrame(rows)
    table["line"] = [line_name(r, others) for r in rows]
    order = list(dict.fromkeys(r[along] for r in rows))
    if row.kind in ("int", "float"):
        order.sort()
    places = {value: i for i, value in enumerate(order)}
    lines = list(dict.fromkeys(table["line"]))
    colours = COLOURS if len(lines) > 1 else (MARKS["distilled"].colour,)
    for i, name in enumerate(lines):
        mine = table[table["line"] == name].sort_values(along, key=lambda column: column.map(places))
        nudge = 0.06 * (i - (len(lines) - 1) / 2) / max(1, len(lines) / 4)  # intervals side by side, not on each other
        bars: dict[str, Any] = {}
        if mine["low"].notna().any():
            known = mine.assign(low=mine["low"].fillna(mine["mean"]), high=mine["high"].fillna(mine["mean"]))
            bars["error_y"] = {
                "symmetric": False, "array": scale * (known["high"] - known["mean"]),
                "arrayminus": scale * (known["mean"] - known["low"]), "thickness": 1.5, "width": 4,
            }  # fmt: skip
        figure.add_scatter(
            x=[places[value] + nudge for value in mine[along]],
            y=scale * mine["mean"],
            mode="lines+markers" if row.kind in ("int", "float") else "markers",
            name=html.escape(name) or "all cells",
            line={"color": colours[i % len(colours)], "dash": DASHES[i % len(DASHES)], "width": 2},
            marker={"symbol": SYMBOLS[i % len(SYMBOLS)], "size": 11},
            customdata=mine["n"],
            hovertemplate="%{y:.1f} (%{customdata} runs)<extra>" + html.escape(name) + "</extra>",
            **bars,
        )
    figure.update_xaxes(
        tickvals=list(range(len(order))), ticktext=[html.escape(words.said(row, value)) for value in order],
        title=row.label, range=[-0.5, len(order) - 0.5], showgrid=False, zeroline=False, tickfont={"color": text},
    )  # fmt: skip
    figure.update_yaxes(title=title, gridcolor=faint, zeroline=False, tickfont={"color": text})
    figure.update_layout(
        height=380, margin={"l": 8, "r": 12, "t": 8, "b": 8}, showlegend=bool(others),
        legend={"orientation": "h", "y": -0.22, "yanchor": "top", "x": 0, "font": {"size": 13, "color": text}},
        font={"size": 14, "color": text},
        plot_bgcolor="rgba(0,0,0,0)", paper_bgcolor="rgba(0,0,0,0)",
    )  # fmt: skip
    return figure
