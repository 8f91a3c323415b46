"""Sweep: what does a setting change? One run for every combination of some settings, live and then as figures."""

from __future__ import annotations

import html
from typing import Any
from urllib.parse import urlencode

import pandas as pd
import streamlit as st

from engine import sweep, words
from engine.errors import Refused
from engine.table import allowed
from pages.components import address, cells, guess, hiding, roles
from pages.components.choice import one_of
from pages.components.form import form, read_address, to_query
from pages.components.pieces import figure, is_dark, percent
from pages.components.recent import ago
from pages.components.shared import pace, store

FIRST = {"ipc": "1,2", "seed": "0..2"}  # what is varied unless somebody says otherwise
EVERY = 2  # seconds between two looks at a sweep that is going


# ---- setting one up -------------------------------------------------------------------------------------------------


def setup() -> None:
    st.title("Sweep", help="Vary settings of a run over some values, and see what each of them does to the accuracy, "
             "and to the time it takes.")  # fmt: skip
    problems = read_address()
    over = read_over()
    varied, fixed = st.columns([1.4, 1], gap="medium")
    with varied:
        texts = vary(over)
        room = st.container()
    with fixed:
        st.subheader("The same in all cells", anchor=False)
        for sentence in problems:
            st.warning(sentence)
        values = form(without=("presets", *texts), again=True)
    with room:
        offer(values, texts)
    write(values, texts)
    earlier()


def read_over() -> dict[str, str]:
    """What the address, else the session, else an example varies: settings and their values as text."""
    state, asked = st.session_state, st.query_params.get("over")
    if "sweep_over" not in state or (asked is not None and asked != state.get("sweep_written")):
        pairs = [part.partition("=") for part in (asked or "")[:2000].split(";") if "=" in part]
        known = {name: text for name, _, text in pairs if name in sweep.fields()}
        unknown = [name for name, _, _ in pairs if name not in sweep.fields()]
        if unknown:
            st.warning(f"There is no setting {', '.join(repr(name[:40]) for name in unknown[:3])} to vary.")
        state.sweep_over = known or ({} if asked else dict(FIRST))
        state.sweep_fields = list(state.sweep_over)
        for key in [k for k in state if str(k).startswith("over_")]:
            del state[key]
    return state.sweep_over


def vary(over: dict[str, str]) -> dict[str, str]:
    """Which settings are varied, and over what."""
    rows, state = sweep.fields(), st.session_state
    st.subheader("Vary", anchor=False)
    state.sweep_fields = state.get("sweep_fields", list(over))
    chosen = st.multiselect(
        "Settings to vary", list(rows), format_func=lambda name: f"{rows[name].label} ({name})", key="sweep_fields",
        help="One run is made for every combination of their values.",
    )  # fmt: skip
    texts = {}
    for name in chosen:
        key = f"over_{name}"
        state[key] = state.get(key, over.get(name, ""))
        texts[name] = st.text_input(
            f"{rows[name].label}: values", key=key, placeholder="1,10 or 0..4",
            help=f"{rows[name].help} A list like 1,10 or a range like 0..4; each is {allowed(rows[name])}.",
        )  # fmt: skip
    state.sweep_over = texts
    return texts


def offer(values: dict[str, Any], texts: dict[str, str]) -> None:
    """What the sweep would be and take, and the button that starts it; or why it cannot be."""
    made = None
    try:
        over = sweep.parse_over([f"{name}={text}" for name, text in texts.items()])
        made = sweep.make_plan(values, over, values["method"])
        planned = sweep.expand(made)
        st.write(f"**{words.count(len(planned), 'cell')}**: {' × '.join(str(len(v)) for v in over.values())}.")
        st.caption(f"{sweep.cost(store(), planned).sentence()} What is started later waits until they are done.")
        own = [name for name in made.own.get(values["method"], {}) if name in sweep.fields()]
        if len(set(over.get("method", [])) - {values["method"]}) and own:
            st.caption(f"Other methods than {words.WORDS['method'][values['method']]} take their own defaults.")
    except Refused as refused:
        st.error(str(refused))
        made = None
    name = st.text_input("Name", key="sweep_name", placeholder=sweep.default_name(made) if made else "", max_chars=200)
    if sentence := st.session_state.pop("sweep_refused", None):
        st.error(sentence)
    st.button(
        "Start the sweep", type="primary", icon=":material/play_arrow:", key="start-sweep", on_click=start,
        args=(made, name), **roles.locked("start runs", disabled=made is None),
    )  # fmt: skip


