"""The settings of a question to a probe: widgets made from its table, and their part of the address (torch-free)."""

from __future__ import annotations

from typing import Any

import streamlit as st

from engine.data.catalogue import DATASETS, availability
from engine.runs.store import Store
from engine.table import Parameter, allowed
from pages.components import form
from pages.components.shared import dataset_title


def read(rows: list[Parameter], query: dict[str, str], values: dict[str, Any]) -> list[str]:
    """Take what an address says about ``rows`` into ``values``; sentences about what cannot be taken."""
    problems = []
    for row in rows:
        text = query.get(row.key)
        value = None if text is None else form.parse(row, text)
        if text is not None and value is None:
            problems.append(f"The link asked for {row.label.lower()} “{text[:40]}”, but that must be {allowed(row)}.")
        elif value is not None:
            values[row.name] = value
    return problems


def written(rows: list[Parameter], values: dict[str, Any]) -> dict[str, str]:
    """What an address says about ``values``: those that are not the defaults."""
    return {row.key: str(values[row.name]) for row in rows if values.get(row.name, row.default) != row.default}


def draw(row: Parameter, key: str, value: Any, words: dict[str, str]) -> Any:
    """The widget of a choice or a number; its value. It is given ``value`` as its own default, which counts when the
    button is pressed before a slow browser has drawn the widget. ``words``: what choices are called."""
    if row.kind == "choice":
        return st.selectbox(
            row.label, row.choices, row.choices.index(value), format_func=lambda c: words.get(c, c), key=key,
            help=row.help,
        )  # fmt: skip
    kind = int if row.kind == "int" else float
    assert row.low is not None and row.high is not None
    low, high, now = kind(row.low), kind(row.high), kind(value)
    step, digits = (1, "%d") if kind is int else ((row.default or 1.0) / 2, "%.6g")
    return st.number_input(row.label, low, high, now, step=step, format=digits, key=key, help=row.help)


def dataset(row: Parameter, key: str, value: str, ready: list[str]) -> str:
    """One of the datasets that are ready, or a folder that is typed in."""
    options = ready if value in ready else [*ready, value]
    return st.selectbox(
        row.label, options, options.index(value), format_func=dataset_title, key=key, help=row.help,
        accept_new_options=True,
    )  # fmt: skip


def ready(where: Store) -> list[str]:
    """Datasets that are here, and the folders that were used."""
    folders = [run.dataset for run in where.runs(limit=500) if run.dataset.startswith("folder:")]
    return list(dict.fromkeys(name for name in (*DATASETS, *folders) if availability(name).ready))
