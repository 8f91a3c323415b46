"""Attribution: which pixels, and which training images, make students give their answers?"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pandas as pd
import streamlit as st
from pydantic import BaseModel

from engine.errors import Refused
from engine.home import limbeck_home
from engine.probes.attribution.specs import (
    METHOD_INFO,
    AgreementSpec,
    AttributionSpec,
    ContextSpec,
    DisagreeSpec,
    DistilledSpec,
    InfluenceSpec,
    QualitySpec,
    SanitySpec,
)
from engine.probes.desk import digest_of, question_of
from engine.runs.store import Store
from engine.spec import Parameter, allowed, build_spec, parameters
from pages.components import canvas, comparison, form, maps, reports
from pages.components.asking import Answered, ask
from pages.components.grid import data_url
from pages.components.reports import Facts
from pages.components.shared import dataset_title, desk, store

MOST, MOST_COMPARED = 4, 12  # students side by side; students in the matrix of distances
MASKED = ("shapes",)  # datasets that say where the object is
FILL = {"mnist": 20 / 28, "digits": 1.0}  # how much of the picture a digit's larger side fills in the dataset
SECTIONS = {
    "maps": "Maps",
    "influence": "Which training image did it?",
    "quality": "Quality & agreement",
    "context": "Object or context?",
    "distilled": "The distilled image itself",
}
LEADS = {
    "maps": "Which pixels speak for an answer, and do the students look at the same ones?",
    "influence": "Which images that a student was trained on pushed its answer up or down?",
    "quality": "Can one trust the maps, and how far are the students from each other by what they look at?",
    "context": "How much of the attribution lies on the object, and what is left of the answers when object or context "
    "change?",
    "distilled": "What do students look at in a synthetic image, and how far is it from a natural one?",
}
PICKS = {"class": "By class", "disagree": "Disputed", "upload": "Upload", "draw": "Draw"}
VIEWS = {"agreement": "Agreement and distance", "metrics": "Quality of the maps"}
WHOM = {"chosen": "These students", "all": f"All students (newest {MOST_COMPARED})"}
SCOPES = {"all": "Test images with masks", "one": "One image, a mask I paint"}
SHARES = {"object_share": "Attribution on the object", "accuracy": "Accuracy", "kept": "Answer unchanged"}
MATRICES = {"distance": "Distance", "rank_correlation": "Rank correlation", "overlap": "Overlap of the top pixels"}
ANY = "any class"
WORDS = {
    "method": {m.id: m.name for m in METHOD_INFO.values()},
    "context_method": {m.id: m.name for m in METHOD_INFO.values()},
    "baseline": {"blurred": "Blurred", "mean": "Average image", "black": "Black", "noise": "Noise"},
    "scale": {"share": "Shares", "logit": "Logits"},
    "layers": {"last": "Last layer (a moment)", "all": "All layers (seconds)"},
}


def _own(table: type[BaseModel], **names: str) -> dict[str, Parameter]:
    """Rows of a table under the page's names for them, which are also their keys in the address."""
    rows = {row.name: row for row in parameters(table)}
    return {name: replace(rows[row], name=name, key=name) for name, row in names.items()}


SHARED = ("method", "steps", "samples", "noise", "window", "stride", "superpixels", "baseline", "smooth", "seed")
ROWS = {
    **{row.name: row for row in parameters(AttributionSpec) if row.name in (*SHARED, "scale")},
    **_own(InfluenceSpec, layers="layers", count="count"),
    **_own(QualitySpec, methods="methods", quality_images="images", perturbations="perturbations"),
    **_own(AgreementSpec, agreement_images="images", share="share"),
    **_own(ContextSpec, context_method="method", context_images="images"),
    **_own(DistilledSpec, indices="indices", neighbours="neighbours"),
}
CHOICES = {  # words of the address that are no parameter of a probe, and what they may be; the first is the default
    "section": SECTIONS,
    "view": VIEWS,
    "whom": WHOM,
    "scope": SCOPES,
    "shown": SHARES,
    "matrix": MATRICES,
    "metric": {name: "" for name in ("unexplained", "infidelity", "sensitivity", "deletion", "insertion")},
}


# ---- the address ----------------------------------------------------------------------------------------------------


def read_address(where: Store) -> list[str]:
    """Take the page's state from the address when that was changed from outside; sentences about what is wrong."""
    state, query = st.session_state, st.query_params.to_dict()
    if "attribution" in state and (not query or query == state.get("attribution_written")):
        return []
    values: dict[str, Any] = {name: row.default for name, row in ROWS.items()}
    values |= {name: next(iter(words)) for name, words in CHOICES.items()}
    values |= {"students": None, "pick": "class", "images": {}, "target": "predicted", "check": "", "mask": ""}
    values["context_target"] = "predicted"
    problems = []
    for name, row in ROWS.items():
        if (text := query.get(row.key)) is None:
            continue
        value = text[:500] if row.kind == "text" else form.parse(row, text)
        if value is None:
            problems.append(f"The link asked for {row.label.lower()} “{text[:40]}”, but that must be {allowed(row)}.")
        else:
            values[name] = value
    for name, words in CHOICES.items():
        if query.get(name) in words:
            values[name] = query[name]
    for name in ("check", "mask", "run"):
        values[name] = query.get(name, "")[:200]
    values["target"] = query.get("target", "predicted")[:100]
    if query.get("context_target") == "true":
        values["context_target"] = "true"
    if "students" in query:
        values["students"] = [id for id in query["students"].split(",") if id]
    image, kind = query.get("image", "test:0")[:200], query.get("image", "test:0").partition(":")[0]
    picks = {"test": ("class", "disagree"), "file": ("upload", "draw")}.get(kind, ("other",))
    picks = picks if "image" in query else tuple(PICKS)
    values["pick"] = query["pick"] if query.get("pick") in picks else picks[0]
    if kind not in ("test", "train", "synthetic", "file"):
        problems.append(f"The link names no image with “{image[:40]}”; this is the first test image.")
        values["pick"], image = "class", "test:0"
    values["images"] = {values["pick"]: image} if "image" in query or values["pick"] == "class" else {}
    first = next((run for id in values["students"] or [] if (run := where.run(id))), None)
    values["dataset"] = query.get("dataset") or (first.dataset if first else "")
    state.attribution = values
    for key in [k for k in state if str(k).startswith("attribution_") and k != "attribution_written"]:
        del state[key]
    return problems


