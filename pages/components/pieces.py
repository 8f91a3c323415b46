"""Pieces that pages are made of: figures, downloads, numbers in words (torch-free)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pandas as pd
import streamlit as st


def figure(chart: Any, key: str, alt: str) -> None:
    st.plotly_chart(chart, key=key, config={"displayModeBar": False}, alt=alt)


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
