"""Applications: what a handful of distilled images is good for, and what it, or what makes it, can be abused for."""

from __future__ import annotations

from typing import Any

import pandas as pd
import streamlit as st

from engine.data.catalogue import DATASETS, availability
from engine.errors import Refused
from engine.glossary import explain
from engine.probes.desk import Desk, digest_of, question_of
from engine.probes.specs import PROBES
from engine.runs.store import Store
from engine.spec import build_spec
from engine.table import Parameter, parameters
from pages.components import address, applied, comparison, knobs, reports, roles
from pages.components.asking import Answered, ask
from pages.components.choice import named, one_of
from pages.components.grid import class_grid, data_url
from pages.components.marks import mark_of, origin
from pages.components.pieces import download, figure, interval, is_dark, percent
from pages.components.shared import dataset_title, desk, store
from pages.components.student_form import WORDS

SECTIONS = {
    "inversion": "Leakage",
    "continual": "Continual learning",
    "poisoning": "Poisoning",
    "adaptation": "Adaptation",
    "search": "Architecture search",
    "data-free": "Data-free",
    "membership": "Membership",
    "ownership": "Ownership",
}
LEADS = {
    "inversion": "**What does a shared gradient give away?** In federated learning people share gradients instead of "
    "images. Whoever sees one can look for the image that causes it: the objective is that of gradient matching, with "
    "one real image in place of many.",
    "continual": "**Can a few images stand for classes that are gone?** Classes arrive a few at a time; of those "
    "before only a small memory stays, distilled, herded or random, always of the same size. After each group a "
    "network is trained from scratch on the memory.",
    "poisoning": "**Can a few images spoil a network in one step?** Images are distilled so that a single step on them "
    "makes a trained network misread one class as another, and leaves the rest as it was. A demonstration, on networks "
    "that are trained here for it.",
    "adaptation": "**Can a few images carry a network to another dataset?** Networks that know one dataset take a few "
    "steps on images distilled of another with the same classes.",
    "search": "**Can a small set stand in for all images when networks are compared?** A grid of ConvNets is trained "
    "on the set, on as many random real images, and on everything: do they come in the same order?",
    "data-free": "**What if the training images are gone, and only a trained network is left?** Images are made from "
    "its weights alone, or taken from anywhere, and a student learns what the teacher says about them.",
    "membership": "**Does a student betray whose images it was trained on?** Members are the images that a set was "
    "made of. The attacker calls an image a member where the student's loss on it is low.",
    "ownership": "**Was a network trained from this very set?** A network is surer of images that it was trained on. "
    "How much surer is compared with networks that cannot have seen the set.",
}
TERMS = {  # of the glossary, for the “?” of a section
    "inversion": ("gradient-matching",),
    "continual": ("feature-mean", "herding"),
    "poisoning": ("unrolling", "backdoor"),
    "adaptation": ("unrolling", "initialisation"),
    "search": ("cross-architecture",),
    "data-free": ("teacher", "soft-label"),
    "membership": ("student", "distillation"),
    "ownership": ("student", "distillation"),
}
OWN_WORDS = {
    "network": {"lenet-sigmoid": "LeNet with sigmoids", "convnet": "ConvNet", "lenet": "LeNet", "mlp": "MLP"},
    "label": {"read": "read off (iDLG)", "fitted": "fitted (DLG)"},
    "protocol": WORDS["protocol"],
    "grid": {"small": "8 ConvNets", "large": "36 ConvNets"},
}
MEASURES = {
    "accuracy": "Accuracy (%)",
    "forgetting": "Forgetting (points)",
    "misread": "Attacked class misread (%)",
    "others": "All other classes read rightly (%)",
    "auc": "Area under the ROC curve (%)",
    "tpr": "Members found at 1 % false alarms (%)",
}


# ---- what is there, and what is asked ------------------------------------------------------------------------------


def rows(section: str) -> list[Parameter]:
    return parameters(PROBES[section].spec)


