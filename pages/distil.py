"""Distil: what happens to a training set when it has to fit into a handful of images? Set a run up and watch it."""

from __future__ import annotations

import re
from typing import Any, Literal

import streamlit as st

from engine import forks, gallery, words
from engine.data.catalogue import availability
from engine.errors import Refused
from engine.estimate import estimate
from engine.exports.facts import story
from engine.faults import hindrance
from engine.glossary import explain
from engine.methods import METHODS
from engine.presets import PRESETS
from engine.runs.store import Event, Run
from engine.runs.validate import check
from engine.spec import RunSpec, build_spec
from engine.words import WORDS
from pages.components import address, charts, drawing, exporting, forking, guess, hiding, inside, roles, tour
from pages.components.form import form, read_address, set_values, write_address
from pages.components.leading import leads
from pages.components.pieces import is_dark, take
from pages.components.player import player
from pages.components.recent import recent_runs
from pages.components.shared import dataset_title, executor, history, pace, store

# The picture fills the first screen less the navigation and whatever stands at the lower edge.
HEIGHT = "calc(100dvh - 5.4rem - var(--limbeck-bar, 0px) - var(--tour-room, 0px))"
SPLIT = [2.05, 1]  # picture and controls
ACTIVE = ("queued", "running", "paused")
ENDED_WELL = ("done", "stopped")


# ---- doing ----------------------------------------------------------------------------------------------------------


def start(values: dict[str, Any]) -> None:
    """Queue a run and show it; a refusal is shown and nothing is queued."""
    try:
        spec = build_spec("distill", **values)
        check(spec)
        show_run(executor().submit("distill", spec))
    except Refused as refused:
        st.session_state.refused = str(refused)


def start_again(run: str, values: dict[str, Any]) -> None:
    """Queue a run once more with settings changed, and show it; a fork begins where it did."""
    try:
        show_run(forks.again(store(), run, values))
    except Refused as refused:
        st.session_state.refused = str(refused)


def show_run(run: str) -> None:
    """Make the address, and with it the page, show a run."""
    address.replace({"run": run})


def set_up(values: dict[str, Any]) -> None:
    """Back to the form, filled with these values."""
    set_values(values)
    address.replace({})


def command(run: str, what: str) -> None:
    """Pause, resume or stop; what the run's status does not allow is said."""
    try:
        store().command(run, what)
    except Refused as refused:
        st.session_state.refused = str(refused)


def refusal() -> None:
    """The sentence of the last refusal, once."""
    sentence = st.session_state.pop("refused", None)
    if sentence:
        st.error(sentence)


# ---- setting a run up -----------------------------------------------------------------------------------------------


def setup() -> None:
    problems = read_address()
    picture, side = st.columns(SPLIT, gap="medium")
    with side, st.container(key="controls", gap="xsmall"):
        st.title("Distil", help="Shrink a training set to a few synthetic images per class that teach a network almost "
                 "as well. The images start as real ones or noise and are changed step by step.")  # fmt: skip
        for sentence in problems:
            st.warning(sentence)
        values = form()
        here = availability(values["dataset"])
        if here.how in ("missing", "download"):
            st.caption(here.sentence)
        refusal()
        st.button(
            "Distil", type="primary", icon=":material/play_arrow:", width="stretch", on_click=start, args=(values,),
            key="distil", **roles.locked("start runs", disabled=here.how == "missing"),
        )  # fmt: skip
        st.caption(" ".join(filter(None, (needs(values), machine()))))
        tour.start_link()
    with picture:
        first_picture(values)
    write_address()
    recent_runs()
    how_it_works(values["method"])
    hiding.panel()


def needs(values: dict[str, Any]) -> str:
    """What a run with these values will take, or why it cannot be; empty while they make no run."""
    try:
        needed = estimate(build_spec("distill", **values))
    except Refused:
        return ""
    return needed.sentence() if needed.fits else needed.refusal()


def machine() -> str:
    """What runs would be computed on, and whether others come first."""
    where = executor().machine()
    waiting = store().queue_length()
    busy = store().runs(statuses=("running",), limit=5)
    text = f"Computes on {where}." if where else "The worker that computes is starting."
    if busy:
        ahead = len(busy) + waiting
        text += " One run comes before yours." if ahead == 1 else f" {ahead} runs come before yours."
    return text