def write_address() -> None:
    """Put into the address what a reload or a shared link needs to show the same."""
    values = st.session_state.attribution
    query = {key: values[key] for key in ("dataset", "section", "pick")}
    query["students"] = ",".join(values["students"])
    query["image"] = values["images"].get(values["pick"], "")
    for name, row in ROWS.items():
        if values[name] not in (None, row.default):
            query[row.key] = str(int(values[name])) if row.kind == "bool" else str(values[name])
    for name, words in CHOICES.items():
        if values[name] != next(iter(words)):
            query[name] = values[name]
    for name, default in {
        "target": "predicted",
        "context_target": "predicted",
        "check": "",
        "mask": "",
        "run": "",
    }.items():
        if values[name] != default:
            query[name] = values[name]
    query = {key: value for key, value in query.items() if value}
    st.session_state.attribution_written = query
    if st.query_params.to_dict() != query:
        st.query_params.from_dict(query)


# ---- pieces of the page ---------------------------------------------------------------------------------------------


def field(name: str, draw: Callable[[str], Any]) -> Any:
    """A widget that ``draw`` makes under a key, showing and keeping the page's value of this name."""
    state, key = st.session_state, f"attribution_{name}"
    if key not in state:  # it was not on the page for a while
        state[key] = state.attribution[name]
    state.attribution[name] = draw(key)
    return state.attribution[name]


def row(name: str, label: str = "") -> Any:
    """The widget of a parameter."""
    found = replace(ROWS[name], label=label) if label else ROWS[name]
    return field(name, lambda key: form.draw(found, key, WORDS.get(name, {}), found.help))


def one_of(name: str, words: dict[str, str], label: str, hide: bool = True) -> str:
    """A choice that is always made."""
    if st.session_state.attribution[name] not in words:
        st.session_state.attribution[name] = next(iter(words))
        st.session_state.pop(f"attribution_{name}", None)
    before = st.session_state.attribution[name]
    return field(
        name,
        lambda key: st.segmented_control(
            label, list(words), format_func=words.get, key=key, required=True,
            label_visibility="collapsed" if hide else "visible",
        ) or before,  # a busy browser may send that nothing is chosen
    )  # fmt: skip


def spec_of(table: type[BaseModel], values: dict[str, Any]) -> Any:
    """The question, or None where it cannot be put; a refusal is shown."""
    try:
        return build_spec(table, **values)
    except Refused as refused:
        st.error(str(refused))
        return None


def put(probe: str, table: type[BaseModel], values: dict[str, Any], press: str = "") -> Answered | None:
    """Ask a probe. ``press``: of a long one, what it takes; it is asked when a button is pressed."""
    spec = spec_of(table, values)
    if spec is None:
        return None
    if press and desk().look(digest_of(question_of(probe, spec))).status == "unknown":
        st.info(press)
        if not st.button("Measure", type="primary", icon=":material/play_arrow:"):
            return None
    return ask(probe, spec, f"attribution_{probe}")


def figure(chart: Any, key: str, alt: str) -> None:
    st.plotly_chart(chart, key=key, config={"displayModeBar": False}, alt=alt)


def download(table: pd.DataFrame | Callable[[], str], what: str, label: str = "Download the data (CSV)") -> None:
    st.download_button(
        label, table if callable(table) else table.to_csv(index=False), f"limbeck-{what}.csv", "text/csv",
        icon=":material/download:", on_click="ignore", key=f"download-{what}",
    )  # fmt: skip


def percent(value: Any, digits: int = 1) -> str:
    return "–" if value is None or pd.isna(value) else f"{100 * value:.{digits}f} %"


def number(value: Any) -> str:
    return "–" if value is None or pd.isna(value) else f"{value:.3g}"


def interval(table: pd.DataFrame, name: str = "", share: bool = True) -> list[str]:
    """A value of a table's rows with its 95 % interval."""
    columns = [name, f"{name}_low", f"{name}_high"] if name else ["mean", "low", "high"]
    show = percent if share else "{:.2f}".format if name else number
    rows = table[columns].astype(float).itertuples(index=False)
    return ["–" if pd.isna(m) else f"{show(m)} ({show(a)} to {show(b)})" for m, a, b in rows]


def is_dark() -> bool:
    return st.context.theme.type == "dark"


def who_of(found: Answered, called: dict[str, str]) -> pd.DataFrame:
    """The answer's students for the figures."""
    students = pd.DataFrame(found.answer.facts["students"])
    return students.assign(observer=[called.get(id, name) for id, name in students[["id", "name"]].to_numpy()])


# ---- what is asked about --------------------------------------------------------------------------------------------


