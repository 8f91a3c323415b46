"""Compare: which small set trains the better student? Distilled sets and baselines of one dataset, side by side."""

from __future__ import annotations

import time
from dataclasses import replace

import pandas as pd
import streamlit as st

from engine.data.catalogue import DATASETS, availability
from engine.errors import Refused
from engine.estimate import duration
from engine.glossary import explain
from engine.runs.store import Run, Store
from engine.runs.validate import check
from engine.spec import BASELINES, STUDENT_NETWORKS, BaselineSpec, EvaluationSpec, RankSpec, SoftenSpec, build_spec
from engine.students import PROTOCOLS
from engine.students.architecture import columns, parse
from engine.table import parameters
from pages.components import address, comparison, crossing, roles, trends
from pages.components.choice import named, one_of
from pages.components.marks import mark_of, origin
from pages.components.pieces import figure, is_dark
from pages.components.player import player
from pages.components.shared import dataset_title, executor, store

FIRST = 4  # sets shown when nothing was chosen
COMMON = [name for name, p in PROTOCOLS.items() if not p.own_steps]  # those that any set and network can follow
PROTOCOL_HELP = "  \n".join(f"**{p.title}**: {p.description}" for p in PROTOCOLS.values())
ACTIVE = ("queued", "running", "paused")
SHOWN = 4  # of what is under way; more of it is counted


# ---- what is there --------------------------------------------------------------------------------------------------


def sets_of(where: Store, dataset: str) -> list[Run]:
    """The runs of a dataset that made a set or are making one, newest first."""
    runs = where.runs(kinds=comparison.SET_KINDS, dataset=dataset, limit=500)
    return [r for r in runs if r.status in ACTIVE or where.result_folder(r.id)]


def datasets_there(where: Store) -> list[str]:
    """Datasets that have sets, latest first, then those that could have."""
    used = [r.dataset for r in where.runs(kinds=comparison.SET_KINDS, limit=1000)]
    ready = [name for name in DATASETS if availability(name).ready]
    return list(dict.fromkeys([*used, *ready]))


def protocol_title(name: str) -> str:
    return PROTOCOLS[name].title


def listed(text: str) -> list[str]:
    return [part for part in text.split(",") if part]


# ---- doing ----------------------------------------------------------------------------------------------------------


def submit(kind: str, /, **values: object) -> str | None:
    """Queue a run; a refusal is shown and nothing is queued."""
    try:
        spec = build_spec(kind, **values)
        check(spec)
        return executor().submit(kind, spec)
    except Refused as refused:
        st.session_state.compare_refused = str(refused)
        return None


def make_baseline(dataset: str) -> None:
    state = st.session_state
    run = submit(
        "baseline", dataset=dataset, kind=state.baseline_kind, ipc=state.baseline_ipc, seed=state.baseline_seed,
        protocol=state.baseline_protocol, students=state.baseline_students, never_learned=state.get("baseline_never"),
    )  # fmt: skip
    if run:
        choose(run)
        st.toast(f"Queued: {comparison.BASELINE_NAMES[state.baseline_kind]}.")


def evaluate(names: dict[str, str]) -> None:
    state = st.session_state
    run = submit(
        "evaluate", source=state.evaluate_source, protocol=state.evaluate_protocol, network=state.evaluate_network,
        seeds=state.evaluate_students,
    )  # fmt: skip
    if run:
        st.toast(f"Queued: {names[state.evaluate_source]} under the {state.evaluate_protocol} protocol.")


def evaluate_missing(rows: pd.DataFrame, protocol: str, students: int) -> None:
    """Queue the evaluations that a cross-architecture table lacks, network by network: small ones are there first."""
    order = columns(protocol)
    rows = rows.assign(order=rows["network"].map(order.index)).sort_values("order", kind="stable")
    queued = [
        submit("evaluate", source=row["run"], protocol=protocol, seeds=students, **parse(row["network"]).values())
        for _, row in rows.iterrows()
    ]
    st.toast(f"Queued: {sum(id is not None for id in queued)} evaluations under the {protocol} protocol.")


