"""What the page “Image by image” keeps, its knobs, and its part of the address (torch-free)."""

from __future__ import annotations

from typing import Any

import streamlit as st
from pydantic import BaseModel

from engine.edits import LONGEST, parse, written
from engine.errors import Refused
from engine.probes.desk import Desk, digest_of, question_of
from engine.probes.specs import PROBES
from engine.runs.store import Store
from engine.spec import build_spec
from engine.table import Parameter, allowed, parameters
from pages.components import address, choice, form, roles
from pages.components.asking import Answered, ask
from pages.components.shared import desk

SECTIONS = {"values": "Values", "edit": "Edit", "quiz": "Quiz"}
PROBE = {"values": "valuation", "edit": "edit", "quiz": "quiz"}
ORDERS = {"set": "As in the set", "worst": "Least valuable first", "best": "Most valuable first"}
WORDS = {
    "kind": {"leave-one-out": "Leave one out", "shapley": "Shapley"},
    "split": {"held-out": "Held-out images", "test": "Test images"},
}
ASIDE = ("source", "edits", "student")  # rows of the probes' tables that are no knobs


def rows(section: str) -> list[Parameter]:
    """The knobs of a section: the table of its probe, but for what is chosen otherwise."""
    return [row for row in parameters(PROBES[PROBE[section]].spec) if row.name not in ASIDE]


def defaults(section: str) -> dict[str, Any]:
    return {row.name: row.default for row in rows(section)}


# ---- the address ----------------------------------------------------------------------------------------------------


def read_address(where: Store) -> list[str]:
    """Take the page's state from the address when that was changed from outside; sentences about what is wrong with it,
    until something is chosen."""
    state, query = st.session_state, address.changed("pieces")
    if query is None:
        return state.pieces_problems
    section, problems = query.get("section", "values"), []
    if section not in SECTIONS:
        problems.append(f"There is no section “{section[:40]}”; there are {', '.join(SECTIONS)}.")
        section = "values"
    values = defaults(section)
    for row in rows(section):
        text = query.get(row.key)
        value = None if text is None else form.parse(row, text)
        if text is not None and value is None:
            problems.append(f"The link asked for {row.label.lower()} “{text[:40]}”, but that must be {allowed(row)}.")
        elif value is not None:
            values[row.name] = value
    run = query.get("run", "")
    if run and where.result_folder(run) is None:
        problems.append(f"There is no finished set of a run “{run[:60]}” here; this is another one.")
        run = ""
    edits = []
    try:
        edits = parse(query.get("ed", "")[: LONGEST + 1])
    except Refused as refused:
        problems.append(f"The edits in the link were left out. {refused}")
    for key in [k for k in state if str(k).startswith("pieces_")]:
        del state[key]
    image = query.get("image", "0")
    state.pieces = {
        "section": section,
        "run": run,
        "values": {section: values},
        "order": query.get("order", ""),
        "image": int(image) if image.isascii() and image.isdecimal() and len(image) < 6 else 0,
        "edits": [str(edit) for edit in edits],
        "undone": [],
        "student": query.get("nw", "")[:80],
    }
    state.pieces_problems = problems
    return problems


def write_address() -> None:
    """Put into the address what a reload or a shared link needs to show the same."""
    now = st.session_state.pieces
    section, query = now["section"], {"section": now["section"]}
    if now["run"]:
        query["run"] = now["run"]
    values = now["values"].get(section, {})
    query |= {r.key: str(values[r.name]) for r in rows(section) if values.get(r.name, r.default) != r.default}
    if section == "values" and now["order"] not in ("", "set"):
        query["order"] = now["order"]
    if section == "edit":
        query |= {"image": str(now["image"])} if now["image"] else {}
        query |= {"ed": " ".join(now["edits"])} if now["edits"] else {}
    if section == "quiz" and now["student"]:
        query["nw"] = now["student"]
    if address.write("pieces", query):
        st.session_state.pieces_problems = []


# ---- knobs and questions --------------------------------------------------------------------------------------------


def knobs(section: str, names: list[str]) -> None:
    """The widgets of some of a section's rows, side by side; the values are in the page's state."""
    values = st.session_state.pieces["values"].setdefault(section, defaults(section))
    chosen = [row for row in rows(section) if row.name in names]
    for first in range(0, len(chosen), 4):
        for column, row in zip(st.columns(4, gap="small"), chosen[first : first + 4], strict=False):
            key = f"pieces_{section}_{row.name}"
            choice.keep(key, st.session_state.get(key, values[row.name]))
            with column:
                values[row.name] = form.draw(row, key, WORDS.get(row.name, {}), row.help)


def question(probe: str, where: Store, **values: Any) -> BaseModel | None:
    """What a probe is asked, about the set as it is now; a refusal is shown."""
    try:
        info = PROBES[probe]
        return info.named(build_spec(info.spec, **values), where)
    except Refused as refused:
        st.error(str(refused))
        return None


def known(probe: str, spec: BaseModel) -> bool:
    """Whether a question was put before."""
    return Desk().look(digest_of(question_of(probe, spec))).status != "unknown"


def put(probe: str, spec: BaseModel, key: str) -> Answered | None:
    """Ask, and ask anew what this page gave up for another question."""
    digest = digest_of(question_of(probe, spec))
    if digest in st.session_state.get("pieces_left", set()) and roles.presenter():
        st.session_state.pieces_left.discard(digest)
        desk().ask(probe, spec, again=True)
    return ask(probe, spec, key)


def leave(probe: str, spec: BaseModel) -> None:
    """Give up a question whose answer nobody waits for any more."""
    digest, state = digest_of(question_of(probe, spec)), st.session_state
    if roles.presenter() and desk().look(digest).status in ("waiting", "working"):
        desk().cancel(digest)
        state.pieces_left = {*state.get("pieces_left", set()), digest}


# ---- edits ----------------------------------------------------------------------------------------------------------


def do(edit: str) -> None:
    """One more edit; a refusal is shown on the next run."""
    now = st.session_state.pieces
    try:
        now["edits"] = [str(edit) for edit in parse(" ".join([*now["edits"], edit]))]
        now["undone"] = []
    except Refused as refused:
        st.session_state.pieces_refused = str(refused)


def undo() -> None:
    now = st.session_state.pieces
    if now["edits"]:
        now["undone"] = [*now["undone"], now["edits"][-1]]
        now["edits"] = now["edits"][:-1]


def redo() -> None:
    now = st.session_state.pieces
    if now["undone"]:
        now["edits"] = [*now["edits"], now["undone"][-1]]
        now["undone"] = now["undone"][:-1]


def reset() -> None:
    """Take all edits back; they can be done again one by one."""
    now = st.session_state.pieces
    now["undone"] = [*now["undone"], *reversed(now["edits"])]
    now["edits"] = []


def edits_text() -> str:
    """The edits that are done, as they are written."""
    return written(parse(" ".join(st.session_state.pieces["edits"])))
