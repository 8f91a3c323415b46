"""Robustness: which shortcuts do students take, what makes them fail, and what of them serves another task?"""

from __future__ import annotations

from typing import Any

import pandas as pd
import streamlit as st

from engine.errors import Refused
from engine.glossary import explain
from engine.methods import METHODS
from engine.probes.desk import Desk, digest_of, question_of
from engine.probes.specs import PROBES
from engine.runs.store import Store
from engine.spec import build_spec
from engine.table import Parameter, parameters
from pages.components import address, knobs, reports, roles, stress
from pages.components.asking import Answered, ask
from pages.components.choice import named, one_of
from pages.components.grid import class_grid, data_url
from pages.components.pieces import download, figure, is_dark, percent
from pages.components.reports import Facts
from pages.components.shared import dataset_title, desk, store
from pages.components.student_form import WORDS

FIRST, MOST = 4, 8  # students shown when nothing was chosen; students that can be
SECTIONS = {
    "shortcut": "Shortcut",
    "subgroups": "Subgroups",
    "robustness": "Robustness",
    "transfer": "Transfer",
    "fooling": "Fooling",
}
LEADS = {
    "shortcut": "**Stars and moons.** In training, where a figure stands tells its class as surely as what it is. Do "
    "students of a distilled set go by the place, more or less than those of all images? The networks are trained for "
    "this: it takes minutes.",
    "subgroups": "**Who is left behind?** Test images in groups of class and background colour: the worst group and "
    "the spread over groups, beside what chance makes. Made for photographs.",
    "robustness": "**What makes it fail?** Accuracy under ten common corruptions and two attacks at three severities, "
    "and the smallest change that flips an answer. About half a minute a student on a laptop.",
    "transfer": "**What is it good for elsewhere?** Three scores foretell how well a student's features serve another "
    "dataset; beside them, what transfer really reaches.",
    "fooling": "**Who fools whom?** Examples made to mislead one student are shown to the others. Networks that fail "
    "together go by the same things.",
}
TERMS = {  # of the glossary, for the “?” of a section
    "shortcut": ("shortcut", "spurious-correlation"),
    "subgroups": ("subgroup",),
    "robustness": ("corruption", "adversarial"),
    "transfer": ("transfer", "feature"),
    "fooling": ("adversarial",),
}
OWN_WORDS = {
    "method": {m.id: m.name for m in METHODS.values()},
    "network": WORDS["network"],
    "protocol": WORDS["protocol"],
    "attack": {"pgd": "PGD", "fgsm": "FGSM"},
}
VIEWS = {"subgroups": ("of",), "robustness": ("severity", "look"), "transfer": ("score", "way"), "fooling": ("beside",)}


# ---- what is there, and what is asked ------------------------------------------------------------------------------


def rows(section: str) -> list[Parameter]:
    """The table of a section's knobs: its probe's, but for the students, who are chosen above them."""
    return [row for row in parameters(PROBES[section].spec) if (row.name, row.kind) != ("students", "text")]


def defaults(section: str) -> dict[str, Any]:
    return {row.name: row.default for row in rows(section)}


def datasets(where: Store) -> list[str]:
    """Datasets that have students, the latest first."""
    runs = where.runs(kinds=["student"], statuses=["done"], limit=1000)
    return [name for name in dict.fromkeys(run.dataset for run in runs) if reports.kept(where, name)]


# ---- the address ----------------------------------------------------------------------------------------------------


def read_address(there: list[str]) -> None:
    """Take the page's state from the address when that was changed from outside. Sentences about what is wrong with it
    are kept until something is chosen: answers that arrive draw the page anew."""
    state, query = st.session_state, address.changed("robust")
    if query is None:
        return
    section, problems = query.get("section", ""), []
    if section not in SECTIONS:
        if section:
            problems.append(f"There is no section “{section[:40]}”; there are {', '.join(SECTIONS)}.")
        section = "robustness" if there else "shortcut"
    values = defaults(section)
    problems += knobs.read(rows(section), query, values)
    for key in [k for k in state if str(k).startswith("robust")]:
        del state[key]
    students = query.get("students")
    state.robust = {
        "section": section,
        "dataset": query.get("dataset", ""),
        "students": None if students is None else [part for part in students.split(",") if part],
        "values": {section: values},
        "view": {name: query.get(name, "") for name in VIEWS.get(section, ())},
    }
    state.robust_problems = problems


