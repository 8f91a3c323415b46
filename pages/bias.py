"""Texture & shape: what does a student go by when the two disagree, and does distilling change it?"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pandas as pd
import streamlit as st

from engine.errors import Refused
from engine.probes.bias.specs import BiasSpec, ConsistencySpec, FiveSpec, StudySpec
from engine.runs.store import Store
from engine.spec import STUDENT_NETWORKS, build_spec, parameters
from pages.components import cues
from pages.components.asking import Answered, ask
from pages.components.shared import dataset_title, store

FIRST, MOST = 4, 8  # students shown when nothing was chosen; students that can be
FEW = 10  # usable decisions below which a marker is hollow
SECTIONS = {
    "conflict": "Cue conflict",
    "five": "Five experiments",
    "consistency": "Error consistency",
    "study": "What changes it?",
}
SOURCES = {
    "auto": "What suits the dataset",
    "shapes": "Generated shapes",
    "fourier": "Phase and amplitude",
    "style": "Style transfer",
    "geirhos": "Published stimuli",
}
PAGE_OF_STUDENTS = "pages/students.py"


# ---- what is there --------------------------------------------------------------------------------------------------


def trained(where: Store) -> dict[str, dict[str, Any]]:
    """The facts of all finished students by id, newest first."""
    runs = where.runs(kinds=["student"], statuses=["done"], limit=500)
    return {run.id: facts for run in runs if (facts := where.student(run.id)) is not None}


def names(students: dict[str, dict[str, Any]]) -> dict[str, str]:
    """A name for each student that no other has, with its mark and accuracy."""
    called = {id: f"{facts['name']}" for id, facts in students.items()}
    out = {}
    for id, name in called.items():
        twice = list(called.values()).count(name) > 1
        kind = (students[id].get("source") or {}).get("kind", "full")
        accuracy = students[id].get("accuracy")
        known = f", {accuracy:.0%}" if accuracy is not None else ""
        out[id] = f"{cues.kind_mark(kind).sign} {name}{f' ({id[-5:]})' if twice else ''}{known}"
    return out


def listed(text: str) -> list[str]:
    return [part for part in text.split(",") if part]


def remember(**values: str) -> None:
    """Put into the address what a reload or a shared link needs to show the same."""
    for key, value in values.items():
        if st.query_params.get(key) != value:
            st.query_params[key] = value


def forget_choice() -> None:
    """Another dataset: its own students are chosen anew."""
    st.session_state.pop("bias_students", None)
    st.query_params.pop("students", None)


# ---- pieces of the page ---------------------------------------------------------------------------------------------


def row_of(spec: type, name: str) -> Any:
    return next(p for p in parameters(spec) if p.name == name)


def download(table: pd.DataFrame, what: str, label: str = "Download the data (CSV)") -> None:
    st.download_button(
        label, table.to_csv(index=False), f"limbeck-{what}.csv", "text/csv", icon=":material/download:",
        on_click="ignore", key=f"download-{what}",
    )  # fmt: skip


def percent(value: Any) -> str:
    return "–" if value is None or pd.isna(value) else f"{100 * value:.1f} %"


def span(low: Any, high: Any) -> str:
    return "–" if low is None or pd.isna(low) else f"{100 * low:.1f} – {100 * high:.1f} %"


def source_choice(options: dict[str, str]) -> str:
    wanted = st.query_params.get("source")
    if st.session_state.get("bias_source") not in options:
        st.session_state.bias_source = wanted if wanted in options else "auto"
    chosen = st.selectbox(
        "Stimuli", list(options), format_func=options.get, key="bias_source",
        help=row_of(BiasSpec, "source").help,
    )  # fmt: skip
    remember(source=chosen)
    return chosen


def settings(section: str) -> dict[str, Any]:
    """The numbers behind a section, folded away."""
    with st.popover("Settings", icon=":material/tune:"):
        count = row_of({"five": FiveSpec}.get(section, BiasSpec), "count")
        chosen: dict[str, Any] = {
            "count": st.number_input(
                count.label, int(count.low), int(count.high), count.default, step=50, key=f"bias_count_{section}",
                help=count.help,
            ),
            "seed": st.number_input("Seed", 0, value=0, step=1, key="bias_seed", help="Seed of everything random."),
        }  # fmt: skip
        if section == "five":
            texture = row_of(FiveSpec, "texture")
            chosen["texture"] = st.selectbox(texture.label, texture.choices, key="bias_texture", help=texture.help)
        else:
            technique = row_of(BiasSpec, "technique")
            chosen["technique"] = st.selectbox(
                technique.label, technique.choices, key="bias_technique", help=technique.help
            )
        ready = row_of(BiasSpec, "stimuli")
        path = st.text_input(ready.label, key="bias_stimuli", help=ready.help, placeholder="a folder or .zip")
        chosen["stimuli"] = path.strip() or None
    return chosen


def examples(found: Answered) -> None:
    """Some stimuli with their two cues, and what everybody said."""
    shown = found.answer.facts["examples"]
    with st.container(horizontal=True, gap="small", key="bias_examples"):
        for example in shown:
            path = found.image(example["image"])
            if path:
                st.image(
                    str(path), caption=f"{example['shape']}, texture {example['texture']}", width=112,
                    alt=f"A stimulus with the shape of {example['shape']} and the texture of {example['texture']}",
                )  # fmt: skip
    with st.expander("What each student said"):
        rows = [{"Shape": e["shape"], "Texture": e["texture"], **e["decisions"]} for e in shown]
        st.dataframe(pd.DataFrame(rows), hide_index=True)
        download(found.table("decisions"), "cue-conflict-decisions", "Download all decisions (CSV)")


def conflict(students: list[str]) -> None:
    left, right = st.columns([3, 1], vertical_alignment="bottom")
    with left:
        source = source_choice(SOURCES)
    with right:
        values = settings("conflict")
    found = put("bias", BiasSpec, "bias_conflict", students=",".join(students), source=source, **values)
    if found is None:
        return
    observers, classes = found.table("observers"), found.table("classes")
    examples(found)
    drawn = observers[(observers["kind"] != "network") | (observers["observer"] == "ResNet-50")]
    dark = st.context.theme.type == "dark"
    st.plotly_chart(
        cues.class_by_class(drawn, classes[classes["observer"].isin(drawn["observer"])], FEW, dark),
        key="bias_figure",
        config={"displayModeBar": False},
        alt="Share of texture and shape decisions of each student for each class; the table below holds the numbers",
    )
    guesser = found.answer.facts["guesser"]
    st.caption(
        "Each marker is one class: left all shape, right all texture. Lines stand at the means over all stimuli. "
        f"Hollow: fewer than {FEW} decisions for either cue. Bars: share of the decisions that were right for either "
        f"cue. Somebody who guesses has a shape bias of {guesser['bias']:.0%} at a coverage of "
        f"{guesser['coverage']:.0%}."
    )
    st.dataframe(
        pd.DataFrame(
            {
                "Who": observers["observer"],
                "Kind": [cues.kind_mark(k).name for k in observers["kind"]],
                "Shape bias": observers["bias"].map(percent),
                "95 % interval": [span(a, b) for a, b in zip(observers["low"], observers["high"], strict=True)],
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
                    "95 % interval": [span(a, b) for a, b in zip(groups["low"], groups["high"], strict=True)],
                    "Coverage": groups["coverage"].map(percent),
                }
            ),
            hide_index=True,
        )
    download(classes, "shape-bias-by-class")
    download(observers, "shape-bias", "Download the summary (CSV)")


def five(students: list[str]) -> None:
    values = settings("five")
    found = put("five", FiveSpec, "bias_five", students=",".join(students), **values)
    if found is None:
        return
    table = found.table("accuracy")
    st.plotly_chart(
        cues.five_bars(table, found.answer.facts["chance"], st.context.theme.type == "dark"),
        key="five_figure",
        config={"displayModeBar": False},
        alt="Accuracy of each student in each experiment, with intervals; the data can be downloaded below",
    )
    for row in found.answer.tables["origins"]:
        path = found.image(row["experiment"])
        with st.container(horizontal=True, vertical_alignment="center"):
            if path:
                st.image(str(path), width=420, alt=f"Examples of the experiment {row['experiment']}")
            st.markdown(f"**{row['experiment'].capitalize()}** ({row['stimuli']:,}). {row['origin']}")
    download(table, "five-experiments")


def consistency(students: list[str]) -> None:
    left, right = st.columns([3, 1], vertical_alignment="bottom")
    with left:
        source = source_choice({"auto": SOURCES["auto"], "test": "Test images", **SOURCES})
    with right:
        values = settings("consistency")
    found = put("consistency", ConsistencySpec, "bias_kappa", students=",".join(students), source=source, **values)
    if found is None:
        return
    pairs = found.table("pairs")
    st.plotly_chart(
        cues.agreement(pairs, st.context.theme.type == "dark"),
        key="kappa_figure",
        config={"displayModeBar": False},
        alt="Error consistency, Cohen's kappa, of every two observers; the data can be downloaded below",
    )
    st.caption(
        "κ is 1 where two observers err on exactly the same images, 0 where they agree no more than their accuracies "
        "make them by chance, and below 0 where they err on different ones."
    )
    download(pairs, "error-consistency")


def study(dataset: str, students: list[str]) -> None:
    st.subheader("Does distilling make networks more texture-biased?")
    values = study_form(dataset, students)
    if values is not None:
        remember(study=json.dumps(values, separators=(",", ":")))
    text = st.query_params.get("study")
    if not text:
        st.info(
            "Press “Run the study”: it trains a few networks in each way, measures the shape bias of each, and answers "
            "with the uncertainty that is left."
        )
        return
    try:
        values = json.loads(text)
        if not isinstance(values, dict):
            raise ValueError
    except ValueError:
        st.error("The address does not describe a study; press “Run the study”.")
        return
    found = put("bias-study", StudySpec, "bias_study", **values)
    if found is None:
        return
    facts = found.answer.facts
    st.markdown(f"**{facts['headline']}**")
    conditions = found.table("conditions")
    st.plotly_chart(
        cues.bias_against_accuracy(conditions, facts["guesser"]["bias"], st.context.theme.type == "dark"),
        key="study_figure",
        config={"displayModeBar": False},
        alt="Shape bias against test accuracy for each way of training; the table below holds the numbers",
    )
    st.caption(
        "Upright bars: 95 % intervals over students and stimuli. Bars across: standard deviation of the accuracy over "
        "students. Hollow: fewer than ten usable decisions a student. Students of one distilled set differ in their "
        "seed; how much another distillation would change is not in these intervals."
    )
    st.dataframe(
        pd.DataFrame(
            {
                "Trained on": conditions["condition"],
                "Kind": [cues.kind_mark(k).name for k in conditions["kind"]],
                "Students": conditions["students"],
                "Test accuracy": conditions["accuracy"].map(percent),
                "Shape bias": conditions["bias"].map(percent),
                "95 % interval": [span(a, b) for a, b in zip(conditions["low"], conditions["high"], strict=True)],
                "Coverage": conditions["coverage"].map(percent),
            }
        ),
        hide_index=True,
    )
    download(found.table("students"), "shape-bias-study-students", "Download the students (CSV)")
    download(conditions, "shape-bias-study")
    if found.answer.tables["comparisons"]:
        download(found.table("comparisons"), "shape-bias-study-comparisons", "Download the comparisons (CSV)")


def study_form(dataset: str, students: list[str]) -> dict[str, Any] | None:
    """What is to be trained; the values once the button is pressed."""
    row = {p.name: p for p in parameters(StudySpec)}
    with st.form("bias_study_form"):
        left, right = st.columns(2)
        counts = left.text_input(row["counts"].label, row["counts"].default, help=row["counts"].help)
        networks = right.multiselect(row["networks"].label, STUDENT_NETWORKS, ["convnet"], help=row["networks"].help)
        source = left.selectbox("Stimuli", list(SOURCES), format_func=SOURCES.get, help=row["source"].help)
        stylised = right.selectbox(row["stylised"].label, row["stylised"].choices, help=row["stylised"].help)
        a, b, c = st.columns(3)
        seeds = a.number_input(row["seeds"].label, 1, 20, 3, help=row["seeds"].help)
        training = b.number_input(row["training"].label, 10, 20_000, 400, step=100, help=row["training"].help)
        minutes = c.number_input(row["minutes"].label, 0.1, 1440.0, 10.0, step=1.0, help=row["minutes"].help)
        sets = st.toggle("Distilled sets of this dataset, next to as many random real images", True,
                         help=row["sets"].help)  # fmt: skip
        take = st.toggle("The students chosen above, as they are", False, help=row["students"].help)
        ties = dataset == "shapes" and st.toggle(row["ties"].label, False, help=row["ties"].help)
        pressed = st.form_submit_button("Run the study", type="primary", icon=":material/play_arrow:")
    if not pressed:
        return None
    return {
        "dataset": dataset, "source": source, "counts": counts or "none", "networks": ",".join(networks),
        "sets": "all" if sets else "none", "students": ",".join(students) if take and students else "none",
        "stylised": stylised, "ties": bool(ties), "seeds": int(seeds), "training": int(training),
        "minutes": float(minutes),
    }  # fmt: skip


def put(probe: str, table: type, key: str, **values: Any) -> Answered | None:
    """Ask a probe; a refusal is shown."""
    try:
        spec = build_spec(table, **values)
    except Refused as refused:
        st.error(str(refused))
        return None
    return ask(probe, spec, key)


# ---- the page -------------------------------------------------------------------------------------------------------


def page() -> None:
    where, state = store(), st.session_state
    st.title("Texture & shape")
    st.write("Show a network the shape of one thing with the texture of another: which of the two does it name?")

    everybody = trained(where)
    datasets = list(dict.fromkeys(facts["dataset"] for facts in everybody.values()))
    options = list(dict.fromkeys([*datasets, "shapes", *(r.dataset for r in where.runs(kinds=["distill"]))]))
    wanted = st.query_params.get("dataset", "")
    if state.get("bias_dataset") not in options:
        asked = everybody.get((listed(st.query_params.get("students", "")) or [""])[0], {}).get("dataset")
        state.bias_dataset = next((d for d in (wanted, asked) if d in options), options[0])
    left, right = st.columns([1, 3])
    dataset = left.selectbox(
        "Dataset", options, format_func=dataset_title, key="bias_dataset", on_change=forget_choice,
        help="Students can only be compared when they know the same classes.",
    )  # fmt: skip
    known = {id: facts for id, facts in everybody.items() if facts["dataset"] == dataset}
    called = names(known)
    if "bias_students" not in state:
        asked_for = st.query_params.get("students")
        state.bias_students = listed(asked_for) if asked_for is not None else list(known)[:FIRST]
    lost = [s for s in state.bias_students if s not in known]
    if lost:
        st.info(f"Left out, because {dataset_title(dataset)} has no such student: {', '.join(x[:60] for x in lost)}.")
    state.bias_students = list(dict.fromkeys(s for s in state.bias_students if s in known))[:MOST]
    chosen = right.multiselect(
        "Students", list(known), format_func=called.get, key="bias_students", max_selections=MOST, wrap=True,
        help=f"Up to {MOST} trained students: say of a distilled set, of random real images, and of all images.",
    )  # fmt: skip

    section = st.query_params.get("section", "")
    if state.get("bias_section") not in SECTIONS:
        state.bias_section = section if section in SECTIONS else ("conflict" if known else "study")
    section = st.segmented_control(
        "What is asked", list(SECTIONS), format_func=SECTIONS.get, key="bias_section", required=True,
        label_visibility="collapsed",
    )  # fmt: skip
    remember(dataset=dataset, students=",".join(chosen), section=section)

    if section == "study":
        study(dataset, chosen)
    elif not known:
        st.info(
            f"No student of {dataset_title(dataset)} is trained yet. Train one on a distilled set, and one on all "
            "images, and come back."
        )
        if Path(PAGE_OF_STUDENTS).is_file():
            st.page_link(PAGE_OF_STUDENTS, label="Train a student", icon=":material/school:")
    elif not chosen:
        st.info("Choose one or more students above.")
    else:
        {"conflict": conflict, "five": five, "consistency": consistency}[section](chosen)


page()
