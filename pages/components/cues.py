"""The figures of texture and shape, made from the probes' tables (torch-free, no Streamlit)."""

from __future__ import annotations

import html
from dataclasses import dataclass
from typing import Any

import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from pages.components.marks import MARKS, Mark

PEOPLE = Mark("people", "#c0362c", "x", "✕")
NETWORK = Mark("reference network", "#77808a", "star", "★")
OTHERS = {
    "people": PEOPLE,
    "network": NETWORK,
    "summarised": MARKS["selected"],
    "stylised": Mark("full data, stylised", "#7a4fa3", "diamond-wide", "◆"),
    "distilled-stylised": Mark("distilled from stylised", "#d9a441", "pentagon", "⬟"),
    "adversarial": Mark("adversarially trained", "#a03070", "triangle-down", "▼"),
    "known": Mark("known truth", "#8a7a1f", "hexagon", "⬢"),
}
SHADES = (0.0, 0.45, -0.4, 0.65, -0.65, 0.25, -0.2, 0.8)  # of one kind's students: towards white, towards black
EXPERIMENTS = ("original", "greyscale", "silhouette", "edges", "texture")
PATTERNS = ("", "/", ".", "x", "\\", "-", "+", "|")
DASHES = ("solid", "dash", "dot", "dashdot", "longdash")


@dataclass(frozen=True)
class Look:
    """How an observer is drawn: no two alike, by colour, by shade and by symbol."""

    name: str
    colour: str
    symbol: str
    kind: str

    @property
    def hollow(self) -> str:
        """The symbol of a value that rests on few decisions."""
        return f"{self.symbol.removesuffix('-dot').removesuffix('-open')}-open"


def kind_mark(kind: str) -> Mark:
    """The mark of a kind of training set, or of people and reference networks."""
    return OTHERS.get(kind) or MARKS.get(kind) or MARKS["full"]


def looks(observers: pd.DataFrame) -> list[Look]:
    """A look for each row of a table with ``observer`` and ``kind``: the kind's colour and marker, shaded and dotted
    where several are of one kind."""
    seen: dict[str, int] = {}
    found = []
    for name, kind in observers[["observer", "kind"]].itertuples(index=False):
        mark, turn = kind_mark(kind), seen.get(kind, 0)
        seen[kind] = turn + 1
        symbol = mark.symbol.removesuffix("-open")
        found.append(Look(name, shade(mark.colour, SHADES[turn % 8]), f"{symbol}-dot" if turn % 2 else symbol, kind))
    return found


def shade(colour: str, amount: float) -> str:
    """A hexadecimal colour moved towards white (up to 1) or black (down to -1)."""
    parts = [int(colour[i : i + 2], 16) for i in (1, 3, 5)]
    goal = 255 if amount > 0 else 0
    return "#" + "".join(f"{round(p + (goal - p) * abs(amount)):02x}" for p in parts)


def ink(dark: bool) -> tuple[str, str]:
    """Colours of text and of faint lines."""
    return ("#f0ece4", "#57503f") if dark else ("#211e1a", "#cfc8ba")


