"""Texture & shape: what does a student go by when the two disagree, and does distilling change it?"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pandas as pd
import streamlit as st
from pydantic import BaseModel

from engine.data.catalogue import DATASETS, availability
from engine.errors import Refused
from engine.glossary import explain
from engine.methods import METHODS
from engine.probes.bias.specs import MOST_SETS, MOST_STUDENTS, BiasSpec, ConsistencySpec, FiveSpec, StudySpec
from engine.probes.desk import digest_of, question_of
from engine.runs.store import Store
from engine.spec import build_spec
from engine.table import Parameter, allowed, parameters
from pages.components import address, comparison, cues, form, reports, roles, student_form
from pages.components.asking import Answered, ask
from pages.components.choice import keep, named, one_of
from pages.components.pieces import download, figure, is_dark, percent
from pages.components.reports import Facts
from pages.components.shared import dataset_title, desk, store

FIRST, MOST = 4, 8  # students shown when nothing was chosen; students that can be
FEW = 10  # usable decisions below which a marker is hollow
REFERENCE = "ResNet-50"  # drawn beside people; the table has the other networks too
SECTIONS = {
    "conflict": "Cue conflict",
    "five": "Five experiments",
    "consistency": "Error consistency",
    "study": "Does distilling change it?",
}
WORDS = {
    "source": {
        "auto": "What suits the dataset",
        "test": "Test images",
        "shapes": "Generated shapes",
        "fourier": "Phase of one image, amplitude of another",
        "style": "Style transfer",
        "geirhos": "Published or own stimuli",
    },
    "technique": {"gram": "Gram matrices", "adain": "AdaIN"},
    "texture": {"patches": "Shuffled patches", "gram": "Synthesised from Gram matrices"},
    "stylised": {"none": "No", "fourier": "Yes, amplitudes exchanged", "adain": "Yes, AdaIN"},
    "protocol": student_form.WORDS["protocol"],
}
ROWS = {row.name: row for row in (*parameters(FiveSpec), *parameters(ConsistencySpec), *parameters(BiasSpec))}
STUDY = {row.name: row for row in parameters(StudySpec)}
SETTINGS = ("count", "seed", "technique", "steps", "texture", "stimuli")
USES = {  # which settings change anything in a section
    "conflict": ("count", "seed", "technique", "steps", "stimuli"),
    "five": ("count", "seed", "texture", "steps", "stimuli"),
    "consistency": ("count", "seed", "technique", "steps", "stimuli"),
    "study": ("count", "seed", "technique", "steps", "stimuli"),
}
COLUMNS = {
    name: st.column_config.Column(help=explain(term))
    for name, term in {"Shape bias": "shape-bias", "Coverage": "coverage", "κ": "error-consistency"}.items()
}  # of its tables, with their “?”
OWN = (  # what a study has of its own
    "counts", "networks", "sets", "methods", "ipc", "protocol", "students", "stylised", "ties", "distilling", "seeds",
    "training", "width", "minutes",
)  # fmt: skip


# ---- the address ----------------------------------------------------------------------------------------------------


def read_address(where: Store) -> None:
    """Take the page's state from the address when that was changed from outside. Sentences about what is wrong with it
    are kept until something is chosen: answers that arrive draw the page anew."""
    state, query = st.session_state, address.changed("bias")
    if query is None:
        return
    values: dict[str, Any] = {name: ROWS[name].default for name in SETTINGS}
    values |= {"count": 300, "source": "auto", "section": "", "study": None, "dataset": "", "students": None}
    problems = []
    for name in (*SETTINGS, "source"):
        text = query.get("source" if name == "source" else ROWS[name].key)
        if text is None:
            continue
        value = text[:500] if ROWS[name].kind == "text" else form.parse(ROWS[name], text)
        if name == "source":
            value = text if text in WORDS["source"] else None
        if value is None:
            problems.append(
                f"The link asked for {ROWS[name].label.lower()} “{text[:40]}”, but that must be {allowed(ROWS[name])}."
            )
        else:
            values[name] = value
    if query.get("section") in SECTIONS:
        values["section"] = query["section"]
    if "students" in query:
        values["students"] = [id for id in query["students"].split(",") if id]
    first = next((run for id in values["students"] or [] if (run := where.run(id))), None)
    values["dataset"] = query.get("dataset") or (first.dataset if first else "")
    if "study" in query:
        try:
            asked = json.loads(query["study"])
            values["study"] = {key: asked[key] for key in OWN if key in asked}
        except (ValueError, TypeError, RecursionError):
            problems.append("The link does not describe a study; choose its settings anew below.")
    state.bias, state.bias_problems = values, problems
    for name in (*SETTINGS, "source", "section", "dataset", "students"):
        state.pop(f"bias_{name}", None)


def write_address() -> None:
    """Put into the address what a reload or a shared link needs to show the same."""
    values = st.session_state.bias
    query = {key: values[key] for key in ("dataset", "section", "source")}
    query["students"] = ",".join(values["students"])
    for name in SETTINGS:
        if values[name] not in (None, "", 300 if name == "count" else ROWS[name].default):
            query[ROWS[name].key] = str(values[name])
    if values["study"] is not None:
        query["study"] = json.dumps(values["study"], separators=(",", ":"))
    if address.write("bias", query):
        st.session_state.bias_problems = []


# ---- pieces of the page ---------------------------------------------------------------------------------------------


def field(name: str, draw: Callable[[str], Any]) -> Any:
    """A widget that ``draw`` makes under a key, showing and keeping the page's value of this name."""
    state, key = st.session_state, f"bias_{name}"
    keep(key, state.get(key, state.bias[name]))
    state.bias[name] = draw(key)
    return state.bias[name]