def write_address() -> None:
    """Put into the address what a reload or a shared link needs to show the same."""
    now = st.session_state.robust
    section, query = now["section"], {"section": now["section"]}
    if now["dataset"]:
        query["dataset"] = now["dataset"]
    if now["students"] is not None:
        query["students"] = ",".join(now["students"])
    values = now["values"].get(section, {})
    query |= knobs.written(rows(section), values)
    query |= {name: now["view"][name] for name in VIEWS.get(section, ()) if now["view"].get(name)}
    if address.write("robust", query):
        st.session_state.robust_problems = []


def view(label: str, name: str, options: dict[str, str], default: str = "", menu: bool = True) -> str:
    """A choice of what of an answer is looked at; kept while it is hidden, and in the address."""
    now = st.session_state.robust["view"]
    before = now[name] if now.get(name) in options else default
    now[name] = one_of(label, options, f"robust_view_{name}", before, menu)
    return now[name]


# ---- asking ---------------------------------------------------------------------------------------------------------


def settings(section: str, where: Store, dataset: str) -> bool:
    """The section's form; whether its button was pressed. The values are in ``robust["values"]`` afterwards."""
    values = st.session_state.robust["values"].setdefault(section, defaults(section))
    basic = [row for row in rows(section) if not row.advanced]
    with st.form(f"robust_form_{section}"):
        for first in range(0, len(basic), 4):
            halves = st.columns(2, gap="small")
            for half, pair in zip(halves, (basic[first : first + 2], basic[first + 2 : first + 4]), strict=True):
                with half:
                    _pair(section, pair, values, where, dataset)
        with st.expander("More settings"):
            more = [row for row in rows(section) if row.advanced]
            for first in range(0, len(more), 2):
                _pair(section, more[first : first + 2], values, where, dataset)
        return st.form_submit_button(
            "Train and measure" if section == "shortcut" else "Measure", type="primary", icon=":material/play_arrow:",
            **roles.locked("measure"),
        )  # fmt: skip


def _pair(section: str, pair: list[Parameter], values: dict[str, Any], where: Store, dataset: str) -> None:
    for column, row in zip(st.columns(2, gap="small", wrap=False, vertical_alignment="bottom"), pair, strict=False):
        key = f"robust_{section}_{row.name}"
        with column:
            if row.name == "target":
                values[row.name] = _target(key, row, values[row.name], where, dataset)
                continue
            values[row.name] = knobs.draw(row, key, values[row.name], OWN_WORDS.get(row.name, {}))


def _target(key: str, row: Parameter, value: str, where: Store, dataset: str) -> str:
    """A dataset to transfer to, or a folder that is typed in."""
    options = [*(["none"] if row.default == "none" else []), *(n for n in knobs.ready(where) if n != dataset)]
    if value == dataset:
        value = "mnist" if "mnist" in options else options[0]
    options += [] if value in options else [value]
    if st.session_state.get(key) == dataset:
        del st.session_state[key]
    return st.selectbox(
        row.label,
        options,
        options.index(value),
        format_func=lambda name: name if name == "none" else dataset_title(name),
        key=key,
        help=row.help,
        accept_new_options=True,
    )


def put(section: str, pressed: bool, students: list[str]) -> Answered | None:
    """Ask the section's probe when the button is pressed; what was asked before is there without it."""
    values = dict(st.session_state.robust["values"][section])
    if section != "shortcut":
        values["students"] = ",".join(students)
    try:
        spec = build_spec(PROBES[section].spec, **values)
    except Refused as refused:
        st.error(str(refused))
        return None
    if pressed and roles.presenter():
        desk().ask(section, spec, again=True)
    elif Desk().look(digest_of(question_of(section, spec))).status == "unknown":
        button = "press the button above" if roles.presenter() else roles.only("measure it")
        st.info(f"This has not been measured with these settings: {button[:1].lower()}{button[1:].rstrip('.')}.")
        return None
    return ask(section, spec, key=f"robust_asked_{section}")


# ---- pieces of an answer --------------------------------------------------------------------------------------------