def image_form(students: list[str], known: dict[str, Facts]) -> str:
    """Choose an image; how probes name it, or nothing as long as there is none."""
    values, facts = st.session_state.attribution, known[students[0]]
    words = {**PICKS, "other": "From the link"} if "other" in values["images"] else PICKS
    picked = one_of("pick", words, "Image", hide=False)
    if picked == "other":
        st.caption(values["images"]["other"])
    else:
        chooser = {"class": by_class, "disagree": by_disagreement, "upload": by_upload, "draw": by_drawing}[picked]
        try:
            if text := chooser(students, facts):
                values["images"][picked] = text
        except Refused as refused:
            st.error(str(refused))
    return values["images"].get(values["pick"], "")


def by_class(_: list[str], facts: Facts) -> str:
    """A test image of a class by its number there, or by its number among all."""
    state = st.session_state
    classes = [str(name) for name in facts["classes"]]
    if "attribution_number" not in state or state.get("attribution_class") not in (ANY, *classes):
        name, _, at = state.attribution["images"].get("class", "test:0").removeprefix("test:").rpartition(":")
        state.attribution_class = name if name in classes else ANY
        state.attribution_number = int(at) if at.isdecimal() and len(at) < 9 else 0
    with st.container(horizontal=True, vertical_alignment="bottom", gap="small"):
        name = st.selectbox("Class", [ANY, *classes], key="attribution_class", width=130, help="What the image shows.")
        total = facts["test_images"] if name == ANY else sum(facts["confusion"][classes.index(name)])
        state.attribution_number = min(state.attribution_number, max(total - 1, 0))
        at = st.number_input(
            "Number", 0, max(total - 1, 0), step=1, key="attribution_number", width=120,
            help=f"Which of the {total:,} test images {'' if name == ANY else f'of class {name} '}it is.",
        )  # fmt: skip
        st.button(
            "Other", icon=":material/casino:", help="A far one", key="attribution_dice", on_click=any_other,
            args=(total,),
        )  # fmt: skip
    return f"test:{at}" if name == ANY else f"test:{name}:{at}"


def any_other(total: int) -> None:
    """Jump to a far image; over time to all of them."""
    st.session_state.attribution_number = (st.session_state.attribution_number + 7919) % max(total, 1)


def by_disagreement(students: list[str], _: Facts) -> str:
    """A test image on which the students differ, from a list of those where they differ most."""
    if len(students) < 2:
        st.info("It takes two students to disagree: choose another one above.")
        return ""
    found = put("disagree", DisagreeSpec, {"students": ",".join(students)})
    if found is None:
        return ""
    images, answers = found.table("images"), found.table("answers")
    said = answers.groupby("index", sort=False)["class"].agg(" · ".join)
    now = st.session_state.attribution["images"].get("disagree", "")
    at = [f"test:{index}" for index in images["index"]]
    default = {"selection": {"rows": [at.index(now) if now in at else 0]}}
    marked = st.dataframe(
        pd.DataFrame(
            {
                "Image": [picture(found, f"image-{i}") for i in range(len(images))],
                "It is": images["class"],
                "They say": [said[index] for index in images["index"]],
                "Bits": images["divergence"],
            }
        ),
        hide_index=True, height=250, row_height=44, on_select="rerun", selection_mode="single-row",
        selection_default=default, key=f"attribution_list_{found.digest[:8]}",
        column_config={
            "Image": st.column_config.ImageColumn(width="small"),
            "Bits": st.column_config.NumberColumn(
                format="%.2f", help="Jensen-Shannon divergence of their probabilities: 0 when all say the same."
            ),
        },
        alt="Test images on which the students differ most; mark a row to look at it",
    )  # fmt: skip
    facts = found.answer.facts
    st.caption(f"Of {facts['scanned']:,} test images they answer {percent(facts['disagreed'])} differently.")
    rows = marked["selection"]["rows"]
    return at[rows[0]] if rows else (now or at[0])


def picture(found: Answered, name: str) -> str | None:
    """A small picture of an answer as a URL that carries it: tables take no other."""
    path = found.image(name)
    return data_url(path, mime="image/png") if path else None


def by_upload(_: list[str], facts: Facts) -> str:
    """A picture of one's own."""
    upload = st.file_uploader(
        "A picture", ["png", "jpg", "jpeg", "webp"], key="attribution_upload", max_upload_size=20,
        help=f"Its central square is shown to the students at {facts.get('size', 32)} pixels.",
    )  # fmt: skip
    return canvas.keep(canvas.opened(upload.getvalue()), limbeck_home()) if upload else ""


def by_drawing(_: list[str], facts: Facts) -> str:
    """A picture drawn here."""
    fill = FILL.get(facts["dataset"])
    url = canvas.board(
        key="attribution_board", label="Drawing board" if fill is None else "Board to draw a digit on",
        colours=facts.get("channels") == 3,
    )  # fmt: skip
    state = st.session_state
    if not url:
        if state.pop("attribution_drew", False):  # it was cleared
            state.attribution["images"].pop("draw", None)
        return ""
    state.attribution_drew = True
    drawing = canvas.drawn(url)
    return canvas.keep(canvas.centred(drawing, fill) if fill else drawing, limbeck_home())


def target_form(image: str, facts: Facts) -> str:
    """Which answer is explained."""
    classes = [str(name) for name in facts["classes"]]
    words = {"predicted": "Each student's own answer", "true": "What it really is"}
    if image.startswith("file:"):
        words.pop("true")
    options = [*words, *(name for name in classes if name not in words)]
    values = st.session_state.attribution
    if values["target"] not in options or st.session_state.get("attribution_target", options[0]) not in options:
        values["target"] = "predicted"
        st.session_state.pop("attribution_target", None)
    return field(
        "target",
        lambda key: st.selectbox(
            "Answer to explain", options, format_func=lambda t: words.get(t, f"Class {t}"), key=key,
            help="The class whose logit is attributed to the pixels. One class asks all students the same question.",
        ),
    )  # fmt: skip