def make_soft(names: dict[str, str]) -> None:
    state = st.session_state
    run = submit("soften", source=state.soften_source, teacher=state.soften_teacher, temperature=state.soften_by)
    if run:
        choose(run)
        st.toast(f"Queued: soft labels for {names[state.soften_source]}.")


def rank(sources: list[str], protocol: str, students: int) -> None:
    """Queue the scores of sets that have none under this protocol."""
    queued = [submit("rank", source=source, protocol=protocol, seeds=students) for source in sources]
    st.toast(f"Queued: the scores of {sum(id is not None for id in queued)} sets.")


def stop_all(runs: list[Run]) -> None:
    for run in runs:
        stop(run)


def stop(run: Run) -> None:
    try:
        executor().cancel(run.id)
    except Refused as refused:
        st.toast(str(refused), icon=":material/error:", duration="long")


def choose(run: str) -> None:
    """Show a set that was just asked for."""
    st.session_state.compare_new = {**st.session_state.get("compare_new", {}), run: time.monotonic()}
    keep_new()


def keep_new() -> None:
    """Keep sets that were just added: what a browser under load sends next may not know of them yet, and drop them."""
    state, now = st.session_state, time.monotonic()
    new = [run for run, since in state.get("compare_new", {}).items() if now - since < 2]
    if new and "compare_runs" in state:  # a choice whose page was just left is gone
        state.compare_runs = [*state.compare_runs, *(run for run in new if run not in state.compare_runs)]


def forget_choice() -> None:
    """Another dataset: its own sets are chosen anew."""
    st.session_state.pop("compare_runs", None)
    for key in ("runs", "protocol"):
        st.query_params.pop(key, None)


# ---- drawing --------------------------------------------------------------------------------------------------------


def baseline_form(dataset: str) -> None:
    row = {p.name: p for p in parameters(BaselineSpec)}
    st.selectbox(
        row["kind"].label,
        BASELINES,
        format_func=named(comparison.BASELINE_NAMES),
        key="baseline_kind",
        help=row["kind"].help,
    )
    if st.session_state.baseline_kind == "forgetting":
        never = row["never_learned"]
        st.selectbox(never.label, never.choices, key="baseline_never", help=never.help)
    left, right = st.columns(2)
    left.number_input(row["ipc"].label, 1, int(row["ipc"].high or 100), 1, key="baseline_ipc", help=row["ipc"].help)
    right.number_input(row["seed"].label, 0, value=0, step=1, key="baseline_seed", help=row["seed"].help)
    left.selectbox(
        row["protocol"].label, PROTOCOLS, format_func=protocol_title, key="baseline_protocol", help=PROTOCOL_HELP
    )
    right.number_input(
        row["students"].label, 0, int(row["students"].high or 20), 3, key="baseline_students", help=row["students"].help
    )
    st.button(
        "Make this baseline", type="primary", on_click=make_baseline, args=(dataset,), **roles.locked("start runs")
    )


def evaluation_form(ready: list[Run], names: dict[str, str]) -> None:
    if not ready:
        st.write("No set of this dataset is finished yet: distil one, or make a baseline.")
        return
    row = {p.name: p for p in parameters(EvaluationSpec)}
    st.selectbox(
        row["source"].label, [r.id for r in ready], format_func=named(names), key="evaluate_source",
        help="The set that students are trained on.",
    )  # fmt: skip
    left, right = st.columns(2)
    left.selectbox(
        row["protocol"].label, PROTOCOLS, format_func=protocol_title, key="evaluate_protocol", help=PROTOCOL_HELP
    )
    right.selectbox(
        row["network"].label, [None, *STUDENT_NETWORKS], format_func=lambda n: n or "the protocol's own",
        key="evaluate_network", help=row["network"].help,
    )  # fmt: skip
    left.number_input(
        row["seeds"].label, 1, int(row["seeds"].high or 20), 3, key="evaluate_students", help=row["seeds"].help
    )
    st.button("Evaluate this set", type="primary", on_click=evaluate, args=(names,), **roles.locked("start runs"))


