"""The form of a student, made from the spec's table of parameters, and its state in the address (torch-free)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import streamlit as st

from engine.data.catalogue import DATASETS, FOLDER
from engine.errors import Refused
from engine.runs.store import Run, Store
from engine.runs.validate import check
from engine.spec import BASELINES, StudentSpec, build_spec
from engine.students import PROTOCOLS
from engine.table import allowed, parameters
from pages.components import comparison, form, roles
from pages.components.marks import MARKS, mark_of, origin

ROWS = {row.name: row for row in parameters(StudentSpec)}
MOST = 10  # students of one press of the button
CONVNETS = ("convnet", "edge-popup")
NETWORKS = {
    **form.WORDS["network"],
    "alexnet": "AlexNet",
    "vgg11": "VGG11",
    "resnet18": "ResNet18",
    "resnet18-bn": "ResNet18, batch norm",
    "vit": "ViT, patches of 4",
    "edge-popup": "Edge-popup",
}
WORDS: dict[str, dict[str, str]] = {
    "network": NETWORKS,
    "protocol": {"auto": "the set's own", **{p.name: p.title for p in PROTOCOLS.values()}, "full": "Full"},
    "style": {"original": "as they are", "fourier": "stylised (fourier)", "adain": "stylised (adain)"},
    "weights": {"kaiming": "Kaiming normal", "signed": "signed constant"},
    "device": form.WORDS["device"],
}
NETWORK_HELP = (
    "ConvNet, LeNet, MLP, AlexNet, VGG11 and ResNet18 as the papers on distillation use them, a small transformer "
    "(ViT), and **edge-popup**: a ConvNet whose random weights never change, of which only a mask is learned "
    "(Ramanujan et al., What's Hidden in a Randomly Weighted Neural Network?, CVPR 2020)."
)
PROTOCOL_HELP = (
    ROWS["protocol"].help
    + "  \n"
    + "  \n".join(f"**{p.title}**: {p.description}" for p in PROTOCOLS.values())
    + "  \n**Full**: for all training images, sized for a CPU."
)
HELP = {"network": NETWORK_HELP, "protocol": PROTOCOL_HELP}
MORE = ("style", "epsilon", "attack_steps", "epochs", "width", "depth", "limit", "size", "device")


def defaults() -> dict[str, Any]:
    """A form nobody has touched: all images of the smallest dataset."""
    own = {} if roles.presenter() else {"protocol": roles.QUICK["protocol"][0]}
    return {**{row.name: row.default for row in ROWS.values()}, "dataset": "digits", "count": 1, **own}


def matters(name: str, values: Mapping[str, Any]) -> bool:
    """Whether a field changes anything, the others being as they are. What does not is neither drawn nor sent."""
    full, baseline = values["source"] == "full", values["source"] in BASELINES
    return {
        "ipc": baseline,
        "limit": full,
        "dataset": full or baseline,  # a set knows its own
        "style": full or baseline,
        "size": (full or baseline) and values["dataset"].startswith(FOLDER),
        "width": values["network"] in CONVNETS,
        "depth": values["network"] in CONVNETS,
        "keep": values["network"] == "edge-popup",
        "weights": values["network"] == "edge-popup",
        "attack_steps": values["epsilon"] > 0,
    }.get(name, True)


# ---- from values to specs -------------------------------------------------------------------------------------------


def specs_of(values: Mapping[str, Any]) -> list[StudentSpec]:
    """One spec for each of ``count`` seeds. Raises ``Refused`` for what can be known to fail before it is queued."""
    count = values["count"]
    if not isinstance(count, int) or not 1 <= count <= MOST:
        raise Refused(f"Students were {count!r}, but must be a whole number from 1 to {MOST}.")
    name = str(values.get("name") or "").strip()
    made = []
    for seed in range(values["seed"], values["seed"] + count):
        own = {row: values[row] for row in ROWS if matters(row, values)}
        called = f"{name}, seed {seed}" if name and count > 1 else name
        spec = build_spec("student", **{**own, "seed": seed, "name": called})
        check(spec)
        _check_size(spec, values["dataset"])
        made.append(spec)
    return made


def _check_size(spec: StudentSpec, dataset: str) -> None:
    """What the catalogue knows about a dataset: that it has the images, and that they are large enough."""
    info = DATASETS.get(dataset)
    if info is None:
        return
    each = info.train // len(info.classes)
    if spec.source in BASELINES and spec.ipc > each:
        raise Refused(
            f"Images per class (ipc) was {spec.ipc:,}, but {info.title} has about {each:,} training images in a class; "
            "choose fewer, or all training images."
        )
    side = 32 if info.channels == 1 and info.size == 28 else info.size
    if spec.network in CONVNETS and side < 2**spec.depth:
        raise Refused(
            f"A network of depth {spec.depth} halves images {spec.depth} times and needs {2**spec.depth} pixels; those "
            f"of {info.title} have {info.size}. Choose a smaller depth."
        )


def alike(first: Mapping[str, Any], second: Mapping[str, Any], aside: tuple[str, ...] = ("name", "device")) -> bool:
    """Whether two specs (as JSON) train the same student: what it is called and where it is computed aside."""
    return {k: v for k, v in first.items() if k not in aside} == {k: v for k, v in second.items() if k not in aside}


def find(where: Store, spec: StudentSpec) -> Run | None:
    """The newest student of this very spec that is trained, or on its way to be."""
    wanted = spec.model_dump(mode="json")
    for run in where.runs(kinds=["student"], statuses=("done", "queued", "running", "interrupted"), limit=10_000):
        if alike(run.spec, wanted) and (run.status != "done" or where.student(run.id)):
            return run
    return None


def needs_result(source: str) -> bool:
    """Whether a training set is a run's, whose result must be there."""
    return source != "full" and source not in BASELINES