def first_picture(values: dict[str, Any]) -> None:
    """Something alive: the latest finished run most like what the form shows as a replay, or an invitation."""
    runs = store().runs(kinds=("distill",), statuses=ENDED_WELL, limit=50)
    like = ("dataset", "method", "ipc")
    runs.sort(key=lambda run: ([run.spec[name] != values[name] for name in like], run.gallery))
    for run in runs:
        if len(store().frames(run.id)) > 1:
            player([run], key="replay", height=HEIGHT, badge=f"Replay: {run.title}", autoplay=True)
            return
    with st.container(
        key="empty", border=True, horizontal_alignment="center", vertical_alignment="center", height="stretch"
    ):
        st.subheader("Nothing has been distilled here yet", anchor=False, text_alignment="center")
        st.markdown("Pick one of these and watch it happen.", text_alignment="center")
        for preset in PRESETS.values():
            if preset.quick and availability(preset.values["dataset"]).ready:
                st.button(
                    preset.title, key=f"start-{preset.id}", icon=":material/play_arrow:", on_click=start,
                    args=(preset.spec.flat(),), width=320, **roles.locked("start runs", help=preset.about),
                )  # fmt: skip
                st.caption(preset.sentence(), text_alignment="center")


def how_it_works(method: str) -> None:
    if hiding.hidden("inside"):
        return
    info = METHODS[method]
    with st.expander(f"How {info.name.lower()} works", icon=":material/function:", expanded=tour.on()):
        st.write(info.idea)
        drawing.draw(info)
        st.latex(info.equation)
        st.caption(info.paper)


def inside_it(run: Run, step: int | None) -> None:
    """How the method works, shown on this run: at the step where the film was halted, the last one else."""
    if hiding.hidden("inside"):
        return
    info = METHODS[run.spec["method"]]
    opened = st.session_state.setdefault("inside", [key for key in inside.TOGGLES if key in st.query_params])
    with st.expander(
        f"How {info.name.lower()} works", icon=":material/function:", expanded=tour.on() or "slow" in opened
    ):
        st.write(info.idea)
        st.latex(info.equation)
        if store().frames(run.id):
            inside.slow_step(run, step)
        else:
            drawing.draw(info)
        st.caption(info.paper)
    if store().frames(run.id):
        with st.expander(
            "Where its images lie among real ones", icon=":material/scatter_plot:", expanded="map" in opened
        ):
            inside.feature_map(run, step)


# ---- watching a run -------------------------------------------------------------------------------------------------


def view(run: Run) -> None:
    picture, side = st.columns(SPLIT, gap="medium")
    at = forking.asked() if forking.can(run) else None
    with picture:
        shown = film(run)
    if shown.fork is not None and forking.can(run):
        forking.here(run, int(shown.fork))
        st.rerun()
    with side, st.container(key="panel", gap="xsmall"):
        if at is not None:
            forking.fork_form(run, at)
        else:
            watching(run)
    forking.sweeps(run)
    forking.family(run)
    if run.status not in ACTIVE:
        exporting.training(run)
    made = story(store(), run.id)
    if run.kind == "distill":
        inside_it(run, halted(shown.step))
    elif made.kind == "distill":
        how_it_works(made.spec["method"])
    recent_runs(but=run.id)
    hiding.panel()


def film(run: Run) -> Any:
    """The film of a run, or of two branches of one beside each other."""
    other = forking.beside(run)
    options: dict[str, Any] = {
        "key": "run_film", "height": HEIGHT, "message": waiting(run), "report": run.status not in ACTIVE,
        "fork": forking.can(run), "linked": True,
    }  # fmt: skip
    if other is None:
        return player([run], leads=leads(run), **options)
    return player([run, other], together=True, titles=[forking.caption(r) for r in (run, other)], **options)


def halted(told: int | None) -> int | None:
    """The step at which the film stands: as its player told, or, where it has not yet, as the address says."""
    if told is not None:
        if any(key in st.query_params for key in inside.TOGGLES):  # whoever follows needs to be told, too
            address.put(at=str(told))
        return told
    asked = st.query_params.get("at", "")
    return int(asked) if asked.isdecimal() and asked.isascii() and len(asked) < 10 else None


