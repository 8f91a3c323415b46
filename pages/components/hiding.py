"""Links for a class: an address with ``hide=…`` shows fewer controls, while the values in the link hold (torch-free).

Made for teaching, not for security: whoever takes ``hide`` out of the address has everything back.
"""

from __future__ import annotations

from urllib.parse import urlencode, urlsplit, urlunsplit

import streamlit as st

from engine import seminar
from engine.methods import METHODS
from engine.spec import RunSpec
from engine.table import parameters
from pages.components import address, roles

GROUPS = {
    "presets": "the choice to start from",
    "settings": "all settings of a run",
    "more": "more settings",
    "inside": "how the method works, step by step",
    "recent": "recent runs",
    "export": "exports and downloads",
    "pages": "links to other pages",
}
SETTINGS = {row.name: row.label for row in parameters(RunSpec)}
OFFERED = ("dataset", "method", "ipc", "minutes", "init", "seed")  # settings that the panel offers one by one
KNOWN = {*GROUPS, *SETTINGS, *(row.name for m in METHODS.values() for row in parameters(m.parameters))}


def parse(text: str) -> set[str]:
    """The names in a value of ``hide``; what is none is left out."""
    return {name for part in text[:2000].split(",") if (name := part.strip()) in KNOWN}


def hidden(name: str) -> bool:
    """Whether the address hides a control: a setting, by its own name or with all of them, or a group."""
    asked = parse(address.kept("hide"))
    return name in asked or ("settings" in asked and (name == "more" or name not in GROUPS))


def panel() -> None:
    """Make a link to what is on the page, without the controls that are ticked."""
    if not roles.presenter() or address.kept("hide"):
        return
    state = st.session_state
    unfolded = st.expander("Link for a class", icon=":material/link:", key="hiding", on_change="rerun")
    if not unfolded.open:  # a dozen boxes that hardly anybody wants, in every drawing of the page
        for key in (f"hide_{name}" for name in (*GROUPS, *OFFERED)):
            if key in state:
                state[key] = state[key]  # what is assigned is kept, also while no box is drawn
        return
    with unfolded:
        st.caption(
            "Opens what this page shows, without the controls that are ticked; the settings stay as they are now. For "
            "teaching, not for security: the address can be edited."
        )
        choices = {**GROUPS, **{name: SETTINGS[name] for name in OFFERED}}
        ticked = []
        for column, names in zip(st.columns(2), (list(GROUPS), list(OFFERED)), strict=True):
            with column:
                st.markdown("Hide" if names[0] in GROUPS else "Hide one setting")
                ticked += [name for name in names if st.checkbox(choices[name], key=f"hide_{name}")]
        if ticked:
            st.code(link(ticked), language=None, wrap_lines=True)


def link(names: list[str]) -> str:
    """The address of this page with these controls hidden."""
    here = urlsplit(st.context.url or "")
    host = here.netloc
    if seminar.presenter_key() and here.hostname in ("localhost", "127.0.0.1", "::1"):
        address_of = seminar.room_host(str(st.get_option("server.address") or ""))
        host = f"{address_of}:{here.port}" if here.port else address_of
    query = urlencode({**address.own(), "hide": ",".join(names)}, safe=",")
    return urlunsplit((here.scheme, host, here.path, query, ""))
