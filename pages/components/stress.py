"""The figures of shortcuts, robustness and transfer, made from the probes' tables (torch-free, no Streamlit).

``who`` is always a table of the students in their order: ``student`` (id), ``observer`` (name) and ``kind``.
"""

from __future__ import annotations

import html
import math
from typing import Any

import pandas as pd
import plotly.graph_objects as go

from pages.components.cues import ink, kind_mark, looks
from pages.components.reports import DARK, PALE

SETS = {"distilled": "solid", "random": "dash", "full": "dot"}
DASHES = ("solid", "dash", "dot", "dashdot", "longdash", "longdashdot")


def shortcut(
    students: pd.DataFrame, summary: pd.DataFrame, tests: dict[str, str], sets: dict[str, str], dark: bool
) -> go.Figure:
    """Accuracy of each training set's students in each test: large markers are means over repeats with their 95 %
    intervals, small ones single students."""
    text, faint = ink(dark)
    figure = go.Figure()
    for i, (kind, title) in enumerate(sets.items()):
        mark, offset = kind_mark(kind), (i - (len(sets) - 1) / 2) * 0.24
        mine = summary[summary["set"] == kind].set_index("measure").loc[[f"{test}_accuracy" for test in tests]]
        mine = mine[["mean", "low", "high"]].astype(float)
        single = students[students["set"] == kind]
        for j, test in enumerate(tests):
            figure.add_scatter(
                x=[j + offset - 0.075] * len(single),
                y=100 * single[f"{test}_accuracy"],
                mode="markers",
                marker={"symbol": f"{mark.symbol}-open", "size": 6, "color": mark.colour},
                opacity=0.7,
                showlegend=False,
                hovertemplate="%{y:.1f} %<extra>one student, " + title.lower() + "</extra>",
            )
        figure.add_scatter(
            x=[j + offset for j in range(len(tests))],
            y=100 * mine["mean"],
            mode="lines+markers",
            name=html.escape(title),
            line={"color": mark.colour, "width": 1.5, "dash": SETS.get(kind, "solid")},
            marker={"symbol": mark.symbol, "size": 14, "color": mark.colour},
            error_y=_bars(mine["mean"], mine["low"], mine["high"], mark.colour),
            hovertemplate="%{y:.1f} %<extra>" + html.escape(title) + "</extra>",
        )
    _chance(figure, 0.5, text, "a guesser")
    _layout(figure, 440, text)
    titles = [t.replace(" ", "<br>") if len(t) > 14 else t for t in tests.values()]
    figure.update_xaxes(
        tickvals=list(range(len(tests))), ticktext=titles, range=[-0.5, len(tests) - 0.5], showgrid=False,
        zeroline=False, tickfont={"color": text, "size": 14},
    )  # fmt: skip
    figure.update_yaxes(
        title="Accuracy (%)", range=[-4, 104], gridcolor=faint, zeroline=False, tickfont={"color": text}
    )
    return figure


def lanes(table: pd.DataFrame, rows: dict[str, str], column: str, who: pd.DataFrame, chance: float, dark: bool) -> Any:
    """A row for each of ``rows`` (values of ``column`` and what they are called), and in it a marker for each student:
    accuracy with its 95 % interval."""
    text, faint = ink(dark)
    figure, place = go.Figure(), {row: i for i, row in enumerate(rows)}
    lane = 0.72 / len(who)
    for i, look in enumerate(looks(who)):
        mine = table[(table["student"] == who["student"].iloc[i]) & table[column].isin(place)]
        values, low, high = (mine[name].astype(float) for name in ("accuracy", "low", "high"))
        figure.add_scatter(
            x=100 * values,
            y=[place[row] + (i - (len(who) - 1) / 2) * lane for row in mine[column]],
            mode="markers",
            name=html.escape(look.name),
            marker={"symbol": look.symbol, "size": 11, "color": look.colour},
            error_x=_bars(values, low, high, look.colour),
            customdata=mine[["right", "images"]].assign(row=[rows[row] for row in mine[column]]),
            hovertemplate="%{customdata[2]}: %{x:.1f} % (%{customdata[0]:,} of %{customdata[1]:,})<extra>"
            + html.escape(look.name)
            + "</extra>",
        )
    for border in range(1, len(rows)):
        figure.add_hline(y=border - 0.5, line={"color": faint, "width": 1, "dash": "dot"}, layer="below")
    figure.add_vline(x=100 * chance, line={"color": text, "dash": "dot", "width": 1.5})
    figure.add_annotation(
        x=100 * chance, y=1, yref="paper", text="chance", showarrow=False, yanchor="bottom", xanchor="left",
        font={"size": 12, "color": text},
    )  # fmt: skip
    _layout(figure, 130 + len(rows) * max(24, 12 * len(who)) + 22 * len(who), text)
    figure.update_xaxes(
        title="Accuracy (%)", range=[-2, 102], gridcolor=faint, zeroline=False, tickfont={"color": text}
    )
    figure.update_yaxes(
        tickvals=list(range(len(rows))), ticktext=[html.escape(t) for t in rows.values()], zeroline=False,
        range=[len(rows) - 0.5, -0.5], showgrid=False, tickfont={"color": text, "size": 13},
    )  # fmt: skip
    return figure