def soften_form(where: Store, dataset: str, ready: list[Run], names: dict[str, str]) -> None:
    """A trained network looks at a set's images, and what it sees becomes their labels."""
    taught = {
        run.id: run.title
        for run in where.runs(kinds=("student",), dataset=dataset, statuses=("done",), limit=300)
        if where.student(run.id)
    }
    if not ready:
        st.write("No set of this dataset is finished yet: distil one, or make a baseline.")
        return
    if not taught:
        st.write("There is no trained student of this dataset yet that could be the teacher.")
        st.page_link(
            "pages/students.py", label="Train one", icon=":material/school:", query_params={"dataset": dataset}
        )
        return
    row = {p.name: p for p in parameters(SoftenSpec)}
    st.write("A trained network says what it sees in each image; its answers become the labels of a new set.")
    st.selectbox(row["source"].label, [r.id for r in ready], format_func=named(names), key="soften_source")
    st.selectbox(
        row["teacher"].label, list(taught), format_func=named(taught), key="soften_teacher", help=row["teacher"].help
    )
    st.number_input(
        row["temperature"].label, row["temperature"].low, row["temperature"].high, 1.0, key="soften_by",
        help=row["temperature"].help,
    )  # fmt: skip
    st.button("Make soft labels", type="primary", on_click=make_soft, args=(names,), **roles.locked("start runs"))


def at_work(where: Store, dataset: str, before: frozenset[str]) -> None:
    """What is queued or running on this dataset; redraws the page once something has ended."""
    active = where.runs(dataset=dataset, statuses=ACTIVE)
    if frozenset(r.id for r in active) != before:
        st.rerun()
    if len(active) > SHOWN:
        left, right = st.columns([6, 1], vertical_alignment="center", wrap=False)
        left.write(f"{len(active) - SHOWN} more are waiting.")
        locked = roles.locked("stop runs")
        right.button("Stop all", key="stop-all", on_click=stop_all, args=(active,), width="stretch", **locked)
    for run in list(reversed(active))[:SHOWN]:
        left, right = st.columns([6, 1], vertical_alignment="center", wrap=False)
        message = run.message
        if run.status == "queued":
            ahead = where.queue_position(run.id)
            message = "Waiting: next in the queue." if ahead == 0 else f"Waiting: {ahead} before it in the queue."
        left.progress(min(max(run.progress, 0.0), 1.0), f"{run.title} — {message}")
        locked = roles.locked("stop runs")
        right.button("Stop", key=f"stop-{run.id}", on_click=stop, args=(run,), width="stretch", **locked)


def failures(where: Store, dataset: str) -> None:
    """Jobs of this page that failed a short while ago, in their own words."""
    for run in where.runs(
        kinds=("baseline", "evaluate", "import", "soften", "rank", "edit"),
        dataset=dataset,
        statuses=("failed",),
        limit=3,
    ):
        if time.time() - (run.finished or 0) < 600:
            st.warning(f"{run.title}: {run.message}", icon=":material/error:")


def pictures(runs: list[Run], names: dict[str, str]) -> None:
    """The images of all sets side by side: as they are now, or as films under one timeline."""
    film = address.toggle(
        "Films under one timeline",
        "film",
        "Scrub through how all of these sets came to be, step by step. Sets that were not distilled stand still.",
    )
    captions = []
    for run in runs:
        doing = "" if run.status == "done" else f" ({run.status})"
        captions.append(replace(run, title=f"{mark_of(origin(store(), run)).sign} {names[run.id]}{doing}"))
    player(captions, key="compare_player", still=not film, linked=film)


