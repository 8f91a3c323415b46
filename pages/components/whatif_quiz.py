"""Guessing what distilled images stand for: the section Quiz (torch-free).

Somebody's guesses are kept in their session. Of all of them together counts are kept (``engine.tally``), nothing about
who: which browsers were counted is known in memory alone, so that nobody counts twice.
"""

from __future__ import annotations

import html
from typing import Any

import pandas as pd
import streamlit as st

from engine import tally, words
from engine.errors import Refused
from engine.intervals import wilson
from engine.runs.store import Run, Store
from engine.seminar import presenter_key
from engine.spec import build_spec
from pages.components import reports, roles
from pages.components.asking import Answered
from pages.components.choice import named
from pages.components.grid import data_url
from pages.components.pieces import figure, is_dark
from pages.components.shared import executor, store
from pages.components.whatif_state import knobs, put, question

_counted: set[tuple[str, str]] = set()  # viewers and quizzes
MOST_REMEMBERED = 100_000


def show_quiz(where: Store, run: Run) -> None:
    now = st.session_state.pieces
    with st.expander("Questions and network"):
        knobs("quiz", ["images", "seed"])
        student = _network(where, run)
    spec = question("quiz", where, source=run.id, student=student, **now["values"]["quiz"])
    if spec is None:
        return
    found = put("quiz", spec, "pieces_quiz")
    if found is not None:
        _play(found, run)


def _network(where: Store, run: Run) -> str:
    """The network that answers too: one trained on all images, the best there is unless chosen; none where there is
    none."""
    now, state = st.session_state.pieces, st.session_state
    taught = {id: facts for id, facts in reports.kept(where, run.dataset).items() if _full(facts)}
    if not taught:
        st.write("No network is trained on all images of this dataset yet, so nobody plays against you.")
        st.button("Train one on all images", icon=":material/school:", key="pieces_teach", on_click=_teach,
                  args=(run.dataset,), **roles.locked("start runs"))  # fmt: skip
        if said := state.pop("pieces_teaching", ""):
            st.caption(said)
        now["student"] = ""
        return ""
    best = sorted(taught, key=lambda id: -float(taught[id]["accuracy"]))
    called = reports.names(taught)
    if state.get("pieces_network") not in taught:
        state.pieces_network = now["student"] if now["student"] in taught else best[0]
    now["student"] = st.selectbox(
        "Network that answers too", best, format_func=named(called), key="pieces_network",
        help="Trained on all training images.",
    )  # fmt: skip
    return now["student"]


def _full(facts: dict[str, Any]) -> bool:
    return facts["source"].get("kind", "full") == "full" and facts["spec"].get("style", "original") == "original"


def _teach(dataset: str) -> None:
    state = st.session_state
    try:
        executor().submit("student", build_spec("student", source="full", dataset=dataset))
        state.pieces_teaching = "Queued: it is trained in some minutes, and answers from then on."
    except Refused as refused:
        state.pieces_teaching = str(refused)


# ---- playing --------------------------------------------------------------------------------------------------------


def _play(found: Answered, run: Run) -> None:
    state, questions, choices = st.session_state, found.answer.tables["questions"], found.answer.facts["choices"]
    game = state.setdefault("quiz_games", {}).setdefault(found.digest, {"at": 0, "guesses": []})
    at, guesses = game["at"], game["guesses"]
    if at >= len(questions):
        _ending(found, run, guesses)
    else:
        revealed = len(guesses) > at
        left, right = st.columns([1, 1], gap="large")
        with left:
            st.markdown(f"**Question {at + 1} of {len(questions)}**: which class is it?")
            alt = f"Question {at + 1}: an image whose class is to be guessed"
            st.html(f'<img src="{found.url(f"image-{at}")}" alt="{alt}" style="width:min(100%,360px);'
                    'image-rendering:pixelated;display:block">')  # fmt: skip
        with right:
            _choices(found.digest, at, choices, revealed)
            if revealed:
                _reveal(questions[at], guesses[at], choices, found.answer.facts)
                st.button(
                    "Next" if at + 1 < len(questions) else "How did it go?", key=f"quiz_next_{at}",
                    shortcut="Enter", on_click=_next, args=(found.digest, run.id, questions, len(choices)),
                )  # fmt: skip
            else:
                st.caption("Keys do, too.")
        if presenter_key() and roles.presenter() and st.toggle("Show what everybody answered", key="quiz_everybody"):
            _everybody(found, run.id)


def _choices(digest: str, at: int, choices: list[str], revealed: bool) -> None:
    """A button and a key for each class."""
    keys = shortcuts(choices)
    with st.container(horizontal=True, gap="small"):
        for c, name in enumerate(choices):
            st.button(
                name, key=f"quiz_{at}_{c}", width=96 if max(map(len, choices)) < 7 else 148, disabled=revealed,
                on_click=_guess, args=(digest, at, c), shortcut=None if revealed else keys[c],
            )  # fmt: skip


def shortcuts(choices: list[str]) -> list[str]:
    """The key of each choice: a digit its own, anything else 1 to 9 and 0 in their order."""
    if all(len(name) == 1 and name.isascii() and name.isdecimal() for name in choices):
        return choices
    return [str((i + 1) % 10) for i in range(len(choices))]


def _guess(digest: str, at: int, choice: int) -> None:
    game = st.session_state.quiz_games[digest]
    if len(game["guesses"]) == at:  # a second key pressed before the page has heard of the first does not count
        game["guesses"].append(choice)


