"""The address: a page's part, what a reload or a shared link needs to show the same, and the keys that stay with the
visitor from page to page (torch-free)."""

from __future__ import annotations

import time
from collections.abc import Container
from dataclasses import dataclass

import streamlit as st

from engine.data.folder_check import printable
from pages.components import roles
from pages.components.shared import store

# Keys that no page owns. Those kept come back even where a link leaves them out; those carried only survive that a page
# rewrites its address, so that a link can end a tour.
KEPT, CARRIED = {"hide", "seminar"}, {"tour", "reveal"}
LATE = 5.0  # seconds in which a browser may still send the address before


@dataclass(frozen=True)
class _Kept:
    """The address that a page has written last (None: not yet), and the one it left for that, at what time."""

    written: dict[str, str] | None
    left: dict[str, str]
    since: float


def keep() -> None:
    """Before a page is drawn: a link on a page leaves the keys of ``KEPT`` behind, and they are put back."""
    kept = st.session_state.setdefault("kept", {})
    for key in KEPT:
        if key in st.query_params:
            kept[key] = shown(st.query_params.to_dict())[key]
        elif key in kept:
            st.query_params[key] = kept[key]


def kept(key: str) -> str:
    """The value of a key that stays; empty where there is none."""
    return st.session_state.get("kept", {}).get(key, "")


def hold(key: str, value: str) -> None:
    """Give a key that stays a value, in a callback: what the script does next may not be done to its end."""
    st.session_state.setdefault("kept", {})[key] = value
    st.query_params[key] = value


def own() -> dict[str, str]:
    """The page's part of the address."""
    return {key: value for key, value in st.query_params.to_dict().items() if key not in KEPT | CARRIED}


def along() -> dict[str, str]:
    """What belongs into every address that is made for this visitor: the keys that no page owns."""
    carried = {key: value for key, value in st.query_params.to_dict().items() if key in CARRIED}
    return {**carried, **st.session_state.get("kept", {})}


def replace(now: dict[str, str]) -> None:
    """Put another page's part into the address."""
    if own() != now:
        st.query_params.from_dict({**now, **along()})


def put(**values: str | None) -> None:
    """Put single keys into the address; None takes one out."""
    for key, value in values.items():
        if value is None:
            st.query_params.pop(key, None)
        elif st.query_params.get(key) != value:
            st.query_params[key] = value


def toggle(label: str, key: str, help: str) -> bool:
    """A toggle that the address holds.

    Streamlit's own binding lets nobody else change its key, and so nobody be led to another address of the page.
    """
    st.session_state.setdefault(key, st.query_params.get(key) == "true")
    on = st.toggle(label, key=key, help=help)
    put(**{key: "true" if on else None})
    return on


def query() -> dict[str, str]:
    """What the address asks for, fit to be shown. A viewer cannot ask for folders of this machine that no run used."""
    asked = shown(own())
    if not roles.presenter():
        foreign = [k for k, v in asked.items() if v.startswith("folder:") and not store().runs(dataset=v, limit=1)]
        asked = {key: value for key, value in asked.items() if key not in foreign}
    return asked


def shown(query: dict[str, str]) -> dict[str, str]:
    """An address with question marks for what is not printable in it."""
    return {key: "".join(c if printable(c) else "?" for c in value) for key, value in query.items()}


def changed(page: str, keys: Container[str] | None = None) -> dict[str, str] | None:
    """The address when a link or a hand has changed it, else None: the page's state counts.

    A browser that is busy sends an address for a while after the page has put another in its place. Taken at its
    word, it would undo what was just chosen. ``keys``: those that are the page's, if others are in the address too.
    """
    asked = {k: v for k, v in query().items() if keys is None or k in keys}
    kept: _Kept | None = st.session_state.get(f"address_{page}")
    if kept is not None and (
        not asked or asked == kept.written or (asked == kept.left and time.monotonic() - kept.since < LATE)
    ):
        return None
    st.session_state[f"address_{page}"] = _Kept(None, asked, time.monotonic())
    return asked


def write(page: str, now: dict[str, str]) -> bool:
    """Put the page's state into the address; whether something was chosen since that was last done."""
    kept: _Kept = st.session_state[f"address_{page}"]
    chosen = kept.written is not None and now != kept.written
    left = (kept.written, time.monotonic()) if chosen else (kept.left, kept.since)
    st.session_state[f"address_{page}"] = _Kept(now, *left)
    replace(now)
    return chosen