def numbers(table: pd.DataFrame, dataset: str) -> None:
    st.subheader("Accuracy and time", help=explain("protocol", "baseline", "seed"))
    st.table(comparison.wide(table), hide_index=True, border="horizontal")
    st.caption(
        "Accuracy on the test images: mean ± standard deviation over students trained from different seeds. "
        "A column holds one protocol and one network, because only such numbers can be compared."
        + (" Other networks are further below." if len(comparison.groups(table)) > comparison.FEW else "")
    )
    st.download_button(
        "Download the data (CSV)",
        table.to_csv(index=False),
        f"limbeck-{dataset.split(':')[0]}-comparison.csv",
        "text/csv",
        icon=":material/download:",
        on_click="ignore",
    )
    groups = comparison.main_groups(table)
    if not groups:
        st.info(
            "None of these sets has been evaluated yet. “Evaluate a set” above trains students on one and tests them."
        )
        return
    chosen = one_of(
        "Protocol and network of the chart", {name: name for name in groups}, "compare_protocol",
        st.query_params.get("protocol"), help="Numbers of two protocols are never drawn together.",
    )  # fmt: skip
    address.put(protocol=chosen)
    figure(
        comparison.chart(table, groups[chosen], is_dark()),
        "compare_chart",
        f"Accuracy of each set under {chosen}; the table above holds the same numbers",
        comparison.same_group(table, groups[chosen]),
        f"{dataset.split(':')[0]}-accuracy",
    )


def across_networks(where: Store, runs: list[Run], table: pd.DataFrame, active: list[Run], dataset: str) -> None:
    """Sets against networks under one protocol: a heat map whose cells fill in as evaluations finish."""
    st.subheader("Across networks", help="A set may teach the network it was made with and no other.")
    left, middle, right = st.columns([2, 3, 1])
    protocol = left.selectbox("Protocol", COMMON, format_func=protocol_title, key="cross_protocol", help=PROTOCOL_HELP)
    order = columns(protocol)
    wanted = middle.multiselect(
        "Networks", order, key="cross_networks", placeholder="All of them",
        help="convnet is the protocol's own; w: its width, d: its depth; nn, bn, ln: no, batch or layer normalisation.",
    )  # fmt: skip
    students = right.number_input("Students", 1, 20, 3, key="cross_students", help="For each cell.")
    cells = crossing.cells(table, protocol, [n for n in order if n in wanted] or order)
    busy = crossing.under_way(active, protocol)
    st.html(crossing.heat(cells, busy, dark=st.context.theme.type == "dark"))
    there = cells["mean"].notna()
    counts = sorted(set(cells[there]["students"].astype(int)))
    many = " to ".join(str(n) for n in dict.fromkeys((counts[0], counts[-1]))) if counts else ""
    many = f", means over {many} student{'' if many == '1' else 's'}" if many else ""
    st.caption(
        f"Accuracy on the test images in percent{many}, all under the {protocol} protocol. Rows are sets, columns the "
        "networks trained on them."
    )
    ready = [run.id for run in runs if where.result_folder(run.id)]
    waiting = cells.apply(lambda row: (row["run"], row["network"]) in busy, axis=1)
    missing = cells[~there & cells["run"].isin(ready) & ~waiting]
    with st.container(horizontal=True, vertical_alignment="center"):
        if len(missing):
            took = duration(crossing.seconds_for(missing, protocol, int(students), cells[there]))
            what = "1 missing cell" if len(missing) == 1 else f"{len(missing)} missing cells"
            st.button(
                f"Evaluate {what}", icon=":material/grid_on:", on_click=evaluate_missing,
                args=(missing, protocol, int(students)), **roles.locked("start runs"),
            )  # fmt: skip
            st.markdown(f"about {took}", width="content")
        download(cells[there], dataset, "networks")