def plot(chart: Any, key: str, alt: str, table: pd.DataFrame) -> None:
    figure(chart, f"robust_figure_{key}", alt, table, f"robustness-{key}")


def picture(found: Answered, name: str, heads: list[str], alt: str, cell: int = 72) -> None:
    """A sheet of small images, crisp, with heads over its columns."""
    path = found.image(name)
    if path:
        class_grid(data_url(path, mime="image/png"), heads, alt=alt, cell=cell)


def span(low: Any, high: Any) -> str:
    return "–" if low is None or pd.isna(low) else f"{100 * low:.1f} – {100 * high:.1f} %"


def number(value: Any, digits: int = 2) -> str:
    return "–" if value is None or pd.isna(value) else f"{value:.{digits}f}"


def observers(table: pd.DataFrame, called: dict[str, str]) -> pd.DataFrame:
    """The students of a table, a row each, with the names they have on this page."""
    who = table.drop_duplicates("student")[["student", "kind"]].reset_index(drop=True)
    return who.assign(observer=[called.get(id, id) for id in who["student"]])


# ---- the sections ---------------------------------------------------------------------------------------------------


def shortcut(found: Answered, _: dict[str, str]) -> None:
    facts = found.answer.facts
    st.markdown(f"**{facts['headline']}**")
    summary, contrasts, students = (found.table(name) for name in ("summary", "contrasts", "students"))
    left, right = st.columns([3, 2], gap="large")
    with left:
        plot(
            stress.shortcut(students, summary, facts["tests"], facts["sets"], is_dark()),
            "shortcut",
            "Accuracy of students of the distilled, of random real and of all images, where position agrees with shape "
            "as in training, where it tells nothing, and where it tells the other class; the table holds the numbers",
            students,
        )
        st.caption(
            "Large markers: means over repeats, with 95 % intervals. Small: single students. Who goes by shape is as "
            "good on the right as on the left; who goes by position is wrong there."
        )
    with right:
        picture(
            found, "examples", facts["classes"] * 6,
            "Stars and moons: a row of training images, and one of each test", 34,
        )  # fmt: skip
        st.caption(
            f"Rows from the top: training, then the tests: {', '.join(t.lower() for t in facts['tests'].values())}."
        )
        columns = min(st.session_state.robust["values"]["shortcut"]["ipc"], 10)
        for half, kind in zip(st.columns(2, wrap=False), ("distilled", "random"), strict=True):
            with half:
                st.caption(f"{facts['sets'][kind]}:")
                alt = f"{facts['sets'][kind]} images of the first repeat: stars above, moons below"
                picture(found, kind, [""] * columns, alt, 64 if columns < 5 else 34)
    wide = [
        {
            "Trained on": facts["sets"][kind],
            **{
                title: percent(mine.loc[f"{test}_accuracy", "mean"]) for test, title in facts["tests"].items()
            },
            "Goes by position": percent(mine.loc["reliance", "mean"]),
            "95 % interval": span(mine.loc["reliance", "low"], mine.loc["reliance", "high"]),
            "Repeats": int(mine.loc["reliance", "repeats"]),
        }
        for kind in facts["sets"]
        for mine in [summary[summary["set"] == kind].set_index("measure")]
    ]  # fmt: skip
    st.dataframe(pd.DataFrame(wide), hide_index=True)
    st.dataframe(
        pd.DataFrame(
            {
                "Goes by position more often": [_contrast(c, facts["sets"]) for c in contrasts["contrast"]],
                "Difference": [f"{100 * d:+.1f} points" for d in contrasts["difference"]],
                "95 % interval": [
                    "–" if pd.isna(a) else f"{100 * a:+.1f} to {100 * b:+.1f} points"
                    for a, b in contrasts[["low", "high"]].itertuples(index=False)
                ],
                "Verdict": contrasts["verdict"],
            }
        ),
        hide_index=True,
    )
    with st.container(horizontal=True):
        download(summary, "shortcut")
        download(students, "shortcut-students", "Download the students (CSV)")


def _contrast(text: str, sets: dict[str, str]) -> str:
    """“distilled - full” in words."""
    one, other = text.split(" - ")
    return f"{sets[one]} than {sets[other].lower()}"


