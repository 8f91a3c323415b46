"""Guess first: accuracies stay hidden until somebody has said what they will be (torch-free).

``reveal=0`` in the address asks for that, for whoever opens it. Guesses are kept in the session and nowhere else.
"""

from __future__ import annotations

from dataclasses import dataclass

import streamlit as st

from engine import words
from engine.exports.facts import story
from engine.runs.store import Store
from pages.components.shared import store


@dataclass(frozen=True)
class Measured:
    """A number of a run, a fraction, and with all it takes to be believed."""

    value: float
    says: str


def accuracy(where: Store, run: str) -> Measured | None:
    """What students of the run reach: on test images, else while it was distilled; None where nothing is measured."""
    final = story(where, run).headline
    if final:
        return Measured(final["mean"], words.measured(final))
    live = where.events(run, kinds=("accuracy",), limit=100_000)
    if not live:
        return None
    last = live[-1].data
    return Measured(last["accuracy"], f"{100 * last['accuracy']:.1f} % ({_under(last)})")


def gain(where: Store, run: str) -> Measured | None:
    """How much more than random real images, as many per class, the run's teach: of one protocol, on the same images;
    None where that is not measured."""
    live = where.events(run, kinds=("accuracy",), limit=100_000)
    for event in reversed(where.events(run, kinds=("reference",))):
        other = event.data
        if other["kind"] == "random" and live and _under(other) == _under(live[-1].data):
            mine = live[-1].data["accuracy"]
            return Measured(
                mine - other["accuracy"],
                f"distilled {100 * mine:.1f} %, random real images {100 * other['accuracy']:.1f} % ({_under(other)})",
            )
    return None


def _under(event: dict[str, object]) -> str:
    held_out = event.get("split", "held-out") != "test"
    return f"{event.get('protocol', 'quick')} protocol, {'held-out training images' if held_out else 'test images'}"


def hiding() -> bool:
    """Whether the address asks that accuracies be guessed first."""
    return st.query_params.get("reveal") == "0"


def reveal(run: str, guess: float | None = None) -> None:
    """Show what was measured of a run from now on, beside the guess, a fraction, if there was one."""
    st.session_state.guesses = {**st.session_state.get("guesses", {}), run: guess}


def hides(run: str) -> bool:
    """Whether the accuracies of a run are hidden still; then asks for a guess. Later shows what it was."""
    if not hiding():
        return False
    guesses = st.session_state.get("guesses", {})
    if run not in guesses:
        with st.container(border=True, key="guess"):
            st.markdown("**Guess first**")
            st.slider(
                "Of a hundred images that it has never seen, a network trained on these alone names right", 0, 100, 50,
                key=f"guess-{run}",
            )  # fmt: skip
            st.button("Show what was measured", key="show-measured", type="primary", on_click=_guessed, args=(run,))
        return True
    guess = guesses[run]
    if guess is not None:
        found = accuracy(store(), run)
        said = f"You guessed {100 * guess:.0f} %. "
        if found is None:
            st.info(said + "Nothing has been measured yet.")
        else:
            off = 100 * (found.value - guess)
            how = "just right" if abs(off) < 0.5 else f"{abs(off):.0f} points {'more' if off > 0 else 'less'}"
            st.info(f"{said}Measured: {found.says}; {how}.")
    return False


def _guessed(run: str) -> None:
    reveal(run, st.session_state[f"guess-{run}"] / 100)
