"""Pieces that pages are made of: figures, downloads, numbers in words (torch-free)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

import pandas as pd
import streamlit as st

from engine.seminar import presenter_key
from pages.components.address import kept
from pages.components.component import component
from pages.components.cues import ink
from pages.components.hiding import hidden

Table: TypeAlias = pd.DataFrame | Callable[[], pd.DataFrame]

_save = component(
    "save",
    '<div class="save"><button type="button" value="svg">Picture (.svg)</button>\n'
    '<button type="button" value="png">Picture (.png)</button><span role="status"></span></div>',
)


def figure(chart: Any, key: str, alt: str, table: Table, what: str) -> None:
    """A finished result as a plotly figure, with a small “Download” below it; see ``take``."""
    text, _ = ink(is_dark())  # Streamlit draws the titles of axes in a grey that is too faint for a hall
    chart.update_xaxes(title_font_color=text)
    chart.update_yaxes(title_font_color=text)
    st.plotly_chart(enlarged(chart) if is_big() else chart, key=key, config={"displayModeBar": False}, alt=alt)
    take(key, table, what)


def take(key: str, table: Table, what: str) -> None:
    """The “Download” of the chart with that key: as SVG or PNG, which the browser makes of what it has drawn, and the
    ``table`` behind it as CSV, made when it is asked for. ``what`` names the files."""

    def csv() -> str:
        return (table() if callable(table) else table).to_csv(index=False)

    if hidden("export"):
        return
    with st.popover("Download", icon=":material/download:", type="tertiary", key=f"take-{key}"):
        _save(key=f"save-{key}", data={"chart": key, "name": f"limbeck-{what}"})
        st.download_button(
            "Data (.csv)", csv, f"limbeck-{what}.csv", "text/csv", on_click="ignore", key=f"csv-{key}", width="stretch"
        )


def download(table: pd.DataFrame | Callable[[], str], what: str, label: str = "Download the data (CSV)") -> None:
    st.download_button(
        label, table if callable(table) else table.to_csv(index=False), f"limbeck-{what}.csv", "text/csv",
        icon=":material/download:", on_click="ignore", key=f"download-{what}",
    )  # fmt: skip


def percent(value: Any, digits: int = 1) -> str:
    return "–" if value is None or pd.isna(value) else f"{100 * value:.{digits}f} %"


def number(value: Any) -> str:
    return "–" if value is None or pd.isna(value) else f"{value:.3g}"


def interval(table: pd.DataFrame, name: str = "", share: bool = True) -> list[str]:
    """A value of a table's rows with its 95 % interval."""
    columns = [name, f"{name}_low", f"{name}_high"] if name else ["mean", "low", "high"]
    show = percent if share else "{:.2f}".format if name else number
    rows = table[columns].astype(float).itertuples(index=False)
    return ["–" if pd.isna(m) else f"{show(m)} ({show(a)} to {show(b)})" for m, a, b in rows]


def is_dark() -> bool:
    return st.context.theme.type == "dark"


def is_big() -> bool:
    """Whether type and lines are drawn for the back row: in seminar mode, unless the address says otherwise."""
    return kept("seminar") == "1" or (kept("seminar") != "0" and bool(presenter_key()))


def enlarged(chart: Any) -> Any:
    """A plotly figure with its type larger by 30 % and its lines thicker by half."""

    def grow(part: Any, name: str = "") -> Any:
        if isinstance(part, dict):
            grown = {key: grow(value, key) for key, value in part.items()}
            if name.endswith("font") and isinstance(part.get("size"), (int, float)):
                grown["size"] = round(1.3 * part["size"])
            if name == "line" and isinstance(part.get("width"), (int, float)):
                grown["width"] = 1.5 * part["width"]
            return grown
        return [grow(value, name) for value in part] if isinstance(part, (list, tuple)) else part

    return type(chart)(grow(chart.to_plotly_json()))