def is_dataset(section: str, row: Parameter) -> bool:
    return row.name in ("dataset", "other") or (section, row.name) == ("adaptation", "source")


def defaults(section: str) -> dict[str, Any]:
    """The table's, but for a dataset that is not on this machine."""
    values = {row.name: row.default for row in rows(section)}
    for row in rows(section):
        if is_dataset(section, row) and not availability(row.default).ready:
            values[row.name] = "shapes"
    return values


def sets(where: Store) -> dict[str, str]:
    """The sets that are here, newest first, by the id of their run, and what they are called."""
    found = [run for run in where.runs(kinds=comparison.SET_KINDS, limit=500) if where.result_folder(run.id)]
    called: dict[str, str] = {}
    for dataset in dict.fromkeys(run.dataset for run in found):
        mine = [run for run in found if run.dataset == dataset]
        names = comparison.names(mine)
        called |= {r.id: f"{mark_of(origin(where, r)).sign} {dataset_title(dataset)}: {names[r.id]}" for r in mine}
    return {run.id: called[run.id] for run in found}


def students(where: Store) -> dict[str, str]:
    """The students that are here, newest first, and what they are called."""
    runs = where.runs(kinds=["student"], statuses=["done"], limit=1000)
    called: dict[str, str] = {}
    for dataset in dict.fromkeys(run.dataset for run in runs):
        names = reports.names(reports.kept(where, dataset))
        called |= {id: f"{name} ({dataset_title(dataset)})" for id, name in names.items()}
    return {run.id: called[run.id] for run in runs if run.id in called}


# ---- the address ----------------------------------------------------------------------------------------------------


def read_address() -> None:
    """Take the page's state from the address when that was changed from outside. Sentences about what is wrong with it
    are kept until something is chosen: answers that arrive draw the page anew."""
    state, query = st.session_state, address.changed("apply")
    if query is None:
        return
    section, problems = query.get("section", ""), []
    if section not in SECTIONS:
        if section:
            problems.append(f"There is no section “{section[:40]}”; there are {', '.join(SECTIONS)}.")
        section = next(iter(SECTIONS))
    values = defaults(section)
    problems += knobs.read(rows(section), query, values)
    for key in [k for k in state if str(k).startswith("apply")]:
        del state[key]
    state.apply = {"section": section, "values": {section: values}}
    state.apply_problems = problems


def write_address() -> None:
    """Put into the address what a reload or a shared link needs to show the same."""
    now = st.session_state.apply
    section = now["section"]
    query = {"section": section, **knobs.written(rows(section), now["values"].get(section, {}))}
    if address.write("apply", query):
        st.session_state.apply_problems = []


# ---- asking ---------------------------------------------------------------------------------------------------------


def settings(section: str, where: Store) -> bool:
    """The section's form; whether its button was pressed. The values are in ``apply["values"]`` afterwards."""
    values = st.session_state.apply["values"].setdefault(section, defaults(section))
    basic = [row for row in rows(section) if not row.advanced]
    wide = [row for row in basic if row.kind == "text" and not is_dataset(section, row)]
    with st.form(f"apply_form_{section}"):
        for row in wide:  # names of sets and students are long
            values[row.name] = _named(section, row, values[row.name], where)
        _pairs(section, [row for row in basic if row not in wide], values, where, 4)
        with st.expander("More settings"):
            _pairs(section, [row for row in rows(section) if row.advanced], values, where, 4)
        return st.form_submit_button(
            "Measure" if section == "inversion" else "Train and measure", type="primary", icon=":material/play_arrow:",
            **roles.locked("measure"),
        )  # fmt: skip