def class_by_class(observers: pd.DataFrame, classes: pd.DataFrame, few: int, dark: bool) -> go.Figure:
    """Geirhos et al. 2019, figure 4: a row for each class of the shape, a marker for each observer, lines at their
    means, and bars for the share of decisions that were right for either cue.

    The most shape-biased class is at the bottom. Hollow markers rest on fewer than ``few`` usable decisions.
    """
    text, faint = ink(dark)
    people = classes[classes["kind"] == "people"]
    ranked = (people if len(people) else classes).groupby("class")["bias"].mean().sort_values(ascending=False)
    order = [*ranked.index, *(c for c in classes["class"].unique() if c not in ranked.index)]
    place = {name: i for i, name in enumerate(order)}
    who = looks(observers)
    lane = 0.78 / len(who)
    figure = make_subplots(1, 2, shared_yaxes=True, column_widths=[0.8, 0.2], horizontal_spacing=0.05)
    for i, look in enumerate(who):
        offset = ((len(who) - 1) / 2 - i) * lane
        overall = observers[observers["observer"] == look.name].iloc[0]
        mine = classes[(classes["observer"] == look.name) & classes["bias"].notna()]
        rows = [place[c] + offset for c in mine["class"]]
        figure.add_scatter(
            x=100 * (1 - mine["bias"].astype(float)),
            y=rows,
            mode="markers",
            name=html.escape(look.name),
            marker={
                "color": look.colour,
                "symbol": [look.hollow if f else look.symbol for f in mine["few"]],
                "size": 11,
                "line": {"width": 1.5, "color": look.colour},
            },
            customdata=mine[["class", "shape", "texture", "trials"]],
            hovertemplate="%{customdata[0]}: %{customdata[1]} for the shape, %{customdata[2]} for the texture, of "
            "%{customdata[3]}<extra>" + html.escape(look.name) + "</extra>",
            row=1,
            col=1,
        )
        if pd.notna(overall["bias"]):
            mean = 100 * (1 - float(overall["bias"]))
            line = {"color": look.colour, "width": 2, "dash": "solid" if look.symbol == look.hollow[:-5] else "dash"}
            figure.add_shape(
                type="line", x0=mean, x1=mean, y0=-0.5, y1=len(order) - 0.5, line=line, opacity=0.45, layer="below",
                row=1, col=1,
            )  # fmt: skip
        every = classes[classes["observer"] == look.name]
        figure.add_bar(
            x=100 * every["coverage"].astype(float),
            y=[place[c] + offset for c in every["class"]],
            orientation="h",
            width=lane * 0.82,
            marker={"color": look.colour, "line": {"width": 0}},
            hovertemplate="%{x:.0f} % right for either cue<extra>" + html.escape(look.name) + "</extra>",
            showlegend=False,
            row=1,
            col=2,
        )
    for border in range(len(order) + 1):
        figure.add_hline(y=border - 0.5, line={"color": faint, "width": 1, "dash": "dot"}, layer="below")
    figure.add_vline(x=50, line={"color": text, "width": 1, "dash": "dot"}, opacity=0.7, row=1, col=1)
    for border in (0, 100):
        figure.add_vline(x=border, line={"color": faint, "width": 1}, layer="below", row=1, col=2)
    # A second axis across the top is drawn only when a trace lies on it
    figure.add_scatter(
        x=[0], y=[0], xaxis="x3", yaxis="y", mode="markers", opacity=0, showlegend=False, hoverinfo="skip"
    )
    height = 170 + len(order) * max(34, 11 * len(who)) + 22 * len(who)
    title = {"font": {"color": text}}
    axis = {"range": [-4, 104], "dtick": 20, "zeroline": False, "showgrid": False, "tickfont": {"color": text}}
    figure.update_layout(
        height=height,
        margin={"l": 8, "r": 8, "t": 66, "b": 8},
        font={"size": 14, "color": text},
        barmode="overlay",
        legend={"y": -70 / height, "yanchor": "top", "x": 0, "font": {"size": 14, "color": text}},
        xaxis={**axis, "title": {"text": "texture (%) →", **title}},
        xaxis2={
            "range": [0, 100], "tickvals": [50, 100], "title": {"text": "either (%)", **title},
            "showgrid": False, "zeroline": False,
            "tickfont": {"color": text},
        },
        xaxis3={
            **axis, "overlaying": "x", "side": "top", "range": [104, -4], "anchor": "y",
            "title": {"text": "← shape (%)", "standoff": 6, **title},
        },
        yaxis={
            "tickvals": list(range(len(order))), "ticktext": [html.escape(c) for c in order], "showgrid": False,
            "zeroline": False, "range": [-0.5, len(order) - 0.5], "tickfont": {"size": 14, "color": text},
        },
        yaxis2={"showgrid": False, "zeroline": False, "range": [-0.5, len(order) - 0.5]},
    )  # fmt: skip
    return figure