def over_severity(table: pd.DataFrame, who: pd.DataFrame, chance: float, names: list[str], dark: bool) -> go.Figure:
    """Accuracy of each student against severity. ``table``: student, severity 0 to 3, accuracy, and low and high
    where there is an interval; ``names``: what the severities are called."""
    text, faint = ink(dark)
    figure = go.Figure()
    for i, look in enumerate(looks(who)):
        mine = table[table["student"] == who["student"].iloc[i]].sort_values("severity")
        values = mine["accuracy"].astype(float)
        figure.add_scatter(
            x=mine["severity"] + (i - (len(who) - 1) / 2) * 0.06,
            y=100 * values,
            mode="lines+markers",
            name=html.escape(look.name),
            line={"color": look.colour, "width": 2, "dash": DASHES[i % 6]},
            marker={"symbol": look.symbol, "size": 11, "color": look.colour},
            error_y=_bars(values, mine["low"].astype(float), mine["high"].astype(float), look.colour),
            hovertemplate="%{y:.1f} %<extra>" + html.escape(look.name) + "</extra>",
        )
    _chance(figure, chance, text)
    _layout(figure, 370 + 22 * len(who), text)
    figure.update_xaxes(
        tickvals=[0, 1, 2, 3], ticktext=names, range=[-0.3, 3.3], showgrid=False, zeroline=False,
        tickfont={"color": text, "size": 13},
    )  # fmt: skip
    figure.update_yaxes(
        title="Accuracy (%)", range=[-4, 104], gridcolor=faint, zeroline=False, tickfont={"color": text}
    )
    return figure


def holding(radii: pd.DataFrame, who: pd.DataFrame, dark: bool) -> go.Figure:
    """The share of images whose right answer no attack of a radius changed, against that radius."""
    text, faint = ink(dark)
    figure = go.Figure()
    radius = radii["radius"].astype(float)
    end = min(float(radii["reach"].max()), 1.15 * max(float(radius.max(skipna=True) or 0), 1.0))
    for i, look in enumerate(looks(who)):
        mine = radius[radii["student"] == who["student"].iloc[i]].fillna(math.inf)
        steps = sorted({0.0, *(r for r in mine if r <= end), end})
        figure.add_scatter(
            x=steps,
            y=[100 * float((mine > r).mean()) for r in steps],
            mode="lines+markers",
            name=html.escape(look.name),
            line={"shape": "hv", "width": 2, "color": look.colour, "dash": DASHES[i % 6]},
            marker={"symbol": look.symbol, "size": 8, "color": look.colour},
            hovertemplate="beyond a radius of %{x:g}: %{y:.0f} %<extra>" + html.escape(look.name) + "</extra>",
        )
    _layout(figure, 330 + 22 * len(who), text)
    figure.update_xaxes(
        title="Radius of the attack (255ths)", range=[-0.02 * end, end], gridcolor=faint, zeroline=False,
        tickfont={"color": text},
    )  # fmt: skip
    figure.update_yaxes(
        title="Answers that hold (%)", range=[-4, 104], gridcolor=faint, zeroline=False, tickfont={"color": text}
    )
    return figure