def _pairs(section: str, shown: list[Parameter], values: dict[str, Any], where: Store, wide: int) -> None:
    """Widgets side by side, in pairs that stay pairs on a phone."""
    for first in range(0, len(shown), wide):
        line = shown[first : first + wide]
        for half, pair in zip(st.columns(2, gap="small"), (line[:2], line[2:]), strict=True):
            with half:
                for column, row in zip(
                    st.columns(2, gap="small", wrap=False, vertical_alignment="bottom"), pair, strict=False
                ):
                    with column:
                        key = f"apply_{section}_{row.name}"
                        if row.kind == "text":
                            values[row.name] = knobs.dataset(row, key, values[row.name], knobs.ready(where))
                        else:
                            values[row.name] = knobs.draw(row, key, values[row.name], OWN_WORDS.get(row.name, {}))


def _named(section: str, row: Parameter, value: str, where: Store) -> str:
    """A set, a student, or several students, chosen by name."""
    key = f"apply_{section}_{row.name}"
    called = sets(where) if row.name == "source" else students(where)
    if row.name == "students":
        given = [id for id in value.split(",") if id]
        called |= {id: id for id in given if id not in called}
        chosen = st.multiselect(
            row.label, list(called), given, format_func=named(called), key=key, wrap=True,
            help="Trained students that may or may not have seen the set; none is needed.",
        )  # fmt: skip
        return ",".join(chosen)
    options = {"": "none"} if row.name == "source" and section == "data-free" else {}
    options |= called
    if value and value not in options:
        options[value] = value
    return st.selectbox(
        row.label, list(options), list(options).index(value) if value in options else 0, format_func=named(options),
        key=key, help="A set that is here." if row.name == "source" else "A trained student that is here.",
    )  # fmt: skip


def missing(section: str, where: Store) -> bool:
    """Whether something is not there that the section cannot do without; says what, and where it is made."""
    if section in ("search", "ownership") and not sets(where):
        st.info("There is no set yet. Distil one, or select real images, and come back.")
        st.page_link("pages/distil.py", label="Distil", icon=":material/water_drop:")
        return True
    if section == "data-free" and not students(where):
        st.info("There is no trained student yet that could be the teacher. Train one on all images, and come back.")
        st.page_link("pages/students.py", label="Train a student", icon=":material/school:")
        return True
    return False


def put(section: str, pressed: bool) -> Answered | None:
    """Ask the section's probe when the button is pressed; what was asked before is there without it."""
    try:
        spec = build_spec(PROBES[section].spec, **st.session_state.apply["values"][section])
    except Refused as refused:
        st.error(str(refused))
        return None
    if pressed and roles.presenter():
        desk().ask(section, spec, again=True)
    elif Desk().look(digest_of(question_of(section, spec))).status == "unknown":
        button = "press the button above" if roles.presenter() else roles.only("measure it")
        st.info(f"This has not been measured with these settings: {button[:1].lower()}{button[1:].rstrip('.')}.")
        return None
    return ask(section, spec, key=f"apply_asked_{section}")


# ---- pieces of an answer --------------------------------------------------------------------------------------------


def plot(chart: Any, key: str, alt: str, table: pd.DataFrame) -> None:
    figure(chart, f"apply_figure_{key}", alt, table, f"applications-{key}")


def picture(found: Answered, name: str, heads: list[str], alt: str, cell: int = 72) -> None:
    """A sheet of small images, crisp, with heads over its columns."""
    path = found.image(name)
    if path:
        class_grid(data_url(path, mime="image/png"), heads, alt=alt, cell=cell)


