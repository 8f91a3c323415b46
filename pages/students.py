"""Students: train networks on a handful of images, or on all of them, keep them, and see what they get wrong."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import streamlit as st

from engine.data.catalogue import DATASETS, availability
from engine.errors import Refused
from engine.glossary import explain
from engine.runs.store import Run, Store
from engine.spec import StudentSpec, build_spec
from pages.components import address, form, reports, roles, student_form
from pages.components.choice import keep, named
from pages.components.pieces import figure
from pages.components.reports import Facts
from pages.components.shared import dataset_title, executor, store
from pages.components.student_form import NETWORKS
from pages.components.tiles import offline

MOST = 6  # students looked at together
SHOWN = 12  # mistakes shown before one asks for all
ASKED = 4  # students whose answers to one image Attribution compares
ACTIVE = ("queued", "running", "paused")
UNFINISHED = ("interrupted", "failed", "stopped")
ROOMS = (
    ("pages/attribution.py", "Attribution", ":material/center_focus_strong:", "Which pixels make the answer?"),
    ("pages/bias.py", "Texture & shape", ":material/texture:", "Which of the two does it go by?"),
    ("pages/robustness.py", "Robustness", ":material/shield:", "What makes it fail?"),
)


# ---- doing ----------------------------------------------------------------------------------------------------------


def train(where: Store) -> None:
    """Queue the students that the form asks for. The same spec gives the same student, so none is trained twice."""
    state = st.session_state
    started: list[str] = []
    try:
        specs = student_form.specs_of(state.student)
        source = state.student["source"]
        if student_form.needs_result(source) and where.result_folder(source) is None:
            raise Refused("The training set is not here any more; choose another one.")
        there = {spec: run for spec in specs if (run := student_form.find(where, spec))}
        for spec in specs:
            if spec not in there:
                started.append(executor().submit("student", spec))
    except Refused as refused:
        state.students_refused = str(refused)
        if not started:
            return
    await_students(started)
    done = [run.id for run in there.values() if run.status == "done"]
    if done:
        choose([*done, *state.get("students_chosen", [])])
    if there:
        names = ", ".join(run.title for run in there.values())
        st.toast(f"The same settings give the same student, so these are not trained again: {names}.", duration="long")
    if started:
        st.toast("Queued: 1 student." if len(started) == 1 else f"Queued: {len(started)} students.")


def train_teacher(spec: StudentSpec) -> None:
    """Queue the network that learns from all images; probes that need a teacher take it."""
    try:
        student_form.check(spec)
        await_students([executor().submit("student", spec)])
    except Refused as refused:
        st.session_state.students_refused = str(refused)


def await_students(ids: list[str]) -> None:
    """These students are shown as soon as they are trained."""
    st.session_state.students_awaited = [*st.session_state.get("students_awaited", []), *ids]


def choose(ids: list[str]) -> None:
    """Look at these students (the first few of them), before the choice is drawn or in a callback."""
    st.session_state.students_chosen = list(dict.fromkeys(ids))[:MOST]


def command(run: str, what: str) -> None:
    """Stop or resume; what the run's status does not allow is said."""
    try:
        store().command(run, what)
    except Refused as refused:
        st.session_state.students_refused = str(refused)


def start_over(run: Run) -> None:
    """Train a stopped student after all, in a run of its own."""
    try:
        spec = build_spec("student", **run.spec)
        student_form.check(spec)
        await_students([executor().submit("student", spec)])
        store().delete(run.id)
    except Refused as refused:
        st.session_state.students_refused = str(refused)


def delete(run: str) -> None:
    try:
        store().delete(run)
    except Refused as refused:
        st.session_state.students_refused = str(refused)


def rename(run: str, key: str) -> None:
    try:
        store().rename(run, st.session_state[key])
    except Refused as refused:
        st.session_state.students_refused = str(refused)


def pick(table: str, ids: list[str]) -> None:
    """Rows of the table were marked: those students are looked at."""
    choose([ids[row] for row in st.session_state[table]["selection"]["rows"] if row < len(ids)])


def another_dataset() -> None:
    """Another dataset has other sets and other students."""
    state = st.session_state
    student_form.set_values({**state.student, "dataset": state.students_dataset, "source": "full"})
    state.pop("students_chosen", None)


# ---- the address ----------------------------------------------------------------------------------------------------


