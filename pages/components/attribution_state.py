"""What the Attribution page keeps, its widgets, and its part of the address (torch-free)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pandas as pd
import streamlit as st
from pydantic import BaseModel

from engine.errors import Refused
from engine.probes.attribution.specs import (
    METHOD_INFO,
    AgreementSpec,
    AttributionSpec,
    ContextSpec,
    DistilledSpec,
    InfluenceSpec,
    QualitySpec,
)
from engine.probes.desk import digest_of, question_of
from engine.runs.store import Store
from engine.spec import build_spec
from engine.table import Parameter, allowed, parameters
from pages.components import address, choice, form, roles
from pages.components.asking import Answered, ask
from pages.components.shared import desk

MOST, MOST_COMPARED = 4, 12  # students side by side; students in the matrix of distances
MASKED = ("shapes",)  # datasets that say where the object is
SECTIONS = {
    "maps": "Maps",
    "influence": "Which training image did it?",
    "quality": "Quality & agreement",
    "context": "Object or context?",
    "distilled": "The distilled image itself",
}
PICKS = {"class": "By class", "disagree": "Disputed", "upload": "Upload", "draw": "Draw"}
VIEWS = {"agreement": "Agreement and distance", "metrics": "Quality of the maps"}
WHOM = {"chosen": "These students", "all": f"All students (newest {MOST_COMPARED})"}
SCOPES = {"all": "Test images with masks", "one": "One image, a mask I paint"}
SHARES = {"object_share": "Attribution on the object", "accuracy": "Accuracy", "kept": "Answer unchanged"}
MATRICES = {"distance": "Distance", "rank_correlation": "Rank correlation", "overlap": "Overlap of the top pixels"}
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
    state, query = st.session_state, address.changed("attribution")
    if query is None:
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
    picks: tuple[str, ...] = {"test": ("class", "disagree"), "file": ("upload", "draw")}.get(kind, ("other",))
    picks = picks if "image" in query else tuple(PICKS)
    values["pick"] = query["pick"] if query.get("pick") in picks else picks[0]
    if kind not in ("test", "train", "synthetic", "file"):
        problems.append(f"The link names no image with “{image[:40]}”; this is the first test image.")
        values["pick"], image = "class", "test:0"
    values["images"] = {values["pick"]: image} if "image" in query or values["pick"] == "class" else {}
    first = next((run for id in values["students"] or [] if (run := where.run(id))), None)
    values["dataset"] = query.get("dataset") or (first.dataset if first else "")
    state.attribution = values
    for key in [k for k in state if str(k).startswith("attribution_")]:
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
    address.write("attribution", {key: value for key, value in query.items() if value})


# ---- pieces of the page ---------------------------------------------------------------------------------------------


def field(name: str, draw: Callable[[str], Any]) -> Any:
    """A widget that ``draw`` makes under a key, showing and keeping the page's value of this name."""
    state, key = st.session_state, f"attribution_{name}"
    choice.keep(key, state.get(key, state.attribution[name]))
    state.attribution[name] = draw(key)
    return state.attribution[name]


def row(name: str, label: str = "") -> Any:
    """The widget of a parameter."""
    found = replace(ROWS[name], label=label) if label else ROWS[name]
    return field(name, lambda key: form.draw(found, key, WORDS.get(name, {}), found.help))


def one_of(name: str, words: dict[str, str], label: str, hide: bool = True) -> str:
    """A choice that is always made."""
    values = st.session_state.attribution
    values[name] = choice.one_of(
        label, words, f"attribution_{name}", values[name], label_visibility="collapsed" if hide else "visible"
    )
    return values[name]


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
        if not st.button("Measure", type="primary", icon=":material/play_arrow:", **roles.locked("measure")):
            return None
    return ask(probe, spec, f"attribution_{probe}")


def who_of(found: Answered, called: dict[str, str]) -> pd.DataFrame:
    """The answer's students for the figures."""
    students = pd.DataFrame(found.answer.facts["students"])
    return students.assign(observer=[called.get(id, name) for id, name in students[["id", "name"]].to_numpy()])