def compared(found: Answered, section: str, measures: tuple[str, ...], chance: float | None = None) -> None:
    """A figure for each measure side by side, and below them the numbers with their intervals, and differences."""
    facts, summary, table = found.answer.facts, found.table("summary"), found.table("rows")
    for column, measure in zip(st.columns(len(measures), gap="large"), measures, strict=True):
        with column:
            plot(
                applied.lanes(
                    table, summary, measure, MEASURES[measure], facts["ways"], facts["kinds"], is_dark(),
                    chance if measure in ("accuracy", "auc") else None,
                ),
                f"{section}-{measure}",
                f"{MEASURES[measure]} for {', '.join(facts['ways'].values())}; the table below holds the numbers",
                table,
            )  # fmt: skip
    st.caption("Large markers: means with 95 % intervals. Small ones: single repeats.")
    there = [way for way in facts["ways"] if way in set(summary["way"])]
    by = {measure: summary[summary["measure"] == measure].set_index("way").loc[there] for measure in measures}
    columns = {MEASURES[measure]: interval(mine) for measure, mine in by.items()}
    st.dataframe(pd.DataFrame({"": [facts["ways"][way] for way in there], **columns}), hide_index=True)
    contrasts = found.table("contrasts")
    if len(contrasts):
        st.dataframe(
            pd.DataFrame(
                {
                    "Difference": [_between(c, facts["ways"]) for c in contrasts["contrast"]],
                    "Of": [MEASURES[m] for m in contrasts["measure"]],
                    "Points (95 % interval)": [_points(row) for row in contrasts.to_dict("records")],
                    "Repeats": contrasts["repeats"],
                }
            ),
            hide_index=True,
        )


def _between(contrast: str, ways: dict[str, str]) -> str:
    way, other = contrast.split(" - ")
    return f"{ways[way]} less {ways[other][:1].lower()}{ways[other][1:]}"


def _points(row: dict[str, Any]) -> str:
    said = f"{100 * row['difference']:+.1f}"
    if row["low"] is None or pd.isna(row["low"]):
        return said
    return f"{said} ({100 * row['low']:+.1f} to {100 * row['high']:+.1f})"


def taken(found: Answered, section: str, *tables: str) -> None:
    """The tables behind an answer, to take away."""
    with st.container(horizontal=True):
        for name in tables:
            table = found.table(name)
            if len(table):
                download(table, f"applications-{section}-{name}", f"Download {name} (CSV)")


# ---- the sections ---------------------------------------------------------------------------------------------------


def inversion(found: Answered) -> None:
    facts, table, curve = found.answer.facts, found.table("images"), found.table("curve")
    left, right = st.columns([2, 3], gap="large")
    with left:
        st.markdown("**As they are, and as they were found**")
        picture(
            found, "recovered", [f"{i}" for i in facts["indices"]],
            "Test images in the first row, and in the second what was recovered from the gradient of each", 96,
        )  # fmt: skip
        st.markdown("**The first of them, step by step**")
        picture(
            found, "course", [str(step) for step in facts["moments"]],
            "What the attack makes of a random image, from the first step to the last", 56,
        )  # fmt: skip
    with right:
        plot(
            applied.recovery(curve, is_dark()), "inversion",
            "Similarity of the recovered image to the original, and the distance of the gradients, against the step of "
            "the attack", curve,
        )  # fmt: skip
    st.dataframe(
        pd.DataFrame(
            {
                "Test image": table["image"],
                "Label": table["label"],
                "Read off": table["read"],
                "Fitted": table["fitted"],
                "SSIM": [f"{v:.3f}" for v in table["ssim"]],
                "Mean squared error": [f"{v:.2g}" for v in table["error"]],
                "Distance left": [f"{v:.1g}" for v in table["distance"]],
                "Starts": table["starts"],
            }
        ),
        hide_index=True,
    )
    st.caption(
        f"SSIM is 1 for the image itself; from {facts['alike_from']:g} on it counts as recovered. The gradient has "
        f"{facts['values']:,} numbers. Distance: squared, as a share of the gradient's squared norm."
    )
    with st.expander("The same objective as gradient matching", icon=":material/functions:"):
        one, two = st.columns(2)
        one.markdown("Gradient matching makes images that stand for many:")
        one.latex(r"\min_{S}\; D\big(\nabla_\theta\,\ell(S;\theta),\; \nabla_\theta\,\ell(T;\theta)\big)")
        two.markdown("The attack makes the one image behind a gradient:")
        two.latex(r"\min_{x'}\; \big\|\nabla_\theta\,\ell(x';\theta) - \nabla_\theta\,\ell(x;\theta)\big\|^2")
        st.markdown(
            "Set *Images behind it* to 16: the gradient is then the mean over images of one class, and the one image "
            "that is looked for has to stand for all of them, as a distilled one does."
        )
    taken(found, "inversion", "images", "curve")