def subgroups(found: Answered, called: dict[str, str]) -> None:
    groups, summary, colours = (found.table(name) for name in ("groups", "summary", "colours"))
    who = observers(summary, called)
    left, right = st.columns([3, 2], gap="large")
    with left:
        plot(
            stress.strip(groups, summary, who, is_dark()), "subgroups",
            "Accuracy of each group of class and background colour, a lane for each student; the table below has the "
            "worst group and the spread", groups,
        )  # fmt: skip
        st.caption(
            "Small markers: groups. Large: the worst. Solid line: all images. Dotted line: where the worst group lies "
            "on average when colours are shuffled within classes."
        )
    with right:
        names = dict(zip(who["student"], who["observer"], strict=True))
        chosen = view("Groups of", "of", names)
        mine = groups[groups["student"] == chosen]
        plot(
            stress.group_map(mine, is_dark()), "groups",
            f"Accuracy of {names[chosen]} in percent for each class and background colour", mine,
        )  # fmt: skip
        st.caption(f"Percent right. Empty: fewer than {found.answer.facts['smallest']} images.")
    st.dataframe(
        pd.DataFrame(
            {
                "Student": who["observer"],
                "All images": summary["average"].map(percent),
                "Mean over groups": summary["macro_mean"].map(percent),
                "Worst group": summary["worst"].map(percent),
                "95 % interval": [span(a, b) for a, b in zip(summary["worst_low"], summary["worst_high"], strict=True)],
                "Which": summary["worst_group"],
                "Worst by chance": summary["worst_by_chance"].map(percent),
                "Spread (MacroStd)": summary["macro_std"].map(percent),
                "Spread by chance": summary["macro_std_by_chance"].map(percent),
                "p": [f"{p:.3f}" for p in summary["p"]],
                "Groups": summary["groups"],
            }
        ),
        hide_index=True,
    )
    st.caption(
        "Spread: standard deviation of the groups' accuracies, each group counting the same. p: how often shuffled "
        "colours give a spread as large."
    )
    path = found.image("backgrounds")
    if path:
        st.image(
            str(path), alt="Test images by background colour, a row each",
            caption="A row for each background, from the top: "
            + ", ".join(f"{c} ({n:,})" for c, n in zip(colours["colour"], colours["images"], strict=True)),
        )  # fmt: skip
    with st.container(horizontal=True):
        download(groups, "subgroups")
        download(summary, "subgroups-summary", "Download the summary (CSV)")


def robustness(found: Answered, called: dict[str, str]) -> None:
    facts = found.answer.facts
    accuracy, summary, radii = (found.table(name) for name in ("accuracy", "summary", "radii"))
    who, chance = observers(summary, called), float(summary["chance"].iloc[0])
    titles = dict(zip(accuracy["perturbation"], accuracy["title"], strict=True))
    left, right = st.columns([3, 2], gap="large")
    with left:
        severity = int(view("Severity", "severity", {s: s for s in "123"}, "2", menu=False))
        shown = accuracy[(accuracy["severity"] == severity) | (accuracy["perturbation"] == "clean")]
        plot(
            stress.lanes(shown, titles, "perturbation", who, chance, is_dark()), "lanes",
            f"Accuracy of each student under each corruption and attack at severity {severity}; the data can be "
            "downloaded below", shown,
        )  # fmt: skip
    with right:
        looks = {"mean": "Mean of all corruptions", **{k: v for k, v in titles.items() if k != "clean"}}
        look = view("Against severity", "look", looks)
        against = _against_severity(accuracy, look)
        plot(
            stress.over_severity(against, who, chance, _strengths(found, look), is_dark()),
            "severity",
            f"Accuracy of each student against severity: {looks[look]}",
            against,
        )
        if facts["searched"]:
            plot(
                stress.holding(radii, who, is_dark()), "radii",
                "Share of the searched images whose right answer holds, against the radius of the attack", radii,
            )  # fmt: skip
            st.caption(
                f"{facts['searched']} images: the smallest radius at which PGD changes a right answer "
                f"(MinParamPerturbation), searched up to {facts['reach']}/255."
            )
    st.dataframe(
        pd.DataFrame(
            {
                "Student": who["observer"],
                "As they are": summary["clean"].map(percent),
                "Corrupted, mean": summary["corrupted"].map(percent),
                "Kept": summary["kept"].map(percent),
                **{
                    f"{title} {s}": summary[f"{attack}_{s}"].map(percent)
                    for attack, title in (("fgsm", "FGSM"), ("pgd", "PGD"))
                    for s in (1, 2, 3)
                    if facts["attacked"]
                },
                "Median smallest radius": [_median(row, facts["reach"]) for _, row in summary.iterrows()],
            }
        ),
        hide_index=True,
    )
    st.markdown("**Corruptions**, severity 0 to 3 from the top")
    picture(
        found, "corruptions", [c["name"] for c in facts["corruptions"].values()],
        "A test image under each corruption, a row for each severity",
    )  # fmt: skip
    if facts["attacked"]:
        st.markdown(f"**Attacks** (PGD, radius {facts['radii'][2]:g}/255)")
        pairs = st.columns(2, gap="large")
        with pairs[0]:
            st.caption("As they are, and what they are:")
            picture(found, "attacked", facts["shown"], "Test images before the attack")
        for i, (id, said) in enumerate(facts["said"].items(), 1):
            with pairs[i % 2]:
                st.caption(f"Made on {called.get(id, id)}, and what it says now; below, what was changed, enlarged:")
                picture(found, f"attack-{i - 1}", said, f"Adversarial images made on {called.get(id, id)}")
    with st.container(horizontal=True):
        download(accuracy, "robustness")
        download(summary, "robustness-summary", "Download the summary (CSV)")
        if facts["searched"]:
            download(radii, "robustness-radii", "Download the radii (CSV)")