def five_bars(table: pd.DataFrame, chance: float, dark: bool) -> go.Figure:
    """Accuracy of each student in each experiment, with 95 % Wilson intervals."""
    text, faint = ink(dark)
    figure = go.Figure()
    there = [e for e in EXPERIMENTS if e in set(table["experiment"])]
    observers = table.drop_duplicates("observer")
    for i, look in enumerate(looks(observers)):
        mine = table[table["observer"] == look.name].set_index("experiment").reindex(there)
        figure.add_bar(
            x=there,
            y=100 * mine["accuracy"],
            name=html.escape(look.name),
            marker={
                "color": look.colour,
                "pattern": {"shape": PATTERNS[i % 8], "fillmode": "overlay", "fgopacity": 0.45, "size": 7},
            },
            error_y={
                "type": "data",
                "symmetric": False,
                "array": 100 * (mine["high"] - mine["accuracy"]),
                "arrayminus": 100 * (mine["accuracy"] - mine["low"]),
                "color": text,
                "thickness": 1.5,
                "width": 3,
            },
            customdata=mine[["correct", "stimuli"]],
            hovertemplate="%{x}: %{y:.1f} % (%{customdata[0]} of %{customdata[1]})<extra>"
            + html.escape(look.name)
            + "</extra>",
        )
    figure.add_hline(y=100 * chance, line={"color": text, "dash": "dot", "width": 1.5})
    figure.update_yaxes(
        title="Accuracy (%)", range=[0, 104], gridcolor=faint, zeroline=False, tickfont={"color": text, "size": 14}
    )
    figure.update_xaxes(tickfont={"color": text, "size": 14})
    _common(figure, 400 + 22 * len(observers), text)
    figure.update_layout(bargap=0.25, legend={"y": 1.02, "yanchor": "bottom"})
    return figure


def agreement(pairs: pd.DataFrame, dark: bool) -> go.Figure:
    """Kappa of every pair of observers as a heat map with its numbers; what is not defined is left empty."""
    text, _ = ink(dark)
    names = list(dict.fromkeys(pairs["first"]))
    grid = pairs.pivot_table(index="first", columns="second", values="kappa", dropna=False).reindex(names)[names]
    grid = grid.astype(float)
    short = [html.escape(n if len(n) <= 18 else f"{n[:17]}…") for n in names]
    numbers = [[f"{i + 1}" for i in range(len(names))], [f"{i + 1}  {n}" for i, n in enumerate(short)]]
    # Grey is in step with lightness, so that the map can be read without colours
    scale = [[0.0, "#2b1a4f"], [0.5, "#f4f1ea"], [1.0, "#b4622d"]] if not dark else [
        [0.0, "#8f7fd0"], [0.5, "#24211c"], [1.0, "#d98a55"]]  # fmt: skip
    figure = go.Figure(
        go.Heatmap(
            z=grid.to_numpy(),
            x=numbers[0],
            y=numbers[1],
            zmin=-1,
            zmax=1,
            colorscale=scale,
            text=[["" if pd.isna(v) else f"{v:.2f}".replace("0.", ".") for v in row] for row in grid.to_numpy()],
            texttemplate="%{text}",
            xgap=2,
            ygap=2,
            hovertemplate="%{y} and %{x}: κ = %{text}<extra></extra>",
            showscale=False,  # the numbers are in the cells
            hoverongaps=False,
        )
    )
    _common(figure, 90 + 36 * len(names), text)
    figure.update_yaxes(autorange="reversed", tickfont={"color": text, "size": 13}, showgrid=False)
    figure.update_xaxes(side="top", type="category", tickfont={"color": text, "size": 13}, showgrid=False)
    return figure


def bias_against_accuracy(conditions: pd.DataFrame, guesser: float, dark: bool) -> go.Figure:
    """Each way of training: accuracy on the test images across, shape bias up, with 95 % intervals over seeds and
    stimuli. Hollow: no ten usable decisions a student."""
    text, faint = ink(dark)
    figure = go.Figure()
    several = conditions["network"].nunique() > 1
    for kind, mine in conditions[conditions["bias"].notna()].groupby("kind", sort=False):
        mark = kind_mark(kind)
        hollow = mine["usable"] < 10 * mine["students"]
        figure.add_scatter(
            x=100 * mine["accuracy"],
            y=100 * mine["bias"],
            mode="markers+text",
            name=mark.name,
            text=[label(row, several) for _, row in mine.iterrows()],
            textposition="top right",
            textfont={"size": 12, "color": text},
            marker={
                "color": mark.colour,
                "size": 14,
                "symbol": [f"{mark.symbol.removesuffix('-open')}-open" if h else mark.symbol for h in hollow],
            },
            error_x={"type": "data", "array": 100 * mine["accuracy_std"], "thickness": 1.5, "width": 4},
            error_y={
                "type": "data",
                "symmetric": False,
                "array": 100 * (mine["high"] - mine["bias"]),
                "arrayminus": 100 * (mine["bias"] - mine["low"]),
                "thickness": 1.5,
                "width": 4,
            },
            customdata=mine[["condition", "coverage", "students"]].assign(coverage=100 * mine["coverage"]),
            hovertemplate="%{customdata[0]}<br>accuracy %{x:.1f} %, shape bias %{y:.1f} %, coverage "
            "%{customdata[1]:.0f} %, %{customdata[2]} students<extra></extra>",
        )
    figure.add_hline(y=100 * guesser, line={"color": text, "dash": "dot", "width": 1.5})
    figure.add_annotation(
        x=1, xref="paper", y=100 * guesser, text="a guesser", showarrow=False, yanchor="bottom", xanchor="right",
        font={"size": 13, "color": text},
    )  # fmt: skip
    figure.update_xaxes(title="Test accuracy (%)", gridcolor=faint, zeroline=False, tickfont={"color": text})
    figure.update_yaxes(
        title="Shape bias (%)", range=[-4, 108], gridcolor=faint, zeroline=False, tickfont={"color": text}
    )
    _common(figure, 520, text)
    return figure