def stimuli_form(section: str) -> dict[str, Any]:
    """Where stimuli come from, and, folded away, the numbers behind a section. The values of its spec."""
    state = st.session_state
    chosen: dict[str, Any] = {}
    left, right = st.columns([3, 1], vertical_alignment="bottom")
    if section != "five":
        options = [s for s in WORDS["source"] if s != "test" or section == "consistency"]
        if state.bias["source"] not in options:
            state.bias["source"] = state.bias_source = "auto"
        with left:
            chosen["source"] = field(
                "source",
                lambda key: st.selectbox(
                    "Stimuli", options, format_func=named(WORDS["source"]), key=key, help=ROWS["source"].help
                ),
            )
    with right, st.popover("Settings", icon=":material/tune:", width="stretch"):
        for name in USES[section]:
            row = ROWS[name]
            chosen[name] = state.bias[name] = setting(row, state.bias[name])
    path = (chosen["stimuli"] or "").strip()
    return {**chosen, "stimuli": path or None}


def setting(row: Parameter, value: Any) -> Any:
    """The widget of a setting. Its value is given rather than put into the session: a closed popover draws its widgets
    late, and they would not hear of the latter."""
    key = f"bias_{row.name}"
    if row.kind == "int":
        assert row.low is not None and row.high is not None
        return st.number_input(row.label, int(row.low), int(row.high), value, 1, key=key, help=row.help)
    if row.kind == "choice":
        at = row.choices.index(value)
        return st.selectbox(row.label, row.choices, at, format_func=named(WORDS[row.name]), key=key, help=row.help)
    return st.text_input(row.label, value or "", key=key, help=row.help, max_chars=500)


def put(probe: str, table: type[BaseModel], key: str, values: dict[str, Any]) -> Answered | None:
    """Ask a probe; a refusal is shown."""
    try:
        spec = build_spec(table, **values)
    except Refused as refused:
        st.error(str(refused))
        return None
    return ask(probe, spec, key)


def span(table: pd.DataFrame, scale: float = 100.0, unit: str = " %") -> list[str]:
    """The 95 % intervals of a table's rows."""
    pairs = zip(table["low"].astype(float), table["high"].astype(float), strict=True)
    digits = 1 if scale == 100 else 2
    return ["–" if pd.isna(a) else f"{scale * a:.{digits}f} to {scale * b:.{digits}f}{unit}" for a, b in pairs]


# ---- cue conflict ---------------------------------------------------------------------------------------------------