def _against_severity(accuracy: pd.DataFrame, look: str) -> pd.DataFrame:
    """Rows for severity 0 to 3 of one perturbation, or of the mean over all corruptions."""
    own = accuracy[accuracy["perturbation"] == look]
    if 0 in set(own["severity"]):  # attacks have their own images, and so their own severity 0
        return own
    clean = accuracy[accuracy["perturbation"] == "clean"]
    if look != "mean":
        return pd.concat([clean, own])
    mean = accuracy[accuracy["family"] == "corruption"].groupby(["student", "severity"], as_index=False)["accuracy"]
    return pd.concat([clean, mean.mean().assign(low=None, high=None)])


def _strengths(found: Answered, look: str) -> list[str]:
    """What the severities of a perturbation mean."""
    facts = found.answer.facts
    if look in facts["corruptions"]:
        strengths = facts["corruptions"][look]["strengths"]
    elif look in ("fgsm", "pgd"):
        strengths = facts["radii"]
    else:
        return ["0", "1", "2", "3"]
    return ["0", *(f"{i + 1}<br>({value:.3g})" for i, value in enumerate(strengths))]


def _median(row: pd.Series, reach: int) -> str:
    if not row["searched"]:
        return "–"
    return f"> {reach}/255" if pd.isna(row["median_radius"]) else f"{row['median_radius']:g}/255"


def transfer(found: Answered, called: dict[str, str]) -> None:
    facts = found.answer.facts
    table, accuracy, correlations = (found.table(name) for name in ("students", "accuracy", "correlations"))
    who, ways = observers(table, called), {k: v for k, v in facts["ways"].items() if k in set(accuracy["way"])}
    left, right = st.columns([3, 2], gap="large")
    with left:
        st.markdown(f"**What transfer to {facts['title']} reaches**")
        plot(
            stress.lanes(accuracy, ways, "way", who, facts["chance"], is_dark()), "transfer",
            "Accuracy that each student's features reach on the target dataset; the table below holds the numbers",
            accuracy,
        )  # fmt: skip
        st.caption(
            f"{facts['images']:,} training images of the target, {facts['tested']:,} to test on. Fixed features: a "
            "logistic regression on what the student sees in them. Fine-tuned: the whole network, "
            f"{facts['steps']} steps; from random weights: the same without what was learned before."
        )
    with right:
        st.markdown("**Do the scores foretell it?**")
        score = view("Score", "score", facts["scores"])
        reached = {name: title for name, title in ways.items() if name != "scratch"}
        way = view("Accuracy reached", "way", reached, menu=False)
        shown = table.assign(label=[called.get(id, id) for id in table["student"]], reached=100 * table[way])
        plot(
            stress.against(shown, "student", score, "reached", (facts["scores"][score], f"{ways[way]} (%)"), who,
                           is_dark()),
            "scores", f"Accuracy reached against {facts['scores'][score]}, a marker for each student", shown,
        )  # fmt: skip
        rho = {(c["score"], c["way"]): c for c in found.answer.tables["correlations"]}.get((score, way))
        if rho and rho["spearman"] is not None:
            st.caption(f"Spearman's ρ = {rho['spearman']:.2f} over {rho['students']} students (p = {rho['p']:.2f}).")
    st.dataframe(
        pd.DataFrame(
            {
                "Student": who["observer"],
                **{title: [number(v, 3) for v in table[name]] for name, title in facts["scores"].items()},
                **{title: table[name].map(percent) for name, title in ways.items()},
            }
        ),
        hide_index=True,
    )
    st.caption(
        "LEEP (Nguyen et al. 2020) and NCE (Tran et al. 2019) are at most 0, H-score (Bao et al. 2019) lies between 0 "
        "and the number of classes less one; for all of them higher is better."
    )
    with st.container(horizontal=True):
        download(table, "transfer")
        download(accuracy, "transfer-accuracy", "Download the accuracies (CSV)")
        if len(correlations):
            download(correlations, "transfer-correlations", "Download the correlations (CSV)")