def method_form(name: str = "method", wide: bool = False) -> dict[str, Any]:
    """Choose a method and turn its knobs; the values of its spec."""
    values = st.session_state.attribution
    place = st.columns(4, vertical_alignment="bottom") if wide else None
    with place[0] if place else st.container():
        method = row(name)
    info = METHOD_INFO[method]
    knobs = list(info.knobs)
    if info.gradient:
        knobs.append("smooth")
        if values["smooth"]:
            knobs += ["samples", "noise"]
    for i, knob in enumerate(knobs):
        if not wide and i % 2 == 0:
            place = [None, *st.columns(2, vertical_alignment="bottom", gap="small", wrap=False)]
        with place[1 + (i % 2 if not wide else i % 3)]:
            row(knob)
    if info.id == "occlusion" and values["stride"] > values["window"]:
        st.caption("The stride is at most the window, so that no pixel is left out.")
    chosen = {knob: values[knob] for knob in SHARED if knob != "method"}
    chosen |= {"method": method, "smooth": values["smooth"] and info.gradient}
    return {**chosen, "stride": min(values["stride"], values["window"])}


def about(method: str) -> None:
    """What a method can show and what it cannot."""
    info = METHOD_INFO[method]
    smooth = info.gradient and st.session_state.attribution["smooth"]
    more = " Averaged over noisy copies, at as many times the cost." if smooth else ""
    st.markdown(
        f"**What it shows.** {info.shows} **Its limits.** {info.cannot} **Cost.** {info.cost}{more}",
        help=info.paper,
    )


def fits_none(method: str, students: list[str], known: dict[str, Facts]) -> bool:
    """Whether the method is right for none of the students; then says why."""
    reasons = [METHOD_INFO[method].valid_for(known[id]["network"]) for id in students]
    if all(reasons):
        st.info(" ".join(dict.fromkeys(reasons)))
    return all(reasons)


# ---- maps -----------------------------------------------------------------------------------------------------------


def show_maps(students: list[str], known: dict[str, Facts], called: dict[str, str]) -> None:
    left, right = st.columns([1.1, 2.3], gap="large")
    with left:
        image = image_form(students, known)
        target = target_form(image, known[students[0]])
        chosen = method_form()
        with st.popover("More settings", icon=":material/tune:", width="stretch"):
            scale, _ = row("scale"), row("seed")
    with right:
        if not image:
            st.info("Choose, upload or draw an image, and the students' maps of it appear here.")
            return
        if fits_none(chosen["method"], students, known):
            return
        asked = {"students": ",".join(students), "image": image, "target": target, **chosen}
        pictures = st.container()
        found = put("attribution", AttributionSpec, {**asked, "scale": scale})
        if found is None:
            last = st.session_state.get("attribution_last")
            answer = desk().look(last).answer if last else None
            if answer is not None and answer.facts["students"][0]["id"] in known:
                pictures.html(f'<div style="opacity:.4">{cards(Answered(last, answer), called)}</div>')
                st.caption("Pale: the answer before.")
            return
        st.session_state.attribution_last = found.digest
        pictures.html(cards(found, called))
        about(chosen["method"])
        with st.container(horizontal=True, gap="small", vertical_alignment="center"):
            checked = st.session_state.attribution["check"]
            st.button(
                "Close the sanity check" if checked else "Sanity check", icon=":material/rule:", on_click=check,
                args=("" if checked else students[0],), type="secondary" if checked else "primary",
                help="Does the map change when the student forgets, layer by layer? (Adebayo et al. 2018)",
            )  # fmt: skip
            with st.popover("Numbers", icon=":material/table:"):
                map_numbers(found)
            download(lambda: pixel_table(found).to_csv(index=False), "maps", "Maps (CSV)")
        if checked:
            sanity(asked, students, known, called)


def check(student: str) -> None:
    st.session_state.attribution["check"] = student
    st.session_state.pop("attribution_check", None)


def cards(found: Answered, called: dict[str, str]) -> str:
    """The image and everybody's map of it."""
    answer, facts = found.answer, found.answer.facts
    rows = {r["id"]: r for r in answer.tables["students"]}
    image = facts["image"]
    columns = [
        maps.Card(
            "The image",
            pictures=[(found.url("input"), image["text"])],
            lines=[
                "It is " + image["class"] if image["class"] is not None else "Nobody has said what it is",
                image["text"][:1].upper() + image["text"][1:],
            ],
        )
    ]
    for i, student in enumerate(facts["students"]):
        mine = [a for a in answer.tables["answers"] if a["id"] == student["id"]]
        lines = ["Says " + ", ".join(f"{a['class']} ({percent(a['probability'])})" for a in mine[:2])]
        row = rows.get(student["id"])
        if row and row["target"] != row["predicted"]:
            lines.append(f"Explained: {row['target']}, logit {number(row['logit'])}")
        if row and row["gap"] is not None:
            lines.append(f"Completeness gap {percent(row['gap'])}")
        if row:
            lines.append(f"{row['seconds']:.2f} s")
        name = called.get(student["id"], student["name"])
        columns.append(
            maps.Card(
                name,
                student["kind"] or "full",
                [
                    (found.url(f"map-{i}"), f"Map of {name}"),
                    (found.url(f"blend-{i}"), f"Map of {name} over the image"),
                ]
                if row
                else (),
                lines,
                facts["skipped"].get(student["id"], ""),
            )
        )
    limit, share = facts["limit"], facts["scale"] == "share"
    high = f"for it: {percent(limit, 2) if share else number(limit)}"
    low = "against it" if facts["signed"] else "0"
    unit = "of a student's whole attribution, per pixel" if share else "logits per pixel"
    return maps.side_by_side(columns, (found.url("key"), low, high, unit))