def continual(found: Answered) -> None:
    facts, course = found.answer.facts, found.table("course")
    left, right = st.columns([3, 2], gap="large")
    with left:
        plot(
            applied.course(course, facts["ways"], facts["kinds"], is_dark(), facts["chance"]), "continual",
            "Accuracy on the classes seen so far against their number, for each kind of memory", course,
        )  # fmt: skip
        st.caption(f"Means over repeats with 95 % intervals; dotted: chance. {facts['held']} images in the end.")
    with right:
        for way, title in facts["ways"].items():
            st.caption(f"{title}, the memory of the first repeat in the order of arrival:")
            picture(found, way, facts["shown"], f"Memory of {title.lower()} images", 44)
    compared(found, "continual", ("accuracy", "forgetting"), facts["chance"])
    taken(found, "continual", "course", "groups")


def poisoning(found: Answered) -> None:
    facts = found.answer.facts
    st.caption(f"The {facts['images']} distilled images, by the label that they are shown with:")
    picture(found, "images", facts["shown"], "The distilled images, a column for each label")
    compared(found, "poisoning", ("misread", "others"))
    st.caption(
        f"Step sizes: {facts['step_size']:.3g} for distilled images, learned with them; {facts['rate']:g} for as many "
        f"real ones, those of {facts['attacked']} labelled {facts['target']}, the best of six on held-out images."
    )
    taken(found, "poisoning", "rows")


def adaptation(found: Answered) -> None:
    facts = found.answer.facts
    st.caption(f"The {facts['images']} distilled images:")
    picture(found, "images", facts["shown"], "The distilled images, a column for each class")
    compared(found, "adaptation", ("accuracy",), facts["chance"])
    st.caption(
        f"{facts['networks']} networks that know {facts['source']} and that no image was distilled with. Real images "
        "are stepped on with the size that serves them best on held-out images."
    )
    taken(found, "adaptation", "rows")


def search(found: Answered) -> None:
    facts, table, ranks = found.answer.facts, found.table("networks"), found.table("ranks")
    left, right = st.columns(2, gap="large")
    with left:
        plot(
            applied.ranks(table, facts["ways"], facts["kinds"], is_dark()), "search",
            "Accuracy of each network trained on the set, and on as many random images, against that trained on "
            "everything", table,
        )  # fmt: skip
    with right:
        st.dataframe(
            pd.DataFrame(
                {
                    "Ranked by": [facts["ways"][way] for way in ranks["way"]],
                    "Rank correlation": ["–" if pd.isna(v) else f"{v:.2f}" for v in ranks["rho"].astype(float)],
                    "p": ["–" if pd.isna(v) else f"{v:.3f}" for v in ranks["p"].astype(float)],
                    "First choice": ranks["chosen"],
                    "Below the best": [f"{100 * v:.1f} points" for v in ranks["lost"]],
                }
            ),
            hide_index=True,
        )
        seconds, distilling = facts["seconds"], facts["distilling"]
        said = f" Making the set took {distilling:.0f} s." if distilling else ""
        st.caption(
            f"Training: {seconds['set']:.0f} s on the set, {seconds['random']:.0f} s on random images, "
            f"{seconds['full']:.0f} s on all of them.{said}"
        )
    st.dataframe(
        pd.DataFrame(
            {
                "Network": table["network"],
                **{title: table[way].map(percent) for way, title in facts["ways"].items()},
                **{f"{title} (s)": table[f"{way}_seconds"].round(1) for way, title in facts["ways"].items()},
            }
        ),
        hide_index=True,
    )
    taken(found, "search", "networks", "ranks")