def read_address(where: Store) -> list[str]:
    """Take the page's state from the address when that was changed from outside; sentences about what is wrong."""
    state, query = st.session_state, address.changed("students")
    if query is None:
        return []
    asked = [id for id in query.get("students", "").split(",") if id]
    known = next((run for id in asked if (run := where.run(id))), None)
    values, problems = student_form.from_query(query, where)
    if known is not None and "dataset" not in query:
        values["dataset"] = known.dataset
    if values["dataset"] not in datasets(where) and not availability(values["dataset"]).ready:
        problems.append(availability(values["dataset"]).sentence)
        values["dataset"] = student_form.defaults()["dataset"]
    student_form.set_values(values)
    state.students_dataset = values["dataset"]
    state.pop("students_chosen", None)
    if "students" in query:
        state.students_chosen = asked
    return problems


def write_address() -> None:
    """Put into the address what a reload or a shared link needs to show the same."""
    state = st.session_state
    query = student_form.to_query(state.student)
    if "students_chosen" in state:
        query["students"] = ",".join(state.students_chosen)
    address.write("students", query)


def datasets(where: Store) -> list[str]:
    """Datasets a student can be trained on: the catalogue, and the folders that were used."""
    used = [run.dataset for run in where.runs(limit=500) if run.dataset.startswith("folder:")]
    return list(dict.fromkeys([*DATASETS, *used]))


# ---- training -------------------------------------------------------------------------------------------------------


def training(where: Store) -> None:
    """The form and its button."""
    state = st.session_state
    st.subheader("Train a student", anchor=False, help=explain("student", "teacher"))
    student_form.draw(where)
    if not roles.presenter():
        st.caption(roles.allowance())
    here = availability(state.student["dataset"])
    if here.how in ("missing", "download"):
        st.caption(here.sentence)
    if here.how == "download":
        offline()
    refused = state.pop("students_refused", None)
    if refused:
        st.error(refused)
    count = state.student["count"]
    st.button(
        "Train" if count == 1 else f"Train {count} students", type="primary", icon=":material/school:",
        width="stretch", on_click=train, args=(where,), disabled=here.how == "missing", key="train",
    )  # fmt: skip
    st.caption(queue(where))


def queue(where: Store) -> str:
    """What students are trained on, and how long the queue is."""
    machine, waiting = executor().machine(), where.queue_length()
    text = f"Computes on {machine}." if machine else "The worker that computes is starting."
    if waiting:
        text += " One run waits in the queue." if waiting == 1 else f" {waiting} runs wait in the queue."
    elif where.runs(statuses=("running",), limit=1):
        text += " One run is at work, none waits."
    return text


def teacher(where: Store, dataset: str) -> None:
    """Offer to train the full-data teacher where there is none."""
    spec = build_spec("student", source="full", dataset=dataset)
    run = student_form.find(where, spec)
    if run is not None:
        if run.status == "done" and (facts := where.student(run.id)):
            st.caption(
                f"The full-data teacher of {dataset_title(dataset)} is there: {run.title}, "
                f"{100 * facts.get('accuracy', 0):.1f} % of the test images right."
            )
        return
    with st.container(border=True, horizontal=True, vertical_alignment="center"):
        st.markdown(f"{dataset_title(dataset)} has no **full-data teacher** yet.", width="stretch")
        st.button(
            "Train the full-data teacher", icon=":material/workspace_premium:", on_click=train_teacher, args=(spec,),
            **roles.locked(
                "train the teacher",
                disabled=availability(dataset).how == "missing",
                help="A ConvNet trained once on all training images, in the background. It is what the others are "
                "compared with, and what style transfer takes its features from.",
            ),
        )  # fmt: skip


def at_work(before: frozenset[str]) -> None:
    """The students in training and in the queue; redraws the page once one has ended or another was queued."""
    where = store()
    active = where.runs(kinds=("student",), statuses=ACTIVE, limit=50)
    if frozenset(run.id for run in active) != before:
        st.rerun()
    if not active:
        return
    others = where.queue_length() - sum(run.status == "queued" for run in active)
    st.markdown(f"**In training** ({len(active)}{f', and {others} other runs in the queue' if others else ''})")
    for run in reversed(active):
        left, right = st.columns([6, 1.3], vertical_alignment="center")
        message = run.message
        if run.status == "queued":
            ahead = where.queue_position(run.id)
            message = "Waiting: next in the queue." if ahead == 0 else f"Waiting: {ahead} before it in the queue."
        left.progress(min(max(run.progress, 0.0), 1.0), f"{run.title} — {message}")
        with right:
            act(run, "Stop", ":material/stop:", command, run.id, "stop")