def conflict(students: list[str]) -> None:
    values = stimuli_form("conflict")
    found = put("bias", BiasSpec, "bias_conflict", {"students": ",".join(students), **values})
    if found is None:
        return
    observers, classes = found.table("observers"), found.table("classes")
    examples(found)
    drawn = observers[(observers["kind"] != "network") | (observers["observer"] == REFERENCE)]
    figure(
        cues.class_by_class(drawn, classes[classes["observer"].isin(drawn["observer"])], FEW, is_dark()),
        "bias_figure",
        "Share of texture and shape decisions of each student for each class; the table below holds the numbers",
        classes[classes["observer"].isin(drawn["observer"])],
        "shape-bias-by-class",
    )
    guesser = found.answer.facts["guesser"]
    st.caption(
        "Each marker is one class: left all shape, right all texture (Geirhos et al. 2019, figure 4). Lines stand at "
        f"the values over all stimuli. Dotted: as many for either. Hollow: fewer than {FEW} decisions for either cue. "
        "Bars: share of the decisions "
        f"that were right for either cue, the coverage. Somebody who guesses has a shape bias of {guesser['bias']:.0%} "
        f"at a coverage of {guesser['coverage']:.0%}."
    )
    st.dataframe(
        pd.DataFrame(
            {
                "Who": observers["observer"],
                "Kind": [cues.kind_mark(k).name for k in observers["kind"]],
                "Shape bias": observers["bias"].map(percent),
                "95 % interval": span(observers),
                "Coverage": observers["coverage"].map(percent),
                "Right for the shape": observers["shape_accuracy"].map(percent),
                "Shape / texture / other": [
                    f"{a:,} / {b:,} / {c:,}"
                    for a, b, c in observers[["shape", "texture", "other"]].itertuples(index=False)
                ],
                "Test accuracy": observers["test_accuracy"].map(percent),
            }
        ),
        hide_index=True,
        column_config=COLUMNS,
    )
    groups = found.table("groups")
    if (groups["students"] > 1).any():
        st.write("Students that differ in their seed alone, together (intervals over students and stimuli):")
        st.dataframe(
            pd.DataFrame(
                {
                    "Trained on": groups["group"],
                    "Students": groups["students"],
                    "Shape bias": groups["bias"].map(percent),
                    "95 % interval": span(groups),
                    "Coverage": groups["coverage"].map(percent),
                }
            ),
            hide_index=True,
            column_config=COLUMNS,
        )
    with st.container(horizontal=True, gap="small"):
        download(classes, "shape-bias-by-class")
        download(observers, "shape-bias", "Summary (CSV)")
        download(found.table("decisions"), "cue-conflict-decisions", "All decisions (CSV)")


def examples(found: Answered) -> None:
    """Some stimuli with their two cues, and what everybody said."""
    shown = found.answer.facts["examples"]
    with st.container(horizontal=True, gap="small", key="bias_examples"):
        for example in shown:
            path = found.image(example["image"])
            if path:
                st.image(
                    str(path), caption=f"{example['shape']}, texture of {example['texture']}", width=112,
                    alt=f"A stimulus with the shape of {example['shape']} and the texture of {example['texture']}",
                )  # fmt: skip
    with st.expander("What each student said to these"):
        rows = [{"Shape": e["shape"], "Texture": e["texture"], **e["decisions"]} for e in shown]
        st.dataframe(pd.DataFrame(rows), hide_index=True)


# ---- the five experiments -------------------------------------------------------------------------------------------


def five(students: list[str]) -> None:
    values = stimuli_form("five")
    found = put("five", FiveSpec, "bias_five", {"students": ",".join(students), **values})
    if found is None:
        return
    table = found.table("accuracy")
    figure(
        cues.five_bars(table, found.answer.facts["chance"], is_dark()),
        "five_figure",
        "Accuracy of each student in each experiment, with intervals; the data can be downloaded below",
        table,
        "five-experiments",
    )
    st.caption("Dotted: chance. Upright bars: 95 % intervals over stimuli (Wilson).")
    for row in found.answer.tables["origins"]:
        path = found.image(row["experiment"])
        left, right = st.columns([1, 1.6], vertical_alignment="center")
        if path:
            left.image(str(path), alt=f"Examples of the experiment {row['experiment']}")
        right.markdown(
            f"**{row['experiment'].capitalize()}** ({row['stimuli']:,}). {row['origin']}",
        )
    download(table, "five-experiments")