def over_methods(where: Store, sets: list[Run], runs: list[Run], names: dict[str, str], dataset: str) -> None:
    """Accuracy against images per class over all sets of the dataset, and against time for the runs in view."""
    dark = st.context.theme.type == "dark"
    table = comparison.tidy(where, sets)
    groups = comparison.groups(table)
    times = trends.by_time(where, runs, names)
    if not groups and times.empty:
        return
    st.subheader("Over methods", help=explain("ipc"))
    left, right = st.columns(2)
    with left:
        if groups:
            chosen = st.selectbox("Against images per class, under", list(groups), key="ipc_group")
            rows = trends.by_ipc(table, groups[chosen])
            figure(
                trends.ipc_chart(rows, dark), "ipc_chart",
                f"Accuracy against images per class of every method under {chosen}; the CSV holds the numbers",
                rows, f"{dataset.split(':')[0]}-ipc",
            )  # fmt: skip
            st.caption(f"All sets of {dataset_title(dataset)} here, {chosen}; bars are one standard deviation.")
    with right:
        if not times.empty:
            ways = list(dict.fromkeys(f"{row.protocol}, {row.split}" for row in times.itertuples()))
            way = st.selectbox("Against distilling time, under", ways, key="time_group")
            rows = times[times["protocol"] + ", " + times["split"] == way]
            figure(
                trends.time_chart(rows, dark), "time_chart",
                f"Accuracy against distilling time of the runs in view under {way}; the CSV holds the numbers",
                rows, f"{dataset.split(':')[0]}-time",
            )  # fmt: skip
            st.caption(f"The distillations chosen above, measured while they ran: {way} images.")


def robustness(where: Store, runs: list[Run], names: dict[str, str], active: list[Run], dataset: str) -> None:
    """DD-Ranking: what is left of a set's advantage when its labels and augmentation are taken away."""
    st.subheader(
        "Without its labels, without augmentation",
        help="DD-Ranking (Li et al. 2025), from accuracies in [0, 1]. HLR: what hard labels lose against all real "
        "images. IOR: what the set gains over random real images. LRS is high when HLR is low and IOR high, ARS when "
        "the gain over random images holds with and without augmentation; both are 0.269 at no gain and no loss.",
    )
    rows = []
    for run in runs:
        latest = {e.data["protocol"]: e.data for e in where.events(run.id, kinds=("ranking",))}
        rows += [{"run": run.id, "name": names[run.id], **found} for found in latest.values()]
    if rows:
        st.table(comparison.ranked(rows), hide_index=True, border="horizontal")
        st.caption(
            "LRS and ARS lie in [0, 1], higher is better; the other columns are in percent. Learning rates are "
            "searched on held-out training images, not on the test images as in the published procedure."
        )
        flat = [{**{k: v for k, v in r.items() if k != "sides"}, **side} for r in rows for side in r["sides"]]
        download(pd.DataFrame(flat), dataset, "scores")
    row = {p.name: p for p in parameters(RankSpec)}
    left, right, last = st.columns([2, 1, 3], vertical_alignment="bottom")
    protocol = left.selectbox(
        "Protocol of the scores", COMMON, format_func=protocol_title, key="rank_protocol", help=row["protocol"].help
    )
    students = right.number_input("Students each", 1, 20, 3, key="rank_students", help=row["seeds"].help)
    scored = {r["run"] for r in rows if r["protocol"] == protocol}
    scored |= {run.spec["source"] for run in active if run.kind == "rank" and run.spec["protocol"] == protocol}
    missing = [run.id for run in runs if run.id not in scored and where.result_folder(run.id)]
    if missing:
        what = "this set" if len(missing) == 1 else f"these {len(missing)} sets"
        last.button(
            f"Score {what}", icon=":material/balance:", on_click=rank, args=(missing, protocol, int(students)),
            **roles.locked(
                "start runs",
                help=f"Trains {5 * (5 + int(students))} students a set, and a network on all images unless there is "
                "one.",
            ),
        )  # fmt: skip