def map_numbers(found: Answered) -> None:
    """The tables behind the maps."""
    table, pairs = found.table("students"), found.table("agreement")
    st.dataframe(
        pd.DataFrame(
            {
                "Student": table["student"],
                "Says": table["predicted"],
                "Surely": table["confidence"].map(percent),
                "Explained": table["target"],
                "Logit": table["logit"].map(number),
                "Completeness gap": table["gap"].map(percent),
                "Whole attribution": table["total"].map(number),
            }
        ),
        hide_index=True,
    )
    if len(pairs):
        st.markdown("How far two maps agree", help="On this image. Over many images: Quality & agreement.")
        st.dataframe(
            pd.DataFrame(
                {
                    "Student": pairs["student_a"],
                    "And": pairs["student_b"],
                    "Rank correlation": pairs["rank_correlation"].map(number),
                    "Overlap of the top tenth": pairs["overlap"].map(percent),
                }
            ),
            hide_index=True,
        )
    with st.container(horizontal=True, gap="small"):
        download(table, "attribution")
        download(found.table("answers"), "answers", "Answers (CSV)")
        if len(pairs):
            download(pairs, "map-agreement", "Agreement (CSV)")


def pixel_table(found: Answered) -> pd.DataFrame:
    """Every pixel of every map."""
    facts = found.answer.facts
    return pd.DataFrame(
        {"id": student["id"], "student": student["name"], "row": y, "column": x, "attribution": value}
        for student, values in zip(facts["students"], facts["maps"], strict=True)
        for y, line in enumerate(values or [])
        for x, value in enumerate(line)
    )


def sanity(asked: dict[str, Any], students: list[str], known: dict[str, Facts], called: dict[str, str]) -> None:
    """The sanity check of one student's map."""
    st.subheader("Sanity check", anchor=False)
    fitting = {id: called[id] for id in students if not METHOD_INFO[asked["method"]].valid_for(known[id]["network"])}
    if st.session_state.attribution["check"] not in fitting:
        check(next(iter(fitting)))
    student = field(
        "check",
        lambda key: st.selectbox("Student to check", list(fitting), format_func=fitting.get, key=key, width=420),
    )
    found = put("sanity", SanitySpec, {**asked, "students": student})
    if found is None:
        return
    table = found.table("stages")
    st.markdown(f"**{found.answer.facts['verdict']}**")
    heads = ["trained", *(f"down to {layer}" for layer in table["layer"][1:])]
    st.html(maps.strip(found.url("strip"), "The map from the trained student to one all random", heads, 128))
    figure(
        maps.stages(table, is_dark()), "sanity_figure",
        "Likeness of the map to the trained student's as layers become random; the data can be downloaded below",
    )  # fmt: skip
    st.caption("Means over three random networks, with the lowest and the highest. A map that stays alike shows the "
               "image rather than what was learned.")  # fmt: skip
    download(table, "sanity")


# ---- which training image did it? -----------------------------------------------------------------------------------


def show_influence(students: list[str], known: dict[str, Facts], called: dict[str, str]) -> None:
    left, right = st.columns([1.1, 2.3], gap="large")
    with left:
        image = image_form(students, known)
        target = target_form(image, known[students[0]])
        one, two = st.columns([1.6, 1], vertical_alignment="bottom")
        with one:
            layers = row("layers")
        with two:
            count = row("count")
    with right:
        if not image:
            st.info("Choose, upload or draw an image, and the training images that decided on it appear here.")
            return
        values = {"students": ",".join(students), "image": image, "target": target, "layers": layers, "count": count}
        found = put("influence", InfluenceSpec, values)
        if found is None:
            return
        table, facts = found.table("influence"), found.answer.facts
        path = found.image("input")
        with st.container(horizontal=True, vertical_alignment="center"):
            if path:
                st.image(str(path), width=96, alt=facts["image"]["text"])
            named = facts["image"]["class"]
            st.markdown(
                f"{facts['image']['text'].capitalize()}{'' if named is None else f', a “{named}”'}.", width="stretch"
            )
        for i, (student, answer) in enumerate(zip(facts["students"], facts["answers"], strict=True)):
            st.subheader(called.get(student["id"], student["name"]), anchor=False)
            st.markdown(
                f"Says **{answer['predicted']}**; asked about **{answer['target']}** "
                f"({percent(answer['probability'])}). {answer['looked_at']:,} of its {answer['training_images']:,} "
                "training images were looked at."
            )
            for direction, title in (
                ("up", f"Pushed “{answer['target']}” up, strongest first"),
                ("down", f"Pushed “{answer['target']}” down"),
                ("similar", "Nearest in feature space"),
            ):
                mine = table[(table["id"] == student["id"]) & (table["direction"] == direction)]
                st.markdown(f"{title}:" if len(mine) else f"{title}: none.")
                if len(mine):
                    st.html(maps.strip(found.url(f"{direction}-{i}"), title, list(mine["class"]), 76))
        download(table, "influence")


# ---- quality and agreement ------------------------------------------------------------------------------------------


def show_quality(students: list[str], known: dict[str, Facts], called: dict[str, str]) -> None:
    if one_of("view", VIEWS, "What is measured") == "agreement":
        agreement(students, known, called)
    else:
        quality(students, called)