def unfinished(where: Store, dataset: str) -> None:
    """Students whose training ended before its end, with what can be done about it."""
    for run in where.runs(kinds=("student",), dataset=dataset, statuses=UNFINISHED, limit=4):
        (st.error if run.status == "failed" else st.warning)(f"{run.title}: {run.message}")
        with st.container(horizontal=True, gap="small"):
            if run.status == "stopped":
                act(run, "Start over", ":material/replay:", start_over, run)
            else:
                label = "Resume" if run.status == "interrupted" else "Try again"
                act(run, label, ":material/play_arrow:", command, run.id, "resume")
            act(run, "Discard", ":material/delete:", delete, run.id)


def act(run: Run, label: str, icon: str, callback: Any, *args: Any) -> None:
    mine = callback is command and args[-1] == "stop" and run.viewer == roles.viewer()
    locked = {} if mine else roles.locked("do that")
    st.button(label, key=f"{label}-{run.id}", icon=icon, on_click=callback, args=args, **locked)


# ---- the students kept ----------------------------------------------------------------------------------------------


def table(students: dict[str, Facts], dataset: str) -> None:
    """All students of the dataset; marking rows chooses those to look at."""
    ids, chosen = list(students), st.session_state.students_chosen
    key = f"students_table_{hash(tuple(ids)) & 0xFFFFFF:x}"
    rows = [ids.index(id) for id in chosen]
    marked: Any = {"selection": {"rows": rows}}
    if key in st.session_state and set(st.session_state[key]["selection"]["rows"]) != set(rows):
        st.session_state[key] = marked  # chosen elsewhere
    st.dataframe(
        reports.wide(students, NETWORKS),
        key=key,
        hide_index=True,
        on_select=lambda: pick(key, ids),
        selection_mode="multi-row",
        selection_default=marked,
        height="auto",
        column_config={
            "Name": st.column_config.TextColumn(width=330),
            "Accuracy": st.column_config.NumberColumn(
                format="%.1f %%", help="Share of the test images it has right. Tested once, after training."
            ),
            "Over seeds": st.column_config.TextColumn(
                width=170,
                help="Mean ± standard deviation over the students that differ in their seed alone. A baseline's seed "
                "also draws its images.",
            ),
            "Trained on": st.column_config.TextColumn(width="medium"),
        },
        alt=f"The trained students of {dataset_title(dataset)}; the choice below names them too",
    )
    st.download_button(
        "Download the data (CSV)", reports.tidy(students).to_csv(index=False),
        f"limbeck-{dataset.split(':')[0]}-students.csv", "text/csv", icon=":material/download:", on_click="ignore",
    )  # fmt: skip


def look(students: dict[str, Facts]) -> None:
    """The students chosen, side by side."""
    dark = st.context.theme.type == "dark"
    ids = ",".join(students)
    with st.container(horizontal=True, gap="small", vertical_alignment="center"):
        st.markdown("Question " + ("it" if len(students) == 1 else "them") + ":", width="content")
        for path, title, icon, about in ROOMS:
            query = {"students": ids, "dataset": next(iter(students.values()))["dataset"]}
            st.page_link(path, label=title, icon=icon, help=about, query_params=query)

    st.subheader("Accuracy by class", anchor=False)
    figure(
        reports.class_accuracy(students, dark), "students_classes",
        "Accuracy of each student for each class; the data can be downloaded below", reports.per_class(students),
        "students-by-class",
    )  # fmt: skip
    st.caption("Markers: share of a class's test images that are right, with 95 % intervals. Lines: over all classes.")

    called = reports.names(students)
    for first in range(0, len(students), 2):
        pair = list(students)[first : first + 2]
        columns = st.columns(2 if len(students) > 1 else 1, gap="large")
        for column, id in zip(columns, pair, strict=False):
            with column, st.container(key=f"student-{id}"):
                report(id, students[id], called[id], dark, [other for other in students if other != id])