# ---- error consistency ----------------------------------------------------------------------------------------------


def consistency(students: list[str]) -> None:
    values = stimuli_form("consistency")
    found = put("consistency", ConsistencySpec, "bias_kappa", {"students": ",".join(students), **values})
    if found is None:
        return
    pairs = found.table("pairs")
    figure(
        cues.agreement(pairs, is_dark()),
        "kappa_figure",
        "Error consistency, Cohen's kappa, of every two observers; the table below holds the numbers",
        pairs,
        "error-consistency",
    )
    st.caption(
        "κ is 1 where two observers err on exactly the same images, 0 where they agree no more than their accuracies "
        "make them by chance, and below 0 where they err on different ones. On stimuli in conflict, right is who names "
        "the shape."
    )
    order = {name: i for i, name in enumerate(dict.fromkeys(pairs["first"]))}
    once = pairs[[order[a] < order[b] for a, b in zip(pairs["first"], pairs["second"], strict=True)]]
    st.dataframe(
        pd.DataFrame(
            {
                "Who": once["first"],
                "With": once["second"],
                "κ": once["kappa"].map(lambda k: "–" if pd.isna(k) else f"{k:.2f}"),
                "95 % interval (with people: least and most)": span(once, 1.0, ""),
                "Right or wrong together": once["observed"].map(percent),
                "By chance": once["expected"].map(percent),
            }
        ),
        hide_index=True,
        column_config=COLUMNS,
    )
    with st.container(horizontal=True, gap="small"):
        download(pairs, "error-consistency")
        download(found.table("observers"), "error-consistency-observers", "Accuracies (CSV)")


# ---- does distilling change it? -------------------------------------------------------------------------------------


def study(where: Store, dataset: str, known: dict[str, Facts]) -> None:
    values = stimuli_form("study")
    st.subheader("Does distilling make networks more texture-biased?", anchor=False)
    result = st.container()
    state = st.session_state
    with st.expander("Train networks to find out", icon=":material/school:", expanded=not known):
        pressed = study_form(where, dataset, known)
    if pressed is not None:
        state.bias["study"] = pressed
    asked = state.bias["study"]
    with result:
        if asked is not None:
            if known:
                st.button("Back to the students that are here", icon=":material/undo:", on_click=forget_study)
            study_result({"dataset": dataset, **values, **asked}, wanted=pressed is not None)
        elif known:
            here = list(known)[:MOST_STUDENTS]
            few = "" if len(here) == len(known) else f" (the newest {MOST_STUDENTS})"
            st.caption(f"What the trained students of {dataset_title(dataset)} say{few}. More can be trained below.")
            own = {"students": ",".join(here), "counts": "none", "sets": "none"}
            study_result({"dataset": dataset, **values, **own}, wanted=True)
        else:
            to_students(dataset, "Or train networks for this question alone, below.")


def forget_study() -> None:
    st.session_state.bias["study"] = None


def study_result(values: dict[str, Any], wanted: bool) -> None:
    """The answer of a study. One that is only a link's, and was not run here, waits for a press: it trains networks."""
    try:
        spec = build_spec(StudySpec, **values)
    except Refused as refused:
        st.error(str(refused))
        return
    if not wanted and desk().look(digest_of(question_of("bias-study", spec))).status == "unknown":
        st.info(f"These networks are not trained yet. That takes up to {spec.minutes:g} minutes.")
        locked = roles.locked("run studies")
        if not st.button("Run this study", type="primary", icon=":material/play_arrow:", **locked):
            return
    found = ask("bias-study", spec, "bias_study")
    if found is None:
        return
    facts = found.answer.facts
    for sentence in facts["headline"]:
        verdict, _, numbers = sentence.partition(": ")
        st.markdown(f"**{verdict}**: {numbers}" if numbers else sentence)
    conditions = found.table("conditions")
    figure(
        cues.bias_against_accuracy(conditions, facts["guesser"]["bias"], is_dark()),
        "study_figure",
        "Shape bias against test accuracy for each way of training; the table below holds the numbers",
        conditions,
        "shape-bias-study",
    )
    if conditions["images"].notna().sum() > 1:
        figure(
            cues.bias_over_images(conditions, facts["guesser"]["bias"], is_dark()),
            "study_images",
            "Shape bias over the number of training images; the table below holds the numbers",
            conditions,
            "shape-bias-over-images",
        )
    st.caption(
        "Upright bars: 95 % intervals over students and stimuli. Bars across: standard deviation of the accuracy over "
        "students. Hollow: fewer than ten usable decisions a student. Students of one set differ in their seed alone; "
        "how much another distillation would change is seen only where every seed has a set of its own."
    )
    st.dataframe(
        pd.DataFrame(
            {
                "Trained on": conditions["condition"],
                "Kind": [cues.kind_mark(k).name for k in conditions["kind"]],
                "Students": conditions["students"],
                "Test accuracy": conditions["accuracy"].map(percent),
                "Shape bias": conditions["bias"].map(percent),
                "95 % interval": span(conditions),
                "Coverage": conditions["coverage"].map(percent),
            }
        ),
        hide_index=True,
        column_config=COLUMNS,
    )
    with st.container(horizontal=True, gap="small"):
        download(conditions, "shape-bias-study")
        download(found.table("students"), "shape-bias-study-students", "Students (CSV)")
        if found.answer.tables["comparisons"]:
            download(found.table("comparisons"), "shape-bias-study-comparisons", "Comparisons (CSV)")