def start(made: sweep.Plan, name: str = "") -> None:
    """Queue what is left of a sweep, and show it."""
    try:
        roles.demand("start runs")
        address.replace({"sweep": sweep.start(store(), made, name)})
    except Refused as refused:
        st.session_state.sweep_refused = str(refused)


def write(values: dict[str, Any], texts: dict[str, str]) -> None:
    """Put settings and what is varied into the address."""
    query = to_query(values)
    st.session_state.address_written = query
    st.session_state.sweep_written = ";".join(f"{name}={text}" for name, text in texts.items())
    address.replace({**query, "over": st.session_state.sweep_written})


def earlier() -> None:
    """The sweeps that are kept."""
    found = store().sweeps()
    if not found or hiding.hidden("recent"):
        return
    st.subheader("Sweeps", anchor=False)
    lines = []
    for row in found[:20]:
        runs = store().cells(row["id"]).values()
        size = sweep.Plan(**row["plan"]).size
        done = sum(run.status == "done" for run in runs)
        to = html.escape(f"/sweep?{urlencode({'sweep': row['id'], **address.along()})}", quote=True)
        lines.append(
            f"<li><a href=\"{to}\" target='_self'>{html.escape(row['name'])}</a>, {done} of {size} done, "
            f"{ago(row['created'])}</li>"
        )
    st.html(f"<ul>{''.join(lines)}</ul>")


# ---- watching one ---------------------------------------------------------------------------------------------------


def view(found: sweep.Sweep) -> None:
    st.title(found.name, anchor=False)
    try:
        planned = sweep.expand(found.plan)
    except Refused as refused:  # a dataset has gone meanwhile
        st.error(str(refused))
        planned = []
    active = [cell for cell in planned if under_way(found, cell)]
    st.fragment(live, run_every=EVERY * pace(found.id) if active else None)(found.id, planned, outline(found))
    controls(found, planned, active)
    results(found)
    with st.expander("The same in all cells", icon=":material/tune:"):
        rows, same = (
            sweep.fields(),
            [*found.plan.base.items(), *(p for own in found.plan.own.values() for p in own.items())],
        )
        said = [f"{rows[name].label}: {words.said(rows[name], value)}" for name, value in same]
        st.write(", ".join(said) or "The defaults.")
    to = html.escape(f"/sweep?{urlencode(address.along())}", quote=True)
    st.html(f"<a href='{to}' target='_self'>Set up another sweep</a>")
    earlier()


def under_way(found: sweep.Sweep, cell: sweep.Cell) -> bool:
    run = found.runs.get(cell.place)
    return run is not None and run.status in sweep.ACTIVE


def outline(found: sweep.Sweep) -> list[tuple[int, str]]:
    """What the page as a whole depends on: when it is another, all of it is drawn again."""
    return [
        (place, "active" if run.status in ("queued", "running") else run.status) for place, run in found.runs.items()
    ]


def live(id: str, planned: list[sweep.Cell], drawn_as: list[tuple[int, str]]) -> None:
    """All cells as they are now. Only reads the store."""
    try:
        found = sweep.load(store(), id)
    except Refused:
        st.rerun()
    if outline(found) != drawn_as:
        st.rerun()
    done = sum(run.status == "done" for run in found.runs.values())
    going = sum(run.progress for run in found.runs.values() if run.status != "done")
    size = found.plan.size
    st.progress(min(1.0, (done + going) / size), f"{done} of {words.count(size, 'cell')} done")
    st.html(cells.grid(store(), planned, found.runs, guess.hiding()))


def controls(found: sweep.Sweep, planned: list[sweep.Cell], active: list[sweep.Cell]) -> None:
    """Cancel one or all; go on with what was interrupted, failed or cancelled."""
    if sentence := st.session_state.pop("sweep_refused", None):
        st.error(sentence)
    left = [c for c in planned if not under_way(found, c) and not is_done(found, c)]
    with st.container(horizontal=True, gap="small", vertical_alignment="bottom"):
        if active:
            labels = {found.runs[cell.place].id: cell.label for cell in active}
            chosen = one_of("Cell", labels, "cancel-which", menu=True, width=320)
            st.button("Cancel it", icon=":material/close:", on_click=cancel_one, args=(chosen,), key="cancel-one",
                      **roles.locked("pause, resume or stop runs"))  # fmt: skip
            st.button("Cancel all", icon=":material/stop:", on_click=cancel_all, args=(found.id,), key="cancel-all",
                      **roles.locked("pause, resume or stop runs"))  # fmt: skip
        if not active:
            st.button("Forget the sweep", icon=":material/delete:", on_click=forget, args=(found.id,), key="forget",
                      **roles.locked("delete runs", help="Its runs stay."))  # fmt: skip
        if left:
            st.button(
                f"Go on with {words.count(len(left), 'cell')}", icon=":material/play_arrow:", type="primary",
                on_click=start, args=(found.plan,), key="go-on",
                **roles.locked("start runs", help="Those that were interrupted continue, the others are made anew."),
            )  # fmt: skip


