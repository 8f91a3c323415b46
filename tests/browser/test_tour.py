"""The guided tour in a browser: it goes on by keys, lights up what it speaks of, asks, and every stop is a link."""

from __future__ import annotations

import re

import pytest
from playwright.sync_api import Browser, Locator, Page, expect

from engine.runs.store import Store
from engine.tour import STOPS
from tests.browser.helpers import Server, evaluation, go, overflow, seed_run, settled
from tests.browser.test_accessibility import violations


@pytest.fixture(scope="module", autouse=True)
def run(server: Server) -> str:
    """A finished run by gradient matching, with what a question needs."""
    made = seed_run(server.home, "distill", method="dc", frames=3, evaluations=[evaluation("dc", [0.86, 0.9])])
    live = {"accuracy": 0.61, "protocol": "quick", "split": "held-out", "students": 2, "seconds": 2.0, "step": 20}
    random = {"label": "Random real images", "kind": "random", "accuracy": 0.5, "protocol": "quick"}
    Store(server.home).append(made, [("accuracy", 20, live), ("reference", 0, random)])
    return made


def card(page: Page) -> Locator:
    return page.get_by_role("region", name="Guided tour")


def at(page: Page, stop: int) -> None:
    """The card shows a stop, counted from 1."""
    expect(card(page).get_by_role("heading")).to_have_text(STOPS[stop - 1].title)
    expect(page).to_have_url(re.compile(rf"[?&]tour={stop}\b"))


def test_the_tour_asks_lights_up_and_can_be_shared(page: Page, server: Server, browser: Browser, run: str) -> None:
    go(page, server, d="digits")
    page.get_by_role("link", name="Guided tour").click()
    at(page, 1)
    expect(page).to_have_url(re.compile(run))
    expect(page.get_by_text("Guess first")).to_be_visible()
    expect(page.get_by_text("Test accuracy")).to_have_count(0)
    card(page).get_by_role("button", name="These ten").click()
    expect(card(page)).to_contain_text("Right. Measured: distilled 61.0 %, random real images 50.0 % (quick protocol")
    expect(page.get_by_text("Test accuracy")).to_be_visible()

    page.keyboard.press("ArrowRight")
    at(page, 2)
    lit = page.locator(".method .compared")
    page.get_by_role("button", name="their distance").hover()  # which must not move it away from under the pointer
    page.wait_for_timeout(300)
    expect(lit).to_have_attribute("data-lit", "distance")
    page.get_by_role("button", name="their distance").click()
    expect(lit).to_have_attribute("data-lit", "distance")
    expect(card(page)).to_contain_text("Lit: the comparison")
    page.wait_for_timeout(300)  # the page scrolls there
    assert lit.bounding_box()["y"] + 10 < card(page).bounding_box()["y"], "the card covers nothing that it speaks of"

    context = browser.new_context(viewport={"width": 390, "height": 800})
    other = context.new_page()
    other.goto(page.url)
    at(other, 2)
    expect(other.get_by_role("heading", level=1)).to_have_text(page.get_by_role("heading", level=1).inner_text())
    assert overflow(other) == []
    context.close()

    settled(page)
    page.get_by_role("slider", name="Distillation step").press("ArrowLeft")
    at(page, 2)  # where an arrow key has a meaning of its own it keeps it
    card(page).get_by_role("button", name="Close the tour").click()
    expect(card(page)).to_have_count(0)
    expect(page).to_have_url(re.compile(rf"run={run}$"))
    expect(lit).not_to_have_attribute("data-lit", "distance")


@pytest.mark.slow
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_everybody_can_use_the_card(page: Page, server: Server, scheme: str) -> None:
    page.emulate_media(color_scheme=scheme)
    for stop in (1, 2):
        go(page, server, tour=stop)
        at(page, stop)
        for _ in range(4):  # what fades in has too little contrast for a moment
            page.wait_for_timeout(1000)
            if not (grave := violations(page)):
                break
        assert not grave, "\n".join(grave)
