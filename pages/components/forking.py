"""What if, from here on: the form of a fork, and the family of a run (torch-free).

The address of Distil says ``fork``, the step, and the settings to change, each under its short key; and ``beside``, the
branch whose film plays beside that of the run.
"""

from __future__ import annotations

import html
import time
from typing import Any
from urllib.parse import urlencode

import streamlit as st

from engine import forks, words
from engine.errors import Refused
from engine.exports.facts import story
from engine.methods import METHODS
from engine.runs.store import Run
from pages.components import address, guess, hiding, roles
from pages.components.form import KEYS, form, from_query, rows, set_values, to_query
from pages.components.shared import pace, store

ACTIVE = ("queued", "running", "paused")
STATUS = {"queued": "waiting", "running": "distilling"}  # others are called as they are


# ---- the form -------------------------------------------------------------------------------------------------------


def asked() -> int | None:
    """The step at which the address asks to fork, or None."""
    text = st.query_params.get("fork", "")
    return int(text) if text.isdecimal() and text.isascii() and len(text) < 10 else None


def here(run: Run, step: int) -> None:
    """Make the address ask for a fork of a run at a step."""
    address.replace({"run": run.id, "fork": str(step)})


def can(run: Run) -> bool:
    """Whether a fork of the run is offered."""
    if not roles.presenter() or hiding.hidden("settings"):
        return False
    return story(store(), run.id).kind == "distill"


def fork_form(run: Run, at: int) -> None:
    """The run's own settings to change, what the fork would begin from, and the button that starts it."""
    try:
        point = forks.point(store(), run.id, at)
    except Refused as refused:
        st.title("Fork", anchor=False)
        st.error(str(refused))
        return _back(run)
    problems = _read(run, point)
    st.title(
        f"Fork at step {point.step:,}", anchor=False,
        help="A new run that goes on from here with other settings. Its steps and minutes count from the beginning of "
        "the run that it leaves.",
    )  # fmt: skip
    for sentence in problems:
        st.warning(sentence)
    if point.step != at:
        st.caption(f"Of step {at:,} nothing is kept; this is the last one before it.")
    values = form(without=("presets", *forks.FIXED), again=True)
    _write(run, at, values, point)
    fits = False
    try:
        made = forks.plan(point, values)
        changed = ", ".join(words.values("distill", made.spec.model_dump(), forks.changes(point.spec, made.spec)))
        st.caption(f"{f'Changes {changed}.' if changed else 'Changes nothing yet.'} {made.sentence}")
        fits = True
    except Refused as refused:
        st.error(str(refused))
    if sentence := st.session_state.pop("refused", None):
        st.error(sentence)
    st.button(
        "Start the fork", type="primary", icon=":material/call_split:", width="stretch", key="start-fork",
        on_click=_start, args=(run.id, point.step, values), **roles.locked("start runs", disabled=not fits),
    )  # fmt: skip
    _back(run)


def _back(run: Run) -> None:
    st.button(
        "Back to the run", icon=":material/arrow_back:", width="stretch", key="leave-fork",
        on_click=address.replace, args=({"run": run.id},),
    )  # fmt: skip


def _start(run: str, step: int, values: dict[str, Any]) -> None:
    """Queue the fork, and show it beside the run that it leaves."""
    try:
        roles.demand("start runs")
        id = forks.submit(store(), forks.plan(forks.point(store(), run, step), values))
        address.replace({"run": id, "beside": run})
    except Refused as refused:
        st.session_state.refused = str(refused)


def _read(run: Run, point: forks.Point) -> list[str]:
    """Take the form's state from the address when that was changed from outside; what is wrong in it."""
    state, own = st.session_state, {k: v for k, v in address.query().items() if k in KEYS}
    if state.get("fork_of") == (run.id, point.step) and own == state.get("fork_written"):
        return []
    base = forks.extended(point)
    query = to_query(base)
    if own.get("m", base["method"]) != base["method"]:  # whose own parameters are others
        kept = {row.key for row in rows(base["method"])} - {row.key for row in _method_rows(base["method"])}
        query = {key: value for key, value in query.items() if key in kept | {"v"}}
    values, problems = from_query({**query, **own})
    set_values(values)
    state.fork_of = (run.id, point.step)
    return problems