def is_done(found: sweep.Sweep, cell: sweep.Cell) -> bool:
    run = found.runs.get(cell.place)
    return run is not None and run.status == "done"


def cancel_one(run: str) -> None:
    try:
        roles.demand("stop runs")
        store().command(run, "stop")
    except Refused as refused:
        st.session_state.sweep_refused = str(refused)


def forget(id: str) -> None:
    try:
        store().forget_sweep(id)
        address.replace({})
    except Refused as refused:
        st.session_state.sweep_refused = str(refused)


def cancel_all(id: str) -> None:
    try:
        roles.demand("stop runs")
        sweep.cancel(store(), id)
    except Refused as refused:
        st.session_state.sweep_refused = str(refused)


# ---- what came of it ------------------------------------------------------------------------------------------------


def results(found: sweep.Sweep) -> None:
    """Accuracy, of one protocol at a time, and cost along every setting but the seed."""
    rows, names = sweep.measured(store(), found), list(found.plan.over)
    if not guess.hiding():
        accuracies(found, rows, names)
    took = [row for row in {row["cell"]: row for row in rows}.values() if row["status"] == "done"]
    if took:
        st.subheader("Cost", anchor=False)
        st.caption("Distilling time of the cells that are done; students are not counted.")
        draw(found, took, "seconds", "Distilling time (s)", "Seconds of distilling")


def accuracies(found: sweep.Sweep, rows: list[dict[str, Any]], names: list[str]) -> None:
    kinds = {f"{kind.split}-{kind.protocol}-{kind.network}": kind for kind in sweep.measures(rows)}
    if not kinds:
        return
    st.subheader("Accuracy", anchor=False)
    first = next(iter(kinds))
    if len(kinds) > 1:
        options = {i: kind.label for i, kind in kinds.items()}
        chosen = one_of("Measured as", options, "sweep-measure", st.query_params.get("measure"), menu=True)
        address.replace({"sweep": found.id, "measure": chosen} if chosen != first else {"sweep": found.id})
    else:
        chosen = first
    kind = kinds[chosen]
    same = [row for row in rows if all(row[name] == value for name, value in vars(kind).items())]
    st.caption(
        f"{kind.label}. "
        + ("Bars: 95 % t interval of the mean over seeds. " if "seed" in names else "Vary the seed for an interval. ")
        + ("Each cell's latest number, which need not be of its last step. " if kind.split != "test" else "")
        + f"{len(same)} of {words.count(found.plan.size, 'cell')} measured."
    )
    draw(found, same, "accuracy", "Accuracy (%)", "Accuracy in percent")
    summary(same, names)


def draw(found: sweep.Sweep, rows: list[dict[str, Any]], value: str, title: str, what: str) -> None:
    """A figure along each setting but the seed, which is drawn where it alone is varied."""
    names = list(found.plan.over)
    for name in [name for name in names if name != "seed"] or names:
        trend = sweep.trend(rows, names, name, value)
        figure(
            cells.chart(trend, names, name, title, value == "accuracy", is_dark()), f"{value}-{name}",
            f"{what} against {sweep.fields()[name].label.lower()}; the data can be downloaded below",
            pd.DataFrame(rows), f"{found.id}-{value}-{name}",
        )  # fmt: skip


def summary(same: list[dict[str, Any]], names: list[str]) -> None:
    """The numbers of the figures: a row for each combination of settings."""
    rows = []
    for row in sweep.trend(same, names):
        settings = {sweep.fields()[n].label: words.said(sweep.fields()[n], row[n]) for n in names if n in row}
        between = "–" if row["low"] is None else f"{percent(row['low'])} to {percent(row['high'])}"
        rows.append({**settings, "Accuracy": percent(row["mean"]), "95 % t interval": between, "Runs": row["n"]})
    st.dataframe(pd.DataFrame(rows), hide_index=True)


# ---- the page -------------------------------------------------------------------------------------------------------


def page() -> None:
    asked = st.query_params.get("sweep")
    if asked:
        try:
            return view(sweep.load(store(), asked[:80]))
        except Refused as refused:
            st.error(str(refused))
            address.replace({})
    setup()


page()