def bias_over_images(conditions: pd.DataFrame, guesser: float, dark: bool) -> go.Figure:
    """Shape bias over the number of training images, with 95 % intervals; a line for each kind, method and network
    that comes in several sizes."""
    text, faint = ink(dark)
    figure = go.Figure()
    several = conditions["network"].nunique() > 1
    there = conditions[conditions["bias"].notna() & conditions["images"].notna()]
    there = there.assign(method=there["method"].fillna(""))
    drawn: dict[str, int] = {}
    # Sizes are moved apart a little, so that intervals do not cover each other
    for (kind, method, network), mine in there.groupby(["kind", "method", "network"], sort=False):
        mark, mine = kind_mark(str(kind)), mine.sort_values("images")
        turn = drawn[str(kind)] = drawn.get(str(kind), -1) + 1
        name = mark.name if method in ("", "random") else f"{mark.name}, {method}"
        hollow = mine["usable"] < 10 * mine["students"]
        figure.add_scatter(
            x=mine["images"] * 1.04 ** (len(figure.data) % 5),
            y=100 * mine["bias"],
            mode="lines+markers",
            name=html.escape(f"{name}, {network}" if several else name),
            line={"color": shade(mark.colour, SHADES[turn % 8]), "dash": DASHES[turn % 5], "width": 2},
            marker={
                "size": 12,
                "symbol": [f"{mark.symbol.removesuffix('-open')}-open" if h else mark.symbol for h in hollow],
            },
            error_y={
                "type": "data",
                "symmetric": False,
                "array": 100 * (mine["high"] - mine["bias"]),
                "arrayminus": 100 * (mine["bias"] - mine["low"]),
                "thickness": 1.5,
                "width": 4,
            },
            customdata=mine[["condition", "students"]],
            hovertemplate="%{customdata[0]}<br>shape bias %{y:.1f} %, %{customdata[1]} students<extra></extra>",
        )
    figure.add_hline(y=100 * guesser, line={"color": text, "dash": "dot", "width": 1.5})
    figure.update_xaxes(
        title="Training images", type="log", dtick=1, gridcolor=faint, zeroline=False, tickfont={"color": text}
    )
    figure.update_yaxes(
        title="Shape bias (%)", range=[-4, 108], gridcolor=faint, zeroline=False, tickfont={"color": text}
    )
    _common(figure, 420, text)
    return figure


def label(row: Any, several: bool) -> str:
    """A condition in a word or two, to stand beside its marker; with its network where there are ``several``."""
    images = "" if pd.isna(row["images"]) else f"{row['images']:,.0f}"
    short = {"full": "all", "stylised": "stylised", "known": str(row["method"])}.get(row["kind"])
    if short is None:
        real = row["kind"] == "random" or pd.isna(row["method"])
        short = images if real else f"{row['method']} {images}"
    return html.escape(f"{short}, {row['network']}" if several else short)


def _common(figure: go.Figure, height: int, text: str) -> None:
    figure.update_layout(
        height=height,
        margin={"l": 8, "r": 8, "t": 24, "b": 8},
        font={"size": 14, "color": text},
        legend={"orientation": "h", "y": -70 / height, "yanchor": "top", "x": 0, "font": {"size": 14, "color": text}},
    )