def report(id: str, facts: Facts, name: str, dark: bool, others: list[str]) -> None:
    """One student: what it is, its confusion matrix and its most confident mistakes."""
    st.subheader(name, anchor=False)
    right = round(facts["accuracy"] * facts["test_images"])
    number, about = st.columns([1, 4] if not others else [1, 2], gap="small", vertical_alignment="top")
    number.metric("Test accuracy", f"{100 * facts['accuracy']:.1f} %", help=explain("test-accuracy"))
    with about:
        st.caption(
            f"{right:,} of {facts['test_images']:,} test images right. "
            f"{NETWORKS.get(facts['network'], facts['network'])}"
            + (f", {facts['parameters']:,} parameters" if facts.get("parameters") else "")
            + f", trained on {facts['source'].get('text', 'images')} under the {facts['protocol']} protocol, seed "
            f"{facts['seed']}, in {reports.duration(facts['seconds'])}"
            + (f" on {facts['machine']}." if facts.get("machine") else ".")
        )
    matrix, wrong = st.columns([1.15, 1], gap="large") if not others else (st.container(), st.container())
    with matrix:
        st.markdown("**Confusion matrix**", help="Rows: what the test images are. Columns: what the student says.")
        figure(
            reports.confusion(facts, dark), f"confusion-{id}",
            f"Confusion matrix of {name}; the counts can be downloaded below",
            lambda: reports.confusion_table(facts), f"confusion-{id}",
        )  # fmt: skip
        st.caption("Colours: share of the row, on a scale that keeps few errors visible beside many right answers.")
    with wrong:
        st.markdown(
            "**Most confident mistakes**",
            help="The wrong answers of which the student is surest, by its softmax probability. The arrow is what it "
            "says. Click one to see which pixels made it say so.",
        )
        total = len(facts["mistakes"])
        if not total:
            st.caption("None: every test image is right.")
        elif total > SHOWN:
            every = st.toggle(f"All {total}" if total < 50 else f"The first {total}", key=f"mistakes-{id}")
        if total:
            count = total if total > SHOWN and every else min(total, SHOWN)
            st.html(reports.mistakes([id, *others][:ASKED], facts, pictures(id, count), count))
    with st.container(horizontal=True, gap="small"):
        with st.popover("Rename or delete", icon=":material/edit:"):
            key = f"rename-{id}"
            st.text_input("Name", value=str(facts["name"]), key=key, max_chars=200, on_change=rename, args=(id, key))
            st.caption("Deleting forgets the weights and everything measured here.")
            locked = roles.locked("delete students")
            st.button("Delete", key=f"delete-{id}", icon=":material/delete:", on_click=delete, args=(id,), **locked)


def pictures(id: str, count: int) -> list[str]:
    """The test images of a student's mistakes, where they were kept."""
    sheet = store().folder(id) / "student" / "mistakes.webp"
    try:
        return _cut(str(sheet), sheet.stat().st_mtime_ns, count)
    except OSError:
        st.caption("Its images were not kept when it was trained; the numbers are those of the test images.")
        return []


@st.cache_data(max_entries=100, show_spinner=False)
def _cut(sheet: str, changed: int, count: int) -> list[str]:
    return reports.cut(Path(sheet), count)


# ---- the page -------------------------------------------------------------------------------------------------------


def page() -> None:
    where, state = store(), st.session_state
    st.title("Students")
    st.write("Train a network on a handful of images, or on all of them, and see what it has learned and what it gets "
             "wrong.")  # fmt: skip
    for sentence in read_address(where):
        st.warning(sentence)
    options = list(dict.fromkeys([*datasets(where), state.student["dataset"]]))
    kept = state.get("students_dataset")
    keep("students_dataset", kept if kept in options else state.student["dataset"])

    left, right = st.columns([1, 2.1], gap="large")
    with left:
        dataset = st.selectbox(
            "Dataset", options, format_func=form.dataset_label, key="students_dataset", on_change=another_dataset,
            help="Students are trained and tested on the images of one dataset.",
        )  # fmt: skip
        with st.container(key="student_form", gap="small"):
            training(where)
    with right:
        students = reports.kept(where, dataset)
        awaited = state.get("students_awaited", [])
        fresh = [id for id in awaited if id in students]
        state.students_awaited = [id for id in awaited if id not in fresh]
        if fresh:
            choose([*fresh, *state.get("students_chosen", [])])
        if "students_chosen" not in state:
            choose(list(students)[:1])
        lost = [id for id in state.students_chosen if id not in students]
        choose([id for id in state.students_chosen if id in students])
        if lost:
            st.info(f"Not here any more, or not of {dataset_title(dataset)}: {', '.join(id[:60] for id in lost[:5])}.")

        teacher(where, dataset)
        active = frozenset(run.id for run in where.runs(kinds=("student",), statuses=ACTIVE, limit=50))
        st.fragment(at_work, run_every=0.7 if active else None)(active)
        unfinished(where, dataset)
        if students:
            table(students, dataset)
        else:
            st.info(
                f"No student of {dataset_title(dataset)} is trained yet. Train one on a distilled set and one on all "
                "images, and they appear here."
            )
    if students:
        st.divider()
        called = reports.names(students)
        chosen = st.multiselect(
            "Look closer at", list(students), format_func=named(called), key="students_chosen", max_selections=MOST,
            wrap=True, help=f"Up to {MOST} students, side by side. Rows can also be marked in the table.",
        )  # fmt: skip
        if chosen:
            look({id: students[id] for id in chosen})
        else:
            st.info("Choose a student above to see its accuracy by class, its confusion matrix and its mistakes.")
    write_address()


page()