def data_free(found: Answered) -> None:
    facts = found.answer.facts
    shown = [way for way in facts["ways"] if way in found.answer.images]
    for first in range(0, len(shown), 3):
        for column, way in zip(st.columns(3, gap="large"), shown[first : first + 3], strict=False):
            with column:
                st.caption(f"{facts['ways'][way]}:")
                picture(found, way, facts["shown"], f"Images that students learn from: {facts['ways'][way]}", 36)
    compared(found, "data-free", ("accuracy",), facts["chance"])
    if facts["teacher_accuracy"] is not None:
        st.caption(f"The teacher, {facts['teacher']}, has {percent(facts['teacher_accuracy'])}.")
    taken(found, "data-free", "rows")


def membership(found: Answered) -> None:
    compared(found, "membership", ("auc", "tpr"), 0.5)
    left, right = st.columns(2, gap="large")
    with left:
        summary, ways = found.table("summary"), found.answer.facts["ways"]
        mine = summary[summary["measure"] == "accuracy"]
        st.markdown("**What they are worth as students**")
        st.dataframe(
            pd.DataFrame({"": [ways[way] for way in mine["way"]], "Test accuracy": interval(mine)}), hide_index=True
        )
    with right:
        for way in ("distilled", "random"):
            st.caption(f"{ways[way].split(',')[0]}, the set of the first repeat:")
            picture(found, way, found.answer.facts["shown"], f"The {way} set of the first repeat", 44)
    taken(found, "membership", "rows")


def ownership(found: Answered) -> None:
    facts, table = found.answer.facts, found.table("networks")
    ways = {way: title for way, title in facts["ways"].items() if way in set(table["way"])}
    plot(
        applied.lanes(
            table, pd.DataFrame(), "statistic", "How much surer of the set than of other images", ways, facts["kinds"],
            is_dark(), scale=1,
        ),
        "ownership", "The statistic of each network, by where it comes from; the table below holds the numbers", table,
    )  # fmt: skip
    st.dataframe(
        pd.DataFrame(
            {
                "Network": table["name"],
                "": [facts["ways"][way] for way in table["way"]],
                "Statistic": [f"{v:.2f}" for v in table["statistic"]],
                "p": [f"{v:.2g}" for v in table["p"]],
                "Verdict": ["trained from it" if v else "no sign of it" for v in table["trained_from_it"]],
            }
        ),
        hide_index=True,
    )
    st.caption(
        f"Verdict: at p < {facts['level']:g}, one-sided, not corrected for the number of networks. Each reference is "
        "judged by the others."
    )
    taken(found, "ownership", "networks")


DRAWN = {
    "inversion": inversion, "continual": continual, "poisoning": poisoning, "adaptation": adaptation,
    "search": search, "data-free": data_free, "membership": membership, "ownership": ownership,
}  # fmt: skip


# ---- the page -------------------------------------------------------------------------------------------------------


def page() -> None:
    where, state = store(), st.session_state
    st.title("Applications")
    st.write(
        "What for? What distilled images are used for, and what they, and the way they are made, can be abused for."
    )
    read_address()
    for problem in state.apply_problems:
        st.warning(problem)
    now = state.apply
    section = one_of("What is asked", SECTIONS, "apply_section", now["section"], label_visibility="collapsed")
    now["section"] = section
    st.markdown(LEADS[section], help=explain(*TERMS[section]))
    if missing(section, where):
        return write_address()
    pressed = settings(section, where)
    dataset = now["values"][section].get("dataset", "")
    if section == "poisoning" and dataset in DATASETS:
        names = ", ".join(f"{i} {name}" for i, name in enumerate(DATASETS[dataset].classes) if str(i) != name)
        if names:
            st.caption(f"Classes of {dataset_title(dataset)}: {names}.")
    write_address()
    found = put(section, pressed)
    if found is not None:
        st.markdown(f"**{found.answer.facts['headline']}**")
        DRAWN[section](found)


page()