def study_form(where: Store, dataset: str, known: dict[str, Facts]) -> dict[str, Any] | None:
    """What is to be trained; the values once the button is pressed."""
    before = {**{name: STUDY[name].default for name in OWN}, **(st.session_state.bias["study"] or {})}
    runs = [run for run in student_form.sets_of(where, dataset) if run.kind == "distill"]
    called = comparison.names(runs)
    chosen: dict[str, Any] = {}

    def old(name: str, options: Any) -> list[str]:
        """What was chosen before, and is still there."""
        return [part for part in str(before[name]).split(",") if part in options]

    def number(name: str) -> int | float:
        row, kind = STUDY[name], int if STUDY[name].kind == "int" else float
        value = before[name]
        value = value if type(value) in (int, float) and value == value else row.default  # JSON has NaN
        assert row.low is not None and row.high is not None
        return st.number_input(
            row.label, kind(row.low), kind(row.high), kind(min(max(value, row.low), row.high)), help=row.help
        )

    def choice(name: str) -> str:
        row = STUDY[name]
        at = row.choices.index(before[name]) if before[name] in row.choices else 0
        return st.selectbox(row.label, row.choices, at, format_func=named(WORDS[name]), help=row.help)

    with st.form("bias_study_form", border=False):
        left, right = st.columns(2)
        with left:
            chosen["counts"] = st.text_input(
                "Real training images", str(before["counts"]), help=STUDY["counts"].help, max_chars=100
            )
            ids = list(called)
            first = ids[:MOST_SETS] if before["sets"] == "all" else old("sets", called)
            sets = st.multiselect(
                "Distilled sets that are here", ids, first, format_func=named(called), max_selections=MOST_SETS,
                help=STUDY["sets"].help, placeholder="none", wrap=True,
            )  # fmt: skip
            chosen["stylised"] = choice("stylised")
        with right:
            networks = st.multiselect(
                STUDY["networks"].label, list(student_form.NETWORKS), old("networks", student_form.NETWORKS),
                format_func=named(student_form.NETWORKS), help=STUDY["networks"].help, wrap=True,
            )  # fmt: skip
            methods = st.multiselect(
                STUDY["methods"].label, list(METHODS), old("methods", METHODS),
                format_func=lambda m: METHODS[m].name, help=STUDY["methods"].help, placeholder="none", wrap=True,
            )  # fmt: skip
            chosen["ipc"] = st.text_input(
                "Images per class, distilled now", str(before["ipc"]), help=STUDY["ipc"].help, max_chars=100
            )
        for names in (("seeds", "training", "distilling"), ("minutes", "width", "protocol")):
            for column, name in zip(st.columns(3, vertical_alignment="bottom"), names, strict=True):
                with column:
                    chosen[name] = choice(name) if name == "protocol" else number(name)
        take = bool(known) and st.toggle("With the trained students that are here", before["students"] != "none")
        if dataset == "shapes":
            chosen["ties"] = st.toggle(STUDY["ties"].label, bool(before["ties"]), help=STUDY["ties"].help)
        locked = roles.locked("run studies")
        pressed = st.form_submit_button("Run the study", type="primary", icon=":material/play_arrow:", **locked)
    if not pressed:
        return None
    chosen |= {
        "counts": chosen["counts"].strip() or "none",
        "networks": ",".join(networks),
        "sets": ",".join(sets) or "none",
        "methods": ",".join(methods) or "none",
        "students": ",".join(list(known)[:MOST_STUDENTS]) if take else "none",
    }
    return {name: value for name, value in chosen.items() if value != STUDY[name].default or name == "sets"}