def agreement(students: list[str], known: dict[str, Facts], called: dict[str, str]) -> None:
    """How far students' maps agree, as a matrix and a tree."""
    whom = one_of("whom", WHOM, "Whose maps are compared")
    asked = students if whom == "chosen" else list(dict.fromkeys([*students, *known]))[:MOST_COMPARED]
    if len(asked) < 2:
        st.info("Maps are compared of at least two students: choose or train another one.")
        return
    chosen = method_form(wide=True)
    one, two, _ = st.columns([1, 1, 2])
    with one:
        images = row("agreement_images", "Test images")
    with two:
        share = row("share")
    if fits_none(chosen["method"], asked, known):
        return
    found = put("agreement", AgreementSpec, {"students": ",".join(asked), "images": images, "share": share, **chosen})
    if found is None:
        return
    facts, who, pairs = found.answer.facts, who_of(found, called), found.table("pairs")
    shown = one_of("matrix", MATRICES, "Which number")
    left, right = st.columns(2, gap="large")
    with left:
        figure(
            maps.matrix(facts[shown], list(who["observer"]), shown == "distance", is_dark()), "agreement_figure",
            f"{MATRICES[shown]} of every two students; the table below holds the numbers",
        )  # fmt: skip
    with right:
        figure(
            maps.tree(facts["tree"], who, is_dark()), "tree_figure",
            "Tree of the students by the distance of their maps; the table below holds the distances",
        )  # fmt: skip
    st.caption("Distance: 1 less the mean cosine of the two students' maps of the true class (after Song et al. 2019). "
               "The tree joins the nearest first, groups at the mean of their distances.")  # fmt: skip
    st.dataframe(
        pd.DataFrame(
            {
                "Student": pairs["id_a"].map(called),
                "And": pairs["id_b"].map(called),
                "Distance": pairs["distance"].map(number),
                "Rank correlation": interval(pairs, "rank_correlation", share=False),
                "Overlap of the top pixels": interval(pairs, "overlap"),
                "Same answer": pairs["same_answer"].map(percent),
                "Images": pairs["n"],
            }
        ),
        hide_index=True,
    )
    download(pairs, "map-distances")


def quality(students: list[str], called: dict[str, str]) -> None:
    """The metrics of the maps themselves."""
    state = st.session_state
    one, two, three = st.columns([2.4, 1, 1], vertical_alignment="bottom")
    names = WORDS["method"]
    with one:
        if "attribution_methods" not in state:
            wanted = [m.strip() for m in state.attribution["methods"].split(",")]
            state.attribution_methods = [m for m in dict.fromkeys(wanted) if m in names][:5]
        methods = st.multiselect(
            "Methods", list(names), format_func=names.get, key="attribution_methods", max_selections=5,
            help="Up to five methods, with their usual settings.",
        )  # fmt: skip
        state.attribution["methods"] = ",".join(methods)
    with two:
        images = row("quality_images", "Test images")
    with three:
        changes = row("perturbations")
    if not methods:
        st.info("Choose one or more methods above.")
        return
    found = put(
        "quality",
        QualitySpec,
        {"students": ",".join(students), "methods": ",".join(methods), "images": images, "perturbations": changes},
        press=f"Every map is made {2 + changes} times, of {images} test images: about a minute for a few students on a "
        "laptop.",
    )
    if found is None:
        return
    table, metrics, who = found.table("quality"), found.answer.facts["metrics"], who_of(found, called)
    words = {name: metrics[name]["name"] for name in CHOICES["metric"] if name in metrics}
    metric = one_of("metric", words, "Metric")
    st.caption(metrics[metric]["about"])
    mine = table[table["metric"] == metric]
    figure(
        maps.quality(mine, who, {**names, maps.CHANCE: "Random order"}, metrics[metric]["better"], is_dark()),
        "quality_figure",
        f"{metrics[metric]['name']} of each method and student, with intervals; the table below holds the numbers",
    )
    drawn = [m for m in methods if m in set(found.table("curves")["method"])]
    if drawn:
        with st.container(horizontal=True, vertical_alignment="bottom"):
            method = st.selectbox("Curves of", drawn, format_func=names.get, key="attribution_curve", width=260)
        figure(
            maps.curves(found.table("curves"), who, method, is_dark()), "curves_figure",
            f"Deletion and insertion curves of {names[method]} for each student; the data can be downloaded below",
        )  # fmt: skip
        st.caption("Solid: the most important pixels first. Dotted: the same student, pixels in random order.")
    st.dataframe(
        pd.DataFrame(
            {
                "Student": mine["id"].map(called),
                "Method": [names.get(m, "Random order") for m in mine["method"]],
                metrics[metric]["name"]: interval(mine, share=False),
                "Images": mine["n"],
            }
        ),
        hide_index=True,
    )
    with st.container(horizontal=True, gap="small"):
        download(table, "map-quality")
        download(found.table("curves"), "map-curves", "Curves (CSV)")


# ---- object or context? ---------------------------------------------------------------------------------------------


def show_context(students: list[str], known: dict[str, Facts], called: dict[str, str]) -> None:
    dataset = known[students[0]]["dataset"]
    scope = one_of("scope", SCOPES, "Which images") if dataset in MASKED else "one"
    asked: dict[str, Any] = {"students": ",".join(students)}
    left, right = st.columns([1.1, 2.3], gap="large")
    with left:
        if scope == "one":
            image = image_form(students, known)
            asked |= {"image": image, "mask": paint(students, image, dataset) if image else ""}
        asked["target"] = one_of(
            "context_target",
            {"predicted": "Its own answer", "true": "The true class"},
            "Answer to explain",
            hide=False,
        )
        asked |= method_form("context_method")
        asked["images"] = row("context_images", "Test images" if scope == "all" else "Random contexts")
    with right:
        if scope == "one" and not asked["image"]:
            st.info("Choose, upload or draw an image first.")
            return
        if scope == "one" and not asked["mask"] and not (dataset in MASKED and asked["image"].startswith("test:")):
            st.info("Paint over the object on the left and press “Use this mask”: what lies outside is its context.")
            return
        if fits_none(asked["method"], students, known):
            return
        found = put("context", ContextSpec, asked)
        if found is None:
            return
        context_answer(found, called)