def download(table: pd.DataFrame, dataset: str, what: str) -> None:
    name = f"limbeck-{dataset.split(':')[0]}-{what}.csv"
    st.download_button(
        "CSV", table.to_csv(index=False), name, "text/csv", icon=":material/download:", on_click="ignore",
        key=f"csv_{what}", help="Download the data", disabled=table.empty,
    )  # fmt: skip


# ---- the page -------------------------------------------------------------------------------------------------------


def page() -> None:
    where, state = store(), st.session_state
    st.title("Compare", help=explain("baseline", "coreset", "soft-label"))
    st.write("Which handful of images teaches a network most? Distilled sets and real images of the same number.")

    options = datasets_there(where)
    query = address.query()
    wanted = query.get("dataset", "")
    if "compare_dataset" not in state:
        asked = where.run((listed(query.get("runs", "")) or [""])[0])
        state.compare_dataset = next((d for d in (wanted, asked and asked.dataset) if d in options), options[0])
    left, right = st.columns([1, 3])
    dataset = left.selectbox(
        "Dataset", options, format_func=dataset_title, key="compare_dataset", on_change=forget_choice,
        help="Sets can only be compared when they stand for the same dataset.",
    )  # fmt: skip

    sets = sets_of(where, dataset)
    known = [r.id for r in sets]
    names = comparison.names(sets)
    if "compare_runs" not in state:
        given = query.get("runs")
        state.compare_runs = (
            listed(given) if given is not None else ([r.id for r in sets if not r.gallery] or known)[:FIRST]
        )
        if wanted not in ("", dataset):
            st.info(f"There is nothing of a dataset “{wanted[:80]}” here; this is {dataset_title(dataset)}.")
    lost = [r for r in state.compare_runs if r not in known]
    if lost:
        st.info(
            f"Left out, because {dataset_title(dataset)} has no such set here: {', '.join(x[:60] for x in lost[:5])}."
        )
    state.compare_runs = list(dict.fromkeys(r for r in state.compare_runs if r in known))
    chosen = right.multiselect(
        "Sets", known, format_func=named(names), key="compare_runs", wrap=True, on_change=keep_new,
        help="Finished and running distillations, baselines and imported sets of this dataset.",
    )  # fmt: skip
    address.put(dataset=dataset, runs=",".join(chosen))

    with st.container(horizontal=True, vertical_alignment="center"):
        with st.popover("Make a baseline", icon=":material/add:"):
            baseline_form(dataset)
        with st.popover("Evaluate a set", icon=":material/fact_check:"):
            evaluation_form([r for r in sets if where.result_folder(r.id)], names)
        with st.popover("Soft labels", icon=":material/school:"):
            soften_form(where, dataset, [r for r in sets if where.result_folder(r.id)], names)
        st.page_link("pages/distil.py", label="Distil a set", icon=":material/water_drop:", query_params={"d": dataset})
    refused = state.pop("compare_refused", None)
    if refused:
        st.error(refused)

    working = where.runs(dataset=dataset, statuses=ACTIVE)
    active = frozenset(r.id for r in working)
    st.fragment(at_work, run_every=0.7 if active else None)(where, dataset, active)
    failures(where, dataset)

    runs = [r for r in sets if r.id in chosen]
    runs.sort(key=lambda r: chosen.index(r.id))
    if not sets:
        st.info(
            f"Nothing of {dataset_title(dataset)} is here yet. Make a baseline (random real images take a second), "
            "or distil a set, and it appears here."
        )
    elif not runs:
        st.info("Choose two or more sets above to see their images and accuracies side by side.")
    else:
        pictures(runs, names)
        table = comparison.tidy(where, runs)
        numbers(table, dataset)
        across_networks(where, runs, table, working, dataset)
        over_methods(where, sets, runs, names, dataset)
        robustness(where, runs, names, working, dataset)


page()