def strip(groups: pd.DataFrame, summary: pd.DataFrame, who: pd.DataFrame, dark: bool) -> go.Figure:
    """A lane for each student: small markers are groups, the large one is the worst of them, the solid line the
    average, the dotted one where the worst would lie by chance."""
    text, faint = ink(dark)
    figure = go.Figure()
    for i, look in enumerate(looks(who)):
        student = who["student"].iloc[i]
        mine = groups[(groups["student"] == student) & groups["judged"]].reset_index(drop=True)
        whole = summary[summary["student"] == student].iloc[0]
        figure.add_scatter(
            x=100 * mine["accuracy"].astype(float),
            y=[i + 0.36 * ((0.618 * k) % 1 - 0.5) for k in range(len(mine))],  # apart, the same at each drawing
            mode="markers",
            marker={"symbol": look.hollow, "size": 8, "color": look.colour},
            customdata=mine[["class", "colour", "right", "images"]],
            hovertemplate="%{customdata[0]} on %{customdata[1]}: %{x:.1f} % (%{customdata[2]} of %{customdata[3]})"
            "<extra>" + html.escape(look.name) + "</extra>",
            showlegend=False,
        )
        figure.add_scatter(
            x=[100 * whole["worst"]],
            y=[i],
            mode="markers",
            marker={"symbol": look.symbol, "size": 15, "color": look.colour},
            hovertemplate=f"the worst: {html.escape(str(whole['worst_group']))}, %{{x:.1f}} %<extra></extra>",
            showlegend=False,
        )
        for value, dash, width in ((whole["average"], "solid", 3), (whole["worst_by_chance"], "dot", 2)):
            figure.add_shape(
                type="line", x0=100 * value, x1=100 * value, y0=i - 0.3, y1=i + 0.3,
                line={"color": text, "width": width, "dash": dash},
            )  # fmt: skip
        worst = f"worst: {whole['worst_group']}, {100 * whole['worst']:.0f} %"
        figure.add_annotation(
            x=0, xref="paper", y=i - 0.32, text=html.escape(f"{look.name}; {worst}"), showarrow=False, xanchor="left",
            yanchor="bottom", font={"size": 13, "color": text},
        )  # fmt: skip
    _layout(figure, 90 + 92 * len(who), text)
    figure.update_xaxes(
        title="Accuracy of a group (%)", range=[-3, 103], gridcolor=faint, zeroline=False, tickfont={"color": text}
    )
    figure.update_yaxes(range=[len(who) - 0.5, -0.75], showticklabels=False, showgrid=False, zeroline=False)
    return figure


def group_map(groups: pd.DataFrame, dark: bool) -> go.Figure:
    """Accuracy of one student in each class (rows) and colour (columns), in percent; groups that are too small to be
    judged are empty."""
    text, _ = ink(dark)
    classes, colours = list(dict.fromkeys(groups["class"])), list(dict.fromkeys(groups["colour"]))
    cell = {(row["class"], row["colour"]): row for _, row in groups.iterrows()}
    shown = [[cell[c, k] if cell[c, k]["judged"] else None for k in colours] for c in classes]
    figure = go.Figure(
        go.Heatmap(
            z=[[None if r is None else 100 * r["accuracy"] for r in row] for row in shown],
            x=[html.escape(k) for k in colours],
            y=[html.escape(str(c)) for c in classes],
            zmin=0,
            zmax=100,
            colorscale=DARK if dark else PALE,
            xgap=2,
            ygap=2,
            text=[["" if r is None else f"{100 * r['accuracy']:.0f}" for r in row] for row in shown],
            texttemplate="%{text}",
            customdata=[[[cell[c, k]["right"], cell[c, k]["images"]] for k in colours] for c in classes],
            hovertemplate="%{y} on %{x}: %{z:.1f} % (%{customdata[0]} of %{customdata[1]})<extra></extra>",
            hoverongaps=False,
            showscale=False,
        )
    )
    _layout(figure, min(110 + 28 * len(classes), 1600), text)
    axis = {"type": "category", "showgrid": False, "zeroline": False, "tickfont": {"color": text, "size": 13}}
    figure.update_xaxes(side="top", **axis)
    figure.update_yaxes(autorange="reversed", **axis)
    return figure