def paint(students: list[str], image: str, dataset: str) -> str:
    """A mask painted over the image; how probes name it, or nothing."""
    waiting = st.empty()
    with waiting.container():  # any map shows the image as the student sees it
        under = put("attribution", AttributionSpec, {"students": students[0], "image": image, "method": "saliency"})
    if under is None:
        return st.session_state.attribution["mask"]
    waiting.empty()  # its notes are about maps
    values, known_for = st.session_state.attribution, st.session_state.get("attribution_masked")
    if dataset in MASKED and image.startswith("test:"):
        st.caption("This image has a mask. Paint one of your own to use it instead.")
    url = canvas.board(
        key="attribution_mask",
        kind="mask",
        label="The image: paint over the object",
        under=under.url("input"),
        brush=32,
    )
    if known_for is not None and known_for[0] != image:  # that mask was another image's
        values["mask"] = "" if url == known_for[1] else values["mask"]
    if url and (known_for is None or url != known_for[1]):
        values["mask"] = canvas.keep(canvas.drawn(url), limbeck_home())
    elif not url and known_for is not None and known_for[1]:
        values["mask"] = ""
    st.session_state.attribution_masked = (image, url)
    return values["mask"]


def context_answer(found: Answered, called: dict[str, str]) -> None:
    facts, table, who = found.answer.facts, found.table("context"), who_of(found, called)
    who = who[~who["id"].isin(facts["skipped"])]
    heads = [title.replace("<br>", " ") for title in maps.CONDITIONS.values()]
    st.html(maps.strip(found.url("conditions"), "An image under the five conditions", heads, 128))
    for i, student in enumerate(facts["students"]):
        if f"maps-{i}" in found.answer.images:
            name = called.get(student["id"], student["name"])
            st.markdown(name)
            st.html(maps.strip(found.url(f"maps-{i}"), f"Maps of {name} under the five conditions", [""] * 5, 128))
    everything = table[table["subset"] == "all"]
    words = {name: title for name, title in SHARES.items() if everything[name].notna().any()}
    shown = one_of("shown", words, "Which number")
    figure(
        maps.context(everything, who, shown, is_dark()), "context_figure",
        f"{SHARES[shown]} of each student under the five conditions; the table below holds the numbers",
    )  # fmt: skip
    if shown == "object_share":
        st.caption("Share of the absolute attribution that lies on the object, with 95 % intervals. Dotted: the "
                   "object's share of the pixels, which a map that ignores the object would have.")  # fmt: skip
    subsets = {"all": "all", "correct": "right answers", "incorrect": "wrong answers"}
    st.dataframe(
        pd.DataFrame(
            {
                "Student": table["id"].map(called),
                "Condition": [maps.CONDITIONS[c].replace("<br>", " ") for c in table["condition"]],
                "Images": table["subset"].map(subsets),
                "Number": table["n"],
                "Attribution on the object": interval(table, "object_share"),
                "Object's area": table["area"].map(percent),
                "Accuracy": interval(table, "accuracy"),
                "Answer unchanged": table["kept"].map(percent),
            }
        ),
        hide_index=True,
        column_config={"Student": st.column_config.TextColumn(width="medium")},
    )
    with st.expander("The five conditions"):
        for name, sentence in facts["conditions"].items():
            st.markdown(f"**{maps.CONDITIONS[name].replace('<br>', ' ').capitalize()}.** {sentence}")
    download(table, "context")


# ---- the distilled image itself -------------------------------------------------------------------------------------


