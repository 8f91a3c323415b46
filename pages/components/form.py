"""The form of a run, made from the spec's table of parameters, and its state in the address (torch-free).

The address holds ``v``, dataset, method and images per class, and whatever differs from the table's defaults, each
under the short key of its row. A link therefore says the whole run; what it leaves out has its default.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import streamlit as st

from engine.data.catalogue import DATASETS, availability
from engine.errors import Refused
from engine.methods import METHODS
from engine.presets import DEFAULT, PRESETS, Preset
from engine.spec import URL_VERSION, RunSpec, build_spec
from engine.table import Parameter, allowed, parameters
from engine.words import WORDS
from pages.components import address, hiding
from pages.components.shared import dataset_title, store

PAIRS = (("dataset", "ipc"), ("method", "minutes"), ("init", "seed"))  # of the run's own, always in view
ALWAYS = ("dataset", "method", "ipc")
KEYS = {"v", *(row.key for m in METHODS for row in (*parameters(RunSpec), *parameters(METHODS[m].parameters)))}
METHOD_HELP = "  \n".join(f"**{m.name}** ({m.id}): {m.idea}" for m in METHODS.values())


def rows(method: str) -> list[Parameter]:
    """The run's own rows and then the method's."""
    return [*parameters(RunSpec), *parameters(METHODS[method].parameters)]


# ---- the address ----------------------------------------------------------------------------------------------------


def to_query(values: dict[str, Any]) -> dict[str, str]:
    """Flat values as the form's part of an address."""
    query = {"v": str(URL_VERSION)}
    for row in rows(values["method"]):
        value = values.get(row.name)
        if row.name in ALWAYS or (value is not None and value != row.default):
            query[row.key] = str(int(bool(value))) if row.kind == "bool" else str(value)
    return query


def from_query(query: dict[str, str]) -> tuple[dict[str, Any], list[str]]:
    """Flat values of an address, and a sentence for each thing in it that could not be taken."""
    keys = {row.key: row for row in parameters(RunSpec)}
    problems = []
    method = query.get(keys["m"].key, keys["m"].default)
    if method not in METHODS:
        problems.append(f"There is no method “{method[:40]}”; there are {', '.join(METHODS)}.")
        method = keys["m"].default
    values: dict[str, Any] = {}
    for row in rows(method):
        values[row.name] = row.default
        text = query.get(row.key)
        if text is None or row.key == keys["m"].key:
            continue
        value = parse(row, text)
        if value is None:
            problems.append(f"The link asked for {row.label.lower()} “{text[:40]}”, but that must be {allowed(row)}.")
        else:
            values[row.name] = value
    if values["minutes"] is None and values["steps"] is None:
        values["minutes"] = 1.0
    if query.get("v", str(URL_VERSION)) != str(URL_VERSION):
        problems.append("The link was made by another version of Limbeck: look through the settings before you start.")
    return {**values, "method": method}, problems


def parse(row: Parameter, text: str) -> Any:
    """The value of one key, or None when it is not one."""
    if row.kind == "bool":
        return {"1": True, "0": False, "true": True, "false": False}.get(text.lower())
    if row.kind == "choice":
        return text if text in row.choices else None
    if row.kind == "text":
        return text or None
    try:
        value = int(text) if row.kind == "int" else float(text)
    except ValueError:
        return None
    inside = (row.low is None or value >= row.low) and (row.high is None or value <= row.high)
    return value if inside else None


# ---- state: one dictionary of flat values, of which the widgets and the address are views ----------------------------


def _widget(row: Parameter, method: str) -> str:
    """The key of a row's widget. A method's own rows have their own, since their ranges differ."""
    own = row.name in METHODS[method].parameters.model_fields
    return f"form_{method}_{row.name}" if own else f"form_{row.name}"


def set_values(values: dict[str, Any]) -> None:
    """Make the form show these flat values (before its widgets are drawn, or in a callback)."""
    st.session_state.form = dict(values)
    for key in [k for k in st.session_state if str(k).startswith("form_")]:
        del st.session_state[key]
    for row in rows(values["method"]):
        st.session_state[_widget(row, values["method"])] = shown(row, values.get(row.name, row.default))


def shown(row: Parameter, value: Any) -> Any:
    """A value as its widget takes it."""
    return float(value) if row.kind == "float" and value is not None else value


def read_address() -> list[str]:
    """Take the form's state from the address when that was changed from outside; sentences about what is wrong."""
    state = st.session_state
    query = {k: v for k, v in address.query().items() if k in KEYS}
    if "form" in state and (not query or query == state.get("address_written")):
        return []
    if not query:
        set_values(PRESETS[DEFAULT].spec.flat())
        return []
    values, problems = from_query(query)
    set_values(values)
    return problems


def write_address() -> None:
    """Put the form's state into the address."""
    query = to_query(st.session_state.form)
    st.session_state.address_written = query
    address.replace(query)


# ---- widgets --------------------------------------------------------------------------------------------------------


def dataset_names() -> list[str]:
    """Datasets one can choose: the catalogue, and the folders that runs or this form have used."""
    used = [run.dataset for run in store().runs(limit=500) if run.dataset.startswith("folder:")]
    return list(dict.fromkeys([*DATASETS, *used, st.session_state.form["dataset"]]))