def matrix(pairs: pd.DataFrame, who: pd.DataFrame, dark: bool) -> go.Figure:
    """How often, in percent, examples made on a student (rows) fool another (columns); both by their number."""
    text, _ = ink(dark)
    ids = list(who["student"])
    grid = pairs.pivot_table(index="made_on", columns="shown_to", values="fooled", dropna=False)
    grid = 100 * grid.reindex(index=ids, columns=ids).astype(float)
    figure = go.Figure(
        go.Heatmap(
            z=grid.to_numpy(),
            x=[str(i + 1) for i in range(len(ids))],
            y=[str(i + 1) for i in range(len(ids))],
            zmin=0,
            zmax=100,
            colorscale=DARK if dark else PALE,
            xgap=2,
            ygap=2,
            text=[["" if pd.isna(v) else f"{v:.0f}" for v in row] for row in grid.to_numpy()],
            texttemplate="%{text}",
            hovertemplate="made on %{y}, shown to %{x}: %{z:.1f} %<extra></extra>",
            hoverongaps=False,
            showscale=False,
        )
    )
    _layout(figure, 140 + 40 * len(ids), text)
    axis = {"type": "category", "showgrid": False, "zeroline": False, "tickfont": {"color": text, "size": 13}}
    figure.update_xaxes(side="top", title={"text": "Shown to", "font": {"color": text}}, **axis)
    figure.update_yaxes(autorange="reversed", title={"text": "Made on", "font": {"color": text}}, **axis)
    return figure


def against(
    table: pd.DataFrame, column: str, x: str, y: str, titles: tuple[str, str], who: pd.DataFrame, dark: bool
) -> go.Figure:
    """``y`` against ``x``, a marker for each row of ``table`` in the look of the student that its ``column`` names.
    Shares are given in percent already; ``label`` is what hovering says."""
    text, faint = ink(dark)
    figure = go.Figure()
    for i, look in enumerate(looks(who)):
        mine = table[table[column] == who["student"].iloc[i]]
        figure.add_scatter(
            x=mine[x].astype(float),
            y=mine[y].astype(float),
            mode="markers",
            name=html.escape(look.name),
            marker={"symbol": look.symbol, "size": 13, "color": look.colour},
            customdata=[html.escape(str(label)) for label in mine["label"]],
            hovertemplate="%{customdata}: %{x:.3g}, %{y:.3g}<extra></extra>",
        )
    _layout(figure, 330 + 22 * len(who), text)
    for update, title in ((figure.update_xaxes, titles[0]), (figure.update_yaxes, titles[1])):
        update(title=title, gridcolor=faint, zeroline=False, tickfont={"color": text})
    return figure


def _bars(values: pd.Series, low: pd.Series, high: pd.Series, colour: str) -> dict[str, Any]:
    """Error bars in percent; none where there is no interval."""
    return {
        "type": "data",
        "symmetric": False,
        "array": 100 * (high - values).fillna(0),
        "arrayminus": 100 * (values - low).fillna(0),
        "color": colour,
        "thickness": 1.5,
        "width": 3,
    }


def _chance(figure: go.Figure, chance: float, text: str, name: str = "chance") -> None:
    figure.add_hline(y=100 * chance, line={"color": text, "dash": "dot", "width": 1.5})
    figure.add_annotation(
        x=1, xref="paper", y=100 * chance, text=name, showarrow=False, yanchor="bottom", xanchor="right",
        font={"size": 12, "color": text},
    )  # fmt: skip


def _layout(figure: go.Figure, height: float, text: str) -> None:
    figure.update_layout(
        height=height,
        margin={"l": 8, "r": 8, "t": 22, "b": 8},
        font={"size": 14, "color": text},
        showlegend=True,
        legend={"y": -110 / height, "yanchor": "top", "x": 0, "font": {"size": 13, "color": text}},
    )