def show_distilled(students: list[str], known: dict[str, Facts], called: dict[str, str], where: Store) -> None:
    dataset, values = known[students[0]]["dataset"], st.session_state.attribution
    runs = where.runs(kinds=comparison.SET_KINDS, dataset=dataset, limit=300)
    names = comparison.names([r for r in runs if where.result_folder(r.id)])
    if not names:
        st.info(f"There is no distilled set of {dataset_title(dataset)} yet.")
        st.page_link("pages/distil.py", label="Distil one", icon=":material/water_drop:", query_params={"d": dataset})
        return
    if values["run"] not in names:
        if values["run"]:
            st.info(f"The set “{values['run'][:60]}” is not here; this is another one.")
        sources = [known[id]["source"].get("run") for id in students]
        values["run"] = next((run for run in sources if run in names), next(iter(names)))
        st.session_state.pop("attribution_run", None)
    left, right = st.columns([1.1, 2.3], gap="large")
    with left:
        run = field(
            "run",
            lambda key: st.selectbox("Synthetic set", list(names), format_func=names.get, key=key,
                                     help="Any set of this dataset that was distilled, picked or imported here."),
        )  # fmt: skip
        indices, neighbours = row("indices"), row("neighbours")
        chosen = method_form()
    with right:
        asked = {"students": ",".join(students), "run": run, "indices": indices or "", "neighbours": neighbours}
        found = put("distilled-view", DistilledSpec, {**asked, **chosen})
        if found is None:
            return
        facts, looks = found.answer.facts, found.table("looks")
        classes = facts["classes"]
        heads = classes if len(classes) <= 10 else [""] * 10
        st.html(maps.strip(found.url("set"), "The synthetic images", heads, 90))
        for i, student in enumerate(facts["students"]):
            name, mine = called.get(student["id"], student["name"]), looks[looks["id"] == student["id"]]
            right_ones = int((mine["class"] == mine["predicted"]).sum())
            st.markdown(f"{name}: {right_ones} of {len(mine)} taken for what they stand for.")
            if f"maps-{i}" in found.answer.images:
                st.html(
                    maps.strip(
                        found.url(f"maps-{i}"),
                        f"Maps of {name} of the synthetic images",
                        list(mine["predicted"]) if len(mine) <= 10 else [""] * 10,
                        90,
                    )
                )
            else:
                st.caption(facts["skipped"].get(student["id"], ""))
    nearest = found.table("nearest")
    st.subheader("Which real images it pulls", anchor=False)
    st.caption("First each synthetic image, then the test images nearest to it in a student's feature space.")
    for column, (i, student) in zip(st.columns(max(2, len(students))), enumerate(facts["students"]), strict=False):
        mine = nearest[nearest["id"] == student["id"]]
        with column:
            own = percent(mine["own_class"].astype(float).mean())
            st.markdown(f"{called.get(student['id'], student['name'])}: {own} of them are of its class.")
            st.html(maps.strip(found.url(f"nearest-{i}"), "Each synthetic image and its nearest test images",
                               [""] * (facts_width(mine)), 64))  # fmt: skip
    st.subheader("How natural it is", anchor=False)
    one, two = st.columns([2.2, 1], gap="large", vertical_alignment="center")
    with one:
        figure(
            maps.spectrum(found.table("spectrum"), is_dark()), "spectrum_figure",
            "Power over spatial frequency of the set and of real images; the data can be downloaded below",
        )  # fmt: skip
    with two:
        for kind, title in (("synthetic", "This set"), ("real", "Real test images")):
            value = facts["total_variation"][kind]
            st.metric(
                f"Total variation: {title.lower()}", number(value["mean"]),
                help="Mean absolute difference between neighbouring pixels, across plus down: how rough an image is.",
            )  # fmt: skip
            st.caption(f"95 % interval of the mean: {number(value['low'])} to {number(value['high'])}")
    with st.container(horizontal=True, gap="small"):
        download(nearest, "nearest", "Neighbours (CSV)")
        download(looks, "synthetic-looks", "Answers (CSV)")
        download(found.table("spectrum"), "spectrum", "Spectrum (CSV)")
        download(found.table("variation"), "variation", "Variation (CSV)")


def facts_width(nearest: pd.DataFrame) -> int:
    """Images in a row: the synthetic one and its neighbours."""
    return 1 + int(nearest["rank"].max())


# ---- the page -------------------------------------------------------------------------------------------------------


def choose_students(known: dict[str, Facts], dataset: str) -> list[str]:
    """The students that are asked; ones that are not here are named."""
    state = st.session_state
    wanted = state.get("attribution_students", state.attribution["students"])
    if wanted is None:  # the newest of each kind of training set, then the newest
        kinds = {reports.mark(facts).name: id for id, facts in reversed(known.items())}
        wanted = [*(id for id in known if id in kinds.values()), *known]
    lost = [id for id in wanted if id not in known]
    if lost:
        st.info(f"Not here, or not of {dataset_title(dataset)}: {', '.join(id[:60] for id in lost[:5])}.")
    state.attribution_students = list(dict.fromkeys(id for id in wanted if id in known))[:MOST]
    called = reports.names(known)
    state.attribution["students"] = st.multiselect(
        "Students", list(known), key="attribution_students", max_selections=MOST, wrap=True,
        format_func=lambda id: f"{called[id]}, {known[id]['accuracy']:.0%}",
        help=f"Up to {MOST} trained students: say of a distilled set, of random real images, and of all images.",
    )  # fmt: skip
    return state.attribution["students"]


def another_dataset() -> None:
    """Another dataset has students, classes and images of its own."""
    state = st.session_state
    state.attribution |= {"students": None, "images": {}, "target": "predicted", "check": "", "mask": "", "run": ""}
    for name in ("students", "target", "class", "number", "run", "last", "board", "mask", "masked", "upload"):
        state.pop(f"attribution_{name}", None)


def page() -> None:
    where, state = store(), st.session_state
    st.title("Attribution")
    for sentence in read_address(where):
        st.warning(sentence)
    runs = where.runs(kinds=["student"], statuses=["done"], limit=1000)
    options = [name for name in dict.fromkeys(run.dataset for run in runs) if reports.kept(where, name)]
    if not options:
        st.write(LEADS["maps"])
        st.info("No student is trained yet. Train one on a distilled set and one on all images, and question them "
                "here.")  # fmt: skip
        query = {"dataset": state.attribution["dataset"]} if state.attribution["dataset"] else None
        st.page_link("pages/students.py", label="Train a student", icon=":material/school:", query_params=query)
        return
    lead = st.empty()
    if state.attribution["dataset"] not in options:
        if state.attribution["dataset"]:
            st.info(
                f"No student of “{state.attribution['dataset'][:60]}” is here; these know {dataset_title(options[0])}."
            )
        state.attribution["dataset"] = state.attribution_dataset = options[0]
    left, right = st.columns([1, 3])
    with left:
        dataset = field(
            "dataset",
            lambda key: st.selectbox("Dataset", options, format_func=dataset_title, key=key, on_change=another_dataset,
                                     help="Students can only be compared when they know the same classes."),
        )  # fmt: skip
    known = reports.kept(where, dataset)
    called = reports.names(known)
    with right:
        students = choose_students(known, dataset)
    section = one_of("section", SECTIONS, "What is asked")
    lead.write(LEADS[section])
    if not students:
        st.info("Choose one or more students above.")
    elif section == "distilled":
        show_distilled(students, known, called, where)
    else:
        show = {"maps": show_maps, "influence": show_influence, "quality": show_quality, "context": show_context}
        show[section](students, known, called)
    write_address()


page()