def dataset_label(name: str) -> str:
    """A dataset's title with what choosing it means."""
    note = {"download": " (will be downloaded)", "missing": " (not here)"}.get(availability(name).how, "")
    return dataset_title(name) + note


def _draw(row: Parameter, method: str, again: bool = False) -> Any:
    """One widget; its value. ``again``: see ``draw``."""
    key, state = _widget(row, method), st.session_state
    if key not in state:  # it was not on the page for a while
        own = row.name in METHODS[method].parameters.model_fields and method != state.form["method"]
        state[key] = shown(row, row.default if own else state.form.get(row.name, row.default))
    if row.name == "dataset":
        names = dataset_names()
        return st.selectbox(row.label, names, format_func=dataset_label, key=key, help=DATASET_HELP)
    return draw(row, key, WORDS.get(row.name, {}), METHOD_HELP if row.name == "method" else row.help, again)


def draw(row: Parameter, key: str, words: dict[str, str], help: str, again: bool = False) -> Any:
    """The widget of a row, whose value ``st.session_state[key]`` holds; ``words``: what choices are called.

    ``again``: send the value at every run. The browser gets a value of the session's but once, and loses it when the
    widget is made later: in a popover, when that is opened, or when another run follows at once.
    """
    if again:
        st.session_state[key] = st.session_state[key]
    if row.kind == "choice":
        return st.selectbox(row.label, row.choices, format_func=lambda c: words.get(c, c), key=key, help=help)
    if row.kind == "bool":
        return st.toggle(row.label, key=key, help=help)
    if row.kind == "text":
        return st.text_input(row.label, key=key, help=help)
    kind = int if row.kind == "int" else float
    return st.number_input(
        row.label,
        min_value=None if row.low is None else kind(row.low),
        max_value=None if row.high is None else kind(row.high),
        step=1 if kind is int else _step(row),
        format="%d" if kind is int else "%.6g",
        key=key,
        help=help,
    )


def _step(row: Parameter) -> float:
    """What one press of + adds: half of the default, or of one."""
    return (row.default or 1.0) / 2


DATASET_HELP = (
    "The real images that are distilled. Digits and shapes come with Limbeck; others are read from this machine or "
    "downloaded once. Your own come in by the page “Your images”."
)


def preset_of(values: dict[str, Any]) -> str | None:
    """The preset that these values are, if any."""
    try:
        spec = build_spec("distill", **values)
    except Refused:
        return None
    return next((p.id for p in PRESETS.values() if p.spec == spec), None)


def choose(preset: Preset) -> None:
    """Fill the form with a preset."""
    set_values(preset.spec.flat())


def _chosen() -> None:
    if st.session_state.form_preset:
        choose(PRESETS[st.session_state.form_preset])


def form(without: Collection[str] = (), again: bool = False) -> dict[str, Any]:
    """Draw the form; the flat values it shows now. ``without``: settings that are left out, and keep their values.
    ``again``: see ``draw``."""
    state = st.session_state

    def hidden(name: str) -> bool:
        return name in without or hiding.hidden(name)

    state.form_preset = preset_of(state.form)
    if not hidden("presets"):
        st.selectbox(
            "Start from",
            list(PRESETS),
            format_func=lambda id: PRESETS[id].title,
            key="form_preset",
            placeholder="your own settings",
            on_change=_chosen,
            help="Settings that are known to work. Every one of them can be changed below.",
        )
    if state.form_preset:
        st.caption(PRESETS[state.form_preset].sentence())

    method = state.get("form_method", state.form["method"])
    table = {row.name: row for row in rows(method)}
    own = [name for name in METHODS[method].parameters.model_fields if not table[name].advanced]
    basic = [*PAIRS, *zip(own[::2], [*own[1::2], None], strict=False)]
    own_before = state.form if state.form["method"] == method else {}
    values = {
        name: (own_before if name in METHODS[method].parameters.model_fields else state.form).get(name, row.default)
        for name, row in table.items()
        if hidden(name)
    }
    values["method"] = method
    advanced = [row for row in table.values() if row.name not in {name for pair in basic for name in pair}]
    basic = [pair for pair in basic if not all(name is None or hidden(name) for name in pair)]
    for pair in basic:
        widths = (1.6, 1) if pair in PAIRS else 2  # names are longer than numbers
        for column, name in zip(st.columns(widths, gap="small", vertical_alignment="bottom"), pair, strict=True):
            if name and not hidden(name):
                with column:
                    values[name] = _draw(table[name], method, again)
    if hidden("more"):
        values |= {row.name: state.form.get(row.name, row.default) for row in advanced}
    else:
        with st.popover("More settings", icon=":material/tune:", width="stretch"):
            advanced = [row for row in advanced if not hidden(row.name)]
            advanced.sort(key=lambda row: row.kind == "bool")  # switches are less tall: together at the end
            for first in range(0, len(advanced), 2):
                for column, row in zip(
                    st.columns(2, vertical_alignment="bottom"), advanced[first : first + 2], strict=False
                ):
                    with column:
                        values[row.name] = _draw(row, method, again=True)
    if values["minutes"] is None and values["steps"] is None:
        values["minutes"] = 1.0
    if preset_of(values) != state.form_preset:
        state.form = values
        st.rerun()  # the widget above says which preset this is
    state.form = values
    return values