def watching(run: Run) -> None:
    """What a run is, and everything about it that changes while it is going."""
    st.title(heading(run), anchor=False, help=explain("ipc", "distillation") if run.kind == "distill" else None)
    active = run.status in ACTIVE
    every = pace(run.id) if active else 0
    st.fragment(panel, run_every=every or None)(run.id, outline(run), every)


def heading(run: Run) -> str:
    """What a run is, in a line."""
    if run.kind == "distill":
        return f"{dataset_title(run.dataset)}, {run.spec['ipc']} per class"
    return run.title


def waiting(run: Run) -> str:
    """The place in the queue, in words; empty when the run is not in it."""
    if run.status != "queued":
        return ""
    ahead = store().queue_position(run.id) + len(store().runs(statuses=("running",), limit=5))
    if not executor().ready():
        return "Waiting for the worker, which is starting."
    return {0: "Starting.", 1: "Waiting: one run before yours."}.get(ahead, f"Waiting: {ahead} runs before yours.")


def outline(run: Run) -> tuple[str, bool]:
    """What the page as a whole depends on: when it is another, all of it is drawn again."""
    return "active" if run.status in ACTIVE else run.status, bool(hindrance())


def panel(run_id: str, drawn_as: tuple[str, bool], every: int) -> None:
    """Status, controls, curves and the result. Only reads the store: it is drawn every ``every`` seconds."""
    run = store().run(run_id)
    if run is None or st.query_params.get("run") != run_id or outline(run) != drawn_as:
        st.rerun()
    if every and not every / 4 < pace(run_id) <= every:  # many have come, or gone
        st.rerun()
    refusal()
    events = history(store(), run.id)[1]
    status(run, events)
    hidden = guess.hides(run.id)
    if run.status not in ACTIVE:
        if not hidden:
            final(run)
        afterwards(run)
    curves(run, events, hidden)


def status(run: Run, events: dict[str, list[Event]]) -> None:
    where = next((e.data["machine"] for e in reversed(events["layout"]) if e.data.get("machine")), "")
    made = story(store(), run.id)
    method = METHODS[made.spec["method"]].name if made.kind == "distill" else run.title
    on = f", on {where}" if where else ""
    came = "from the gallery" if run.gallery else "imported" if made.origin else ""
    st.caption(f"{method}{on}" + (f"; {came}, made on {made.date}" if came else ""))
    if run.status in ("queued", "running", "paused"):
        st.progress(progress(run), waiting(run) or run.message)
        with st.container(horizontal=True, gap="small"):
            if run.status == "paused":
                act(run, "resume", "Resume", ":material/play_arrow:", primary=True)
            elif run.status == "running" and run.kind == "distill" and run.progress < 1:
                act(run, "pause", "Pause", ":material/pause:")
            act(run, "stop", "Stop", ":material/stop:")
    elif run.status == "interrupted":
        st.warning(run.message)
        act(run, "resume", "Resume", ":material/play_arrow:", primary=True)
    elif run.status == "failed":
        st.error(run.message)
        act(run, "resume", "Try again", ":material/replay:")
    else:
        st.caption(run.message)
        halved = events["status"][-1].data.get("halved") if events["status"] else None
        if halved:
            st.button(
                f"Run again with learning rate {halved['lr_img']:g}", type="primary", icon=":material/replay:",
                on_click=start_again, args=(run.id, halved), width="stretch",
                **roles.locked("start runs"),
            )  # fmt: skip


def progress(run: Run) -> float:
    """How far the run is, or the stage it is in where its message says so (“Reading the dataset 40%”)."""
    stage = re.search(r"(\d{1,3}) ?%$", run.message)
    return min(max(int(stage[1]) / 100 if stage else run.progress, 0.0), 1.0)


def act(run: Run, what: str, label: str, icon: str, primary: bool = False) -> None:
    st.button(
        label, key=f"{what}-{run.id}", icon=icon, type="primary" if primary else "secondary", on_click=command,
        args=(run.id, what), width="stretch", **roles.locked("pause, resume or stop runs"),
    )  # fmt: skip