# ---- the page -------------------------------------------------------------------------------------------------------


def choose_students(known: dict[str, Facts], dataset: str) -> list[str]:
    """The students that are asked; ones that are not here are named."""
    state = st.session_state
    wanted = state.get("bias_students", state.bias["students"])
    wanted = first_of(known) if wanted is None else wanted
    lost = [id for id in wanted if id not in known]
    if lost:
        names = ", ".join(id[:60] for id in lost[:5])
        state.bias_problems.append(f"Not here, or not students of {dataset_title(dataset)}: {names}.")
    state.bias_students = list(dict.fromkeys(id for id in wanted if id in known))[:MOST]
    called = reports.names(known)
    state.bias["students"] = st.multiselect(
        "Students", list(known), key="bias_students", max_selections=MOST, wrap=True,
        format_func=lambda id: f"{called[id]}, {known[id]['accuracy']:.0%}",
        help=f"Up to {MOST} trained students: say of a distilled set, of random real images, and of all images.",
    )  # fmt: skip
    return state.bias["students"]


def first_of(known: dict[str, Facts]) -> list[str]:
    """The newest student of each kind, and then the newest."""
    kinds = {reports.mark(facts).name: id for id, facts in reversed(known.items())}
    return list(dict.fromkeys([*(id for id in known if id in kinds.values()), *known]))[:FIRST]


def another_dataset() -> None:
    """Another dataset has students of its own."""
    state = st.session_state
    state.bias |= {"students": None, "study": None}
    state.pop("bias_students", None)


def to_students(dataset: str, more: str = "") -> None:
    st.info(
        f"No student of {dataset_title(dataset)} is trained yet. Train one on a distilled set and one on all images on "
        f"the page Students, and come back. {more}"
    )
    st.page_link(
        "pages/students.py", label="Train a student", icon=":material/school:", query_params={"dataset": dataset}
    )


def page() -> None:
    where, state = store(), st.session_state
    st.title("Texture & shape", help=explain("cue-conflict", "shape-bias", "coverage"))
    st.write("Show a network the shape of one thing with the texture of another: which of the two does it name?")
    read_address(where)
    used = [run.dataset for run in where.runs(kinds=["student"], statuses=["done"], limit=1000)]
    options = list(dict.fromkeys([*used, *(name for name in DATASETS if availability(name).ready)]))
    if state.bias["dataset"] not in options:
        if state.bias["dataset"]:
            wanted = state.bias["dataset"][:60]
            problems = f"The dataset “{wanted}” of the link is not here; this is {dataset_title(options[0])}."
            state.bias_problems.append(problems)
        state.bias["dataset"] = state.bias_dataset = options[0]
    said = st.container()
    left, right = st.columns([1, 3])
    with left:
        dataset = field(
            "dataset",
            lambda key: st.selectbox(
                "Dataset", options, format_func=dataset_title, key=key, on_change=another_dataset,
                help="Students can only be compared when they know the same classes.",
            ),
        )  # fmt: skip
    known = reports.kept(where, dataset)
    with right:
        students = choose_students(known, dataset)
    for sentence in state.bias_problems:
        said.warning(sentence)
    section = one_of("What is asked", SECTIONS, "bias_section", state.bias["section"], label_visibility="collapsed")
    state.bias["section"] = section

    if section == "study":
        study(where, dataset, known)
    elif not known:
        to_students(dataset)
    elif not students:
        st.info("Choose one or more students above.")
    else:
        {"conflict": conflict, "five": five, "consistency": consistency}[section](students)
    write_address()


page()