# ---- the address ----------------------------------------------------------------------------------------------------


def to_query(values: Mapping[str, Any]) -> dict[str, str]:
    """What differs from the defaults, each under the short key of its row."""
    query = {"dataset": values["dataset"]}
    for row in ROWS.values():
        value = values.get(row.name)
        if row.name != "dataset" and matters(row.name, values) and value not in (None, row.default):
            query[row.key] = str(value)
    if values["count"] != 1:
        query["n"] = str(values["count"])
    return query


def from_query(query: Mapping[str, str], where: Store) -> tuple[dict[str, Any], list[str]]:
    """The values that an address asks for, and a sentence for each thing in it that could not be taken."""
    values, problems = defaults(), []
    for row in ROWS.values():
        text = query.get(row.key)
        if text is None or row.name == "dataset":
            continue
        value = form.parse(row, text)
        if value is None:
            problems.append(f"The link asked for {row.label.lower()} “{text[:40]}”, but that must be {allowed(row)}.")
        else:
            values[row.name] = value
    count = query.get("n", "1")
    if count.isdecimal() and 1 <= int(count[:9]) <= MOST:
        values["count"] = int(count[:9])
    else:
        problems.append(f"The link asked for “{count[:40]}” students, but that must be a number from 1 to {MOST}.")
    values["dataset"] = query.get("dataset") or query.get(ROWS["dataset"].key) or values["dataset"]
    if values["source"] != "full" and values["source"] not in BASELINES:
        run = where.run(values["source"])
        if run is None or where.result_folder(run.id) is None:
            problems.append(f"The training set “{values['source'][:60]}” of the link is not here.")
            values["source"] = "full"
        else:
            values["dataset"] = run.dataset
    return values, problems


# ---- widgets --------------------------------------------------------------------------------------------------------


def key_of(name: str) -> str:
    """The key of a field's widget."""
    return f"student_{name}"


def set_values(values: dict[str, Any]) -> None:
    """Make the form show these values (before its widgets are drawn, or in a callback)."""
    st.session_state.student = dict(values)
    for name, value in values.items():
        st.session_state[key_of(name)] = form.shown(ROWS[name], value) if name in ROWS else value


def _draw(name: str) -> None:
    """One widget; what it shows becomes part of the form's values."""
    state, row, key = st.session_state, ROWS[name], key_of(name)
    if key not in state:  # it was not on the page for a while
        state[key] = form.shown(row, state.student[name])
    state.student[name] = form.draw(row, key, WORDS.get(name, {}), HELP.get(name, row.help), again=True)


def sets_of(where: Store, dataset: str) -> list[Run]:
    """The runs of a dataset that made a set, newest first."""
    runs = where.runs(kinds=comparison.SET_KINDS, dataset=dataset, limit=500)
    return [run for run in runs if where.result_folder(run.id)]


def _source(where: Store) -> None:
    """What is trained on: all images, a set that is here, or real images selected on the way."""
    state = st.session_state
    sets = sets_of(where, state.student["dataset"])
    called = comparison.names(sets)
    labels = {"full": f"{MARKS['full'].sign} All training images"}
    labels |= {run.id: f"{mark_of(origin(where, run)).sign} {called[run.id]}" for run in sets}
    for kind in BASELINES:
        mark = MARKS["random" if kind == "random" else "selected"]
        labels[kind] = f"{mark.sign} {comparison.BASELINE_NAMES[kind]}, made now"
    if state.get(key_of("source")) not in labels:
        chosen = state.student["source"]
        state[key_of("source")] = chosen if chosen in labels else "full"
    state.student["source"] = st.selectbox(
        ROWS["source"].label, list(labels), format_func=lambda id: labels.get(id, id), key=key_of("source"),
        help="All training images, one of the distilled or selected sets that are here, or real images that are "
        "selected or summarised for this student (baselines and coresets).",
    )  # fmt: skip


def draw(where: Store) -> None:
    """Draw the form. Its values are in ``st.session_state.student`` afterwards."""
    state = st.session_state
    _source(where)
    if matters("ipc", state.student):
        _draw("ipc")
    left, right = st.columns(2, gap="small", wrap=False)  # pairs stay pairs on a phone
    with left:
        _draw("network")
    with right:
        _draw("protocol")
    if matters("keep", state.student):
        with left:
            _draw("keep")
        with right:
            _draw("weights")
    with left:
        _draw("seed")
    with right:
        state[key_of("count")] = state.get(key_of("count"), state.student["count"])
        state.student["count"] = st.number_input(
            "Students", 1, MOST, step=1, key=key_of("count"),
            help="Networks trained one after another from this seed, the next one, and so on.",
        )  # fmt: skip
    _draw("name")
    with st.popover("More settings", icon=":material/tune:", width="stretch"):
        state.student["epsilon"] = state.get(key_of("epsilon"), state.student["epsilon"])  # decides what is shown
        shown = [name for name in MORE if matters(name, state.student)]
        for first in range(0, len(shown), 2):
            pair = st.columns(2, vertical_alignment="bottom", wrap=False)
            for column, name in zip(pair, shown[first : first + 2], strict=False):
                with column:
                    _draw(name)
    changed = [name for name in shown if state.student[name] not in (None, ROWS[name].default)]
    if changed:
        words = [f"{ROWS[n].label.lower()} {_said(n, state.student[n])}" for n in changed]
        st.caption(f"With {', '.join(words)}.")


def _said(name: str, value: Any) -> str:
    """A value in words."""
    return f"{value:g}" if isinstance(value, float) else WORDS.get(name, {}).get(value, str(value))
