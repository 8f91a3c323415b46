"""A choice between a few things, one of which is always chosen (torch-free)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, cast

import streamlit as st


def keep(key: str, value: Any) -> None:
    """Have the widget of this key show ``value``, at every run.

    A browser gets a value of the session's once, and loses it when another run follows before it has drawn the widget;
    then it would send the widget's own default as if somebody had chosen that.
    """
    st.session_state[key] = value


def named(names: Mapping[str, str]) -> Callable[[str], str]:
    """For ``format_func``: what an option is called, and the option itself where it has no name any more."""
    return lambda option: names.get(option, option)


def one_of(
    label: str, options: dict[str, str], key: str, before: str | None = None, menu: bool = False, **more: Any
) -> str:
    """A segmented control of ``options`` (id to title), or a ``menu`` of them; the id that is chosen.

    ``before``: what was chosen so far, where the page keeps that: it is chosen still when the widget is drawn for the
    first time, and when a busy browser sends that nothing is, which ``required`` does not keep it from. Where
    ``before`` is none of the options it is the first.
    """
    keep(key, next((o for o in (st.session_state.get(key), before) if o in options), next(iter(options))))
    if menu:
        return st.selectbox(label, list(options), format_func=named(options), key=key, **more)
    chosen = st.segmented_control(label, list(options), format_func=named(options), key=key, required=True, **more)
    return cast(str, chosen)  # required