def _write(run: Run, at: int, values: dict[str, Any], point: forks.Point) -> None:
    """Put what is changed into the address."""
    base, changed = forks.extended(point), {}
    own = {row.name for row in _method_rows(values["method"])}
    for row in rows(values["method"]):
        usual = row.default if row.name in own and values["method"] != base["method"] else base.get(row.name)
        value = values.get(row.name)
        if value is not None and value != usual:
            changed[row.key] = str(int(value)) if row.kind == "bool" else str(value)
    st.session_state.fork_written = changed
    address.replace({"run": run.id, "fork": str(at), **changed})


def _method_rows(method: str) -> list[Any]:
    own = METHODS[method].parameters.model_fields
    return [row for row in rows(method) if row.name in own]


# ---- the family -----------------------------------------------------------------------------------------------------


def beside(run: Run) -> Run | None:
    """The branch that the address wants beside the run, if it is of its family."""
    other = store().run(st.query_params.get("beside", ""))
    if other is None or other.id == run.id:
        return None
    return other if any(m.id == other.id for _, m in forks.members(forks.family(store(), run.id))) else None


def caption(run: Run) -> str:
    """What a branch is called above its film."""
    fork = forks.fork_of(run)
    return f"Forked at step {fork.step:,}: {forks.changed_words(run)}" if fork else run.title


def family(run: Run) -> None:
    """The tree of what was forked from what; nothing for a run without relations."""
    if run.kind not in ("distill", "import") or hiding.hidden("recent"):
        return
    first = forks.family(store(), run.id)
    if not first.forks:
        return
    st.subheader("Family", anchor=False, help="Runs that were forked from one another: each begins with the images of "
                 "the run above it, at the step that is named, and goes on with what was changed.")  # fmt: skip
    busy = any(m.run is not None and m.run.status in ACTIVE for _, m in forks.members(first))
    st.fragment(_tree, run_every=3 * pace(run.id) if busy else None)(run.id, busy)


def sweeps(run: Run) -> None:
    """The sweeps that a run is a cell of, as links."""
    for id in store().swept(run.id)[:5]:
        for row in store().sweeps(id):
            to = html.escape(f"/sweep?{urlencode({'sweep': id, **address.along()})}", quote=True)
            st.html(f"<p>A cell of the sweep <a href='{to}' target='_self'>{html.escape(row['name'])}</a>.</p>")


def _tree(shown: str, busy: bool) -> None:
    first = forks.family(store(), shown)
    if busy and not any(m.run is not None and m.run.status in ACTIVE for _, m in forks.members(first)):
        st.rerun()
    st.html(f'<ul class="family">{_branch(first, shown)}</ul>')


def _branch(member: forks.Member, shown: str) -> str:
    """A run and what was forked from it, as an item of a list."""
    below = "".join(_branch(child, shown) for child in member.forks)
    below = f"<ul>{below}</ul>" if below else ""
    if member.run is None:
        return f"<li><p>A run that was deleted. What its forks began from is kept with them.</p>{below}</li>"
    run, fork = member.run, member.fork
    title = f"At step {fork.step:,}: {forks.changed_words(run)}" if fork else run.title
    lines = [STATUS.get(run.status, run.status), f"step {run.step:,}"]
    measured = forks.accuracies(store(), run.id, _hides)
    if measured:
        lines.append(measured)
    now = ' aria-current="true"' if run.id == shown else ""
    text = (
        f"<a{now} href='{_to(run=run.id)}' target='_self'>{_thumbnail(run)}{html.escape(title)}</a>"
        f"<p>{html.escape('; '.join(lines))}</p>"
    )
    if run.id != shown:
        text += f"<p><a href='{_to(run=shown, beside=run.id)}' target='_self'>Play beside the one shown</a></p>"
    return f"<li>{text}{below}</li>"


def _to(**query: str) -> str:
    return html.escape(f"/distil?{urlencode({**query, **address.along()})}", quote=True)


def _thumbnail(run: Run) -> str:
    steps = store().frames(run.id)
    if not steps:
        return ""
    url = f"/api/runs/{run.id}/frames/{steps[-1]}.webp?e=f{int(run.finished or time.time())}"
    return f'<img class="thumbnail" src="{url}" alt="">'


def _hides(run: str) -> bool:
    """Whether the accuracies of a run are to be guessed first."""
    return guess.hiding() and run not in st.session_state.get("guesses", {})