def _next(digest: str, run: str, questions: list[dict[str, Any]], choices: int) -> None:
    """The next question; after the last one the answers are counted, once."""
    game, who = st.session_state.quiz_games[digest], (roles.viewer(), digest)
    game["at"] = len(game["guesses"])
    if game["at"] < len(questions) or who in _counted or st.session_state.get(f"quiz_counted_{digest}"):
        return
    st.session_state[f"quiz_counted_{digest}"] = True
    if len(_counted) < MOST_REMEMBERED:
        _counted.add(who)
    answers = [(q["truth"], guess) for q, guess in zip(questions, game["guesses"], strict=True)]
    tally.add(store().folder(run), digest, choices, answers)


def _reveal(asked: dict[str, Any], guess: int, choices: list[str], facts: dict[str, Any]) -> None:
    said = f"It stands for **{_plain(choices[asked['truth']])}**."
    if asked["network"] is not None:
        right = "" if asked["network"] == asked["truth"] else ", wrongly"
        said += f" The network says {_plain(choices[asked['network']])}{right} ({asked['sure']:.0%} sure)."
    if guess == asked["truth"]:
        st.success(f"Right. {said}", icon=":material/check:")
    else:
        st.error(f"You said {_plain(choices[guess])}. {said}", icon=":material/close:")


def _plain(name: str) -> str:
    """A name without what Markdown would make of it."""
    return "".join(f"\\{c}" if c in "\\`*_{}[]()#+-.!|<>~$:" else c for c in name)


# ---- the end --------------------------------------------------------------------------------------------------------


def _ending(found: Answered, run: Run, guesses: list[int]) -> None:
    questions, facts = found.answer.tables["questions"], found.answer.facts
    mine = sum(q["truth"] == guess for q, guess in zip(questions, guesses, strict=True))
    one, two, three = st.columns(3)
    one.metric("You", f"{mine} of {len(questions)}")
    if facts["network"]:
        theirs = sum(q["network"] == q["truth"] for q in questions)
        two.metric("The network", f"{theirs} of {len(questions)}", help=facts["network"])
        three.metric("The network, on real test images", f"{facts['accuracy']:.1%}")
    _table(found, guesses)
    with st.container(horizontal=True, gap="small"):
        st.button("Start over", icon=":material/replay:", key="quiz_again", on_click=_again, args=(found.digest,))
        st.button("Other images", icon=":material/casino:", key="quiz_other", on_click=_other,
                  **roles.locked("put new questions"))  # fmt: skip
    st.subheader("Everybody so far", anchor=False)
    _sum(found, run.id)


def _table(found: Answered, guesses: list[int]) -> None:
    questions, choices = found.answer.tables["questions"], found.answer.facts["choices"]
    shown = [found.image(f"image-{i}") for i in range(len(questions))]
    rows = pd.DataFrame(
        {
            "Picture": [data_url(path, mime="image/png") if path else None for path in shown],
            "It stands for": [choices[q["truth"]] for q in questions],
            "You": [f"{choices[g]} {'✓' if g == q['truth'] else '✗'}" for q, g in zip(questions, guesses, strict=True)],
        }
    )
    if found.answer.facts["network"]:
        rows["The network"] = [
            f"{choices[q['network']]} {'✓' if q['network'] == q['truth'] else '✗'}" for q in questions
        ]
    st.dataframe(rows, hide_index=True, row_height=44, height=min(44 * len(rows) + 38, 480),
                 column_config={"Picture": st.column_config.ImageColumn(width="small")})  # fmt: skip


def _again(digest: str) -> None:
    st.session_state.quiz_games[digest] = {"at": 0, "guesses": []}


def _other() -> None:
    """The same set, other images of it."""
    now = st.session_state.pieces["values"]["quiz"]
    now["seed"] += 1
    st.session_state.pieces_quiz_seed = now["seed"]


@st.fragment(run_every=2.0)
def _everybody(found: Answered, run: str) -> None:
    _sum(found, run)


def _sum(found: Answered, run: str) -> None:
    """What everybody answered, in counts."""
    facts, questions = found.answer.facts, found.answer.tables["questions"]
    choices = [html.escape(str(name)) for name in facts["choices"]]
    counted = tally.read(store().folder(run), found.digest, len(choices))
    if not counted.people:
        st.caption("Nobody has come to the end yet.")
        return
    low, high = wilson(counted.right, counted.shown)
    share = (
        f"{counted.right / counted.shown:.1%} right (95 % interval {low:.1%} to {high:.1%})" if low is not None else ""
    )
    who = "1 person" if counted.people == 1 else f"{counted.people:,} people"
    network = ""
    if facts["network"]:
        network = f" The network: {sum(q['network'] == q['truth'] for q in questions) / len(questions):.1%}."
    st.markdown(f"{who}, {words.count(counted.shown, 'answer')}: {share}.{network}")
    chart = reports.confusion({"confusion": counted.counts, "classes": choices}, is_dark())
    chart.update_xaxes(title_text="People say")
    table = pd.DataFrame(
        [
            {"class": t, "answer": g, "count": counted.counts[i][j]}
            for i, t in enumerate(facts["choices"])
            for j, g in enumerate(facts["choices"])
        ]
    )
    figure(
        chart, "quiz_confusion", "What people take images of each class for; the data can be downloaded", table, "quiz"
    )
    st.caption("Each browser is counted once, the first time it comes to the end. Only counts are kept, no names.")