def fooling(found: Answered, called: dict[str, str]) -> None:
    facts = found.answer.facts
    pairs, table, moved = (found.table(name) for name in ("pairs", "students", "transfer"))
    who = observers(table, called)
    left, right = st.columns([3, 2], gap="large")
    with left:
        plot(
            stress.matrix(pairs, who, is_dark()), "matrix",
            "How often examples made on each student fool each of the others; the data can be downloaded below", pairs,
        )  # fmt: skip
        st.caption(
            " · ".join(f"**{i}** {name}" for i, name in enumerate(who["observer"], 1))
            + f". Percent of what both get right. {facts['attack'].upper()}, radius {facts['epsilon']:g}/255. "
            "The diagonal is the success on the student that an attack was made on."
        )
    with right:
        measures = {"agreement": "Agreement on images as they are"}
        if len(moved):
            title = dataset_title(facts["target"])
            measures |= {
                "fixed": f"Fixed features on {title}", "tuned": f"Fine-tuned to {title}", "leep": f"LEEP for {title}",
                "nce": f"NCE for {title}", "h_score": f"H-score for {title}",
            }  # fmt: skip
        beside = view("Fooling beside", "beside", measures)
        shown, column = _beside(pairs, moved, beside, called)
        unit = "" if beside in ("leep", "nce", "h_score") else " (%)"
        plot(
            stress.against(shown, column, "x", "fools", (f"{measures[beside]}{unit}", "Fools (%)"), who, is_dark()),
            "beside", f"Share fooled against: {measures[beside]}", shown,
        )  # fmt: skip
        if beside == "agreement":
            rho = facts["spearman"]
            text = "A marker for each pair, in the look of the student the examples were made on."
        else:
            rho = {c["measure"]: c["spearman"] for c in found.answer.tables["correlations"]}.get(beside)
            text = "A marker for each student: the mean over all others it is shown to."
        st.caption(text + ("" if rho is None else f" Spearman's ρ = {rho:.2f}."))
    st.dataframe(
        pd.DataFrame(
            {
                "No.": [i + 1 for i in range(len(who))],
                "Student": who["observer"],
                "Right as they are": table["clean"].map(percent),
                "Fooled by noise of the same size": table["fooled_by_noise"].map(percent),
                "95 % interval": [span(a, b) for a, b in zip(table["low"], table["high"], strict=True)],
                **(
                    {"Fools others": moved["fools_others"].map(percent), "LEEP": moved["leep"].map(number),
                     "H-score": moved["h_score"].map(number), "Fixed features": moved["fixed"].map(percent),
                     "Fine-tuned": moved["tuned"].map(percent)}
                    if len(moved) else {}
                ),
            }
        ),
        hide_index=True,
    )  # fmt: skip
    picture(found, "examples", facts["shown"], "Test images, and what was made of them on each student, a row each")
    st.caption(
        "Rows from the top: as they are; made on " + ", ".join(called.get(i, i) for i in facts["students"]) + "."
    )
    with st.container(horizontal=True):
        download(pairs, "fooling")
        download(table, "fooling-students", "Download the students (CSV)")
        if len(moved):
            download(moved, "fooling-transfer", "Download the transfer (CSV)")