def final(run: Run) -> None:
    """The accuracy on the test images, with everything a number needs to be believed."""
    for found in store().evaluations([run.id])[-3:]:
        students = len(found["accuracies"])
        spread = f" ± {100 * found['std']:.1f}" if students > 1 else ""
        st.metric(
            "Test accuracy" if found.get("split", "test") == "test" else "Accuracy on held-out images",
            f"{100 * found['mean']:.1f}{spread} %",
            help="Networks (students) were trained on these synthetic images alone and tested once on the real test "
            "images. The number is their mean ± standard deviation.",
        )
        network = WORDS["network"].get(found["network"], found["network"])
        elsewhere = ", measured elsewhere" if found.get("imported") else ""
        st.caption(
            f"{network}, {words.count(students, 'student')}, {found['protocol']} protocol{elsewhere}",
            help=explain("protocol", "seed"),
        )


def curves(run: Run, events: dict[str, list[Event]], hidden: bool) -> None:
    """Accuracy, unless it is ``hidden``, and loss over distilling time."""
    dark, ended = is_dark(), run.status not in ACTIVE
    # A canvas is cheaper to draw every second, an SVG can be saved.
    renderer: Literal["svg", "canvas"] = "svg" if ended else "canvas"
    if not hidden:
        accuracies(run, events, dark, ended, renderer)
    if len(events["metric"]) > 1:
        st.markdown("**Loss**", help="How far the synthetic images are from what the method wants; lower is better.")
        st.echarts_chart(
            charts.loss(events["metric"], dark), key="loss", height=110, renderer=renderer,
            alt="Loss against seconds of distilling",
        )  # fmt: skip
        if ended:
            take("loss", lambda: charts.losses(events["metric"]), f"{run.id}-loss")


def accuracies(
    run: Run, events: dict[str, list[Event]], dark: bool, ended: bool, renderer: Literal["svg", "canvas"]
) -> None:
    measured = events["accuracy"]
    if measured or events["reference"] or run.status in ACTIVE and run.kind == "distill":
        st.markdown(
            "**Accuracy while distilling**",
            help="At growing intervals, small networks are trained on the images as they are and tested on training "
            "images that were held out. Dashed lines: the same for real images, as many per class. Numbers of "
            "different protocols cannot be compared, so this is not the test accuracy.",
        )
        if not measured and not events["reference"]:
            st.caption("The first one is being measured." if run.status == "running" else "None yet.")
    if measured or events["reference"]:
        st.echarts_chart(
            charts.accuracy(measured, events["reference"], dark),
            key="accuracy",
            height=180,
            renderer=renderer,
            alt="Accuracy in percent against seconds of distilling",
        )
        if measured:
            last = measured[-1].data
            count = "1 student" if last["students"] == 1 else f"{last['students']} students"
            st.caption(
                f"{100 * last['accuracy']:.1f} % ({last['protocol']} protocol, {count}, held-out training images)"
            )
        if ended:
            take("accuracy", lambda: charts.measurements(measured, events["reference"]), f"{run.id}-accuracy")


def afterwards(run: Run) -> None:
    """What one can do with a run that has ended."""
    with st.container(horizontal=True, gap="small", vertical_alignment="center"):
        exporting.popover(run)
        if run.kind == "distill" and not hiding.hidden("settings"):
            st.button(
                "Change the settings", icon=":material/tune:", on_click=set_up,
                args=(RunSpec.model_validate(run.spec).flat(),), help="Back to the form, filled as for this run.",
            )  # fmt: skip
        st.page_link(
            "pages/compare.py", label="Compare", icon=":material/compare:",
            query_params={"dataset": run.dataset, "runs": ",".join([run.id, *like_it(run)])},
        )  # fmt: skip
        if store().result_folder(run.id) is not None:
            st.page_link(
                "pages/students.py", label="Train a student", icon=":material/school:", query_params={"src": run.id},
            )  # fmt: skip


def like_it(run: Run) -> list[str]:
    """The run of the gallery that a run may have been made from by changing a setting, if there is one."""
    own = (run.dataset, run.spec.get("method"))
    return [r.id for r in gallery.shown(store()) if (r.dataset, r.spec.get("method")) == own and r.id != run.id][:1]


# ---- the page -------------------------------------------------------------------------------------------------------


def page() -> None:
    asked = st.query_params.get("run")
    run = store().run(asked) if asked else None
    if run is not None:
        view(run)
        return
    if asked:
        st.session_state.refused = "There is no such run here: it may have been deleted, or made on another machine."
        address.replace({})
    setup()


page()