def _beside(pairs: pd.DataFrame, moved: pd.DataFrame, beside: str, called: dict[str, str]) -> tuple[pd.DataFrame, str]:
    """What is drawn against fooling, in percent where it is a share: pairs of students, or students."""
    if beside == "agreement":
        others = pairs[(pairs["made_on"] != pairs["shown_to"]) & pairs["fooled"].notna()]
        labels = [
            f"{called.get(a, a)} → {called.get(b, b)}"
            for a, b in zip(others["made_on"], others["shown_to"], strict=True)
        ]
        shares = {"x": 100 * others["agreement"], "fools": 100 * others["fooled"].astype(float)}
        return others.assign(label=labels, **shares), "made_on"
    scale = 100 if beside in ("fixed", "tuned") else 1
    shown = moved[moved["fools_others"].notna()]
    labels = [called.get(id, id) for id in shown["student"]]
    return shown.assign(label=labels, x=scale * shown[beside], fools=100 * shown["fools_others"]), "student"


DRAWN = {
    "shortcut": shortcut, "subgroups": subgroups, "robustness": robustness, "transfer": transfer, "fooling": fooling,
}  # fmt: skip


# ---- the page -------------------------------------------------------------------------------------------------------


def choose(where: Store, there: list[str]) -> tuple[str, dict[str, Facts], list[str]]:
    """The dataset, all of its students, and the ids of those that are questioned."""
    state = st.session_state
    now = state.robust
    if now["dataset"] not in there:
        asked = where.run((now["students"] or [""])[0])
        if now["dataset"]:
            st.info(f"There is no student of a dataset “{now['dataset'][:80]}” here.")
        now["dataset"] = asked.dataset if asked and asked.dataset in there else there[0]
    left, right = st.columns([1, 3])
    with left:
        dataset = one_of(
            "Dataset", {name: dataset_title(name) for name in there}, "robust_dataset", now["dataset"], menu=True,
            help="Students can only be compared when they know the same classes.",
        )  # fmt: skip
    if dataset != now["dataset"]:  # it has students of its own
        now.update(dataset=dataset, students=None)
        state.pop("robust_students", None)
    known = reports.kept(where, dataset)
    called = reports.names(known)
    if "robust_students" not in state:
        state.robust_students = list(known)[:FIRST] if now["students"] is None else now["students"]
    lost = [id for id in state.robust_students if id not in known]
    if lost:
        st.info(
            f"Left out, because {dataset_title(dataset)} has no such student: {', '.join(x[:60] for x in lost[:5])}."
        )
    state.robust_students = list(dict.fromkeys(id for id in state.robust_students if id in known))[:MOST]
    chosen = right.multiselect(
        "Students", list(known), format_func=named(called), key="robust_students", max_selections=MOST, wrap=True,
        help=f"Up to {MOST} trained students: say of a distilled set, of random real images, and of all images.",
    )  # fmt: skip
    now["students"] = chosen
    return dataset, known, chosen


def page() -> None:
    where, state = store(), st.session_state
    st.title("Robustness")
    st.write("What do students of a handful of images go by, what makes them fail, and what else are they good for?")
    there = datasets(where)
    read_address(there)
    for problem in state.robust_problems:
        st.warning(problem)
    now = state.robust
    section = one_of("What is asked", SECTIONS, "robust_section", now["section"], label_visibility="collapsed")
    now["section"] = section
    st.markdown(LEADS[section], help=explain(*TERMS[section]))

    dataset, known, chosen = "", dict[str, Any](), list[str]()
    if section != "shortcut":
        if not there:
            st.info("No student is trained yet. Train one on a distilled set, and one on all images, and come back.")
            st.page_link("pages/students.py", label="Train a student", icon=":material/school:")
            return write_address()
        dataset, known, chosen = choose(where, there)
        if not chosen:
            st.info("Choose one or more students above.")
            return write_address()
    pressed = settings(section, where, dataset)
    write_address()
    found = put(section, pressed, chosen)
    if found is not None:
        called = {id: name.split(" ", 1)[1] for id, name in reports.names(known).items()}  # figures have markers
        DRAWN[section](found, called)
        write_address()


page()
