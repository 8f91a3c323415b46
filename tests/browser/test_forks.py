"""Forking in a browser: from the frame shown to two branches side by side, and a sweep that is watched."""

from __future__ import annotations

import json
from urllib.parse import parse_qs

import pytest
from playwright.sync_api import Page, expect

from engine.runs.store import Store
from tests.browser.helpers import Server, evaluation, go, overflow, seed_run, until
from tests.browser.test_distil import step
from tests.browser.test_pieces import accessible

TINY = {"w": 8, "dep": 2, "br": 16, "st": 0, "v": 1, "d": "digits", "m": "dm"}


def query(page: Page, key: str) -> str:
    return parse_qs(page.evaluate("location.search")[1:]).get(key, [""])[0]


@pytest.mark.slow
def test_a_fork_from_the_frame_shown_plays_beside_its_parent(page: Page, server: Server, idle: Store) -> None:
    parent = seed_run(server.home, "distill", method="dm", frames=6, side=16, steps=60, width=8, depth=2, students=0)
    idle.update(parent, step=50)
    go(page, server, "/distil", run=parent)
    expect(page.locator(".player[data-drawn]")).to_be_visible(timeout=60_000)
    page.get_by_label("Distillation step").focus()
    page.keyboard.press("Home")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowRight")
    until(lambda: step(page) == 20, 10, "the third frame is shown")
    page.get_by_role("button", name="Fork here").click()
    expect(page.get_by_role("heading", name="Fork at step 20")).to_be_visible()
    assert query(page, "fork") == "20"
    expect(page.get_by_text("8 bits a channel")).to_be_visible()
    rate = page.get_by_role("spinbutton", name="Image learning rate")
    expect(rate).to_have_value("1")
    rate.fill("0.5")
    rate.press("Enter")
    expect(page.get_by_text("Changes Image learning rate: 0.5.")).to_be_visible()
    until(lambda: query(page, "lr") == "0.5", 10, "the address holds what is changed")
    page.reload()
    expect(page.get_by_role("spinbutton", name="Image learning rate")).to_have_value("0.5", timeout=30_000)
    accessible(page)
    page.set_viewport_size({"width": 1280, "height": 720})
    page.get_by_role("button", name="Start the fork").click()
    expect(page.locator(".player .panel")).to_have_count(2, timeout=60_000)
    fork = query(page, "run")
    assert query(page, "beside") == parent and fork != parent
    until(lambda: idle.run(fork).status == "done", 120, "the fork is done")
    assert idle.frames(fork)[0] == 20 and idle.frames(fork)[-1] == 60
    expect(page.locator(".player figcaption").first).to_have_text("Forked at step 20: Image learning rate: 0.5")
    expect(page.locator(".family li")).to_have_count(2)
    expect(page.locator(".family a[aria-current]")).to_contain_text("At step 20")
    page.get_by_label("Distillation step").focus()
    page.keyboard.press("Home")
    steps = page.locator(".player .grid")
    until(
        lambda: all("step 20" in (steps.nth(i).get_attribute("aria-label") or "") for i in (0, 1)),
        10, "both begin where they part",
    )  # fmt: skip
    assert overflow(page) == []
    page.locator(".family > li > a").click()
    expect(page.locator(".player .panel")).to_have_count(1, timeout=30_000)
    assert query(page, "run") == parent


@pytest.mark.slow
def test_a_sweep_of_twelve_cells_is_watched_to_its_figures(page: Page, server: Server, idle: Store) -> None:
    go(page, server, "/sweep", **TINY, n=4, over="ipc=1,2;lr_img=0.5,1;seed=0..2")
    expect(page.get_by_text("12 cells")).to_be_visible()
    page.get_by_role("button", name="Start the sweep").click()
    expect(page.locator(".cells > li")).to_have_count(12, timeout=30_000)
    id = query(page, "sweep")
    expect(page.locator(".cells img").first).to_be_visible(timeout=60_000)
    until(lambda: all(r.status == "done" for r in idle.cells(id).values()), 240, "all cells are done")
    expect(page.get_by_text("12 of 12 cells done")).to_be_visible(timeout=30_000)
    expect(page.get_by_role("heading", name="Cost")).to_be_visible()
    for place, run in idle.cells(id).items():
        idle.add_evaluation(run.id, evaluation("quick", [0.3 + 0.02 * place, 0.4]))
    page.reload()
    expect(page.locator(".cells > li")).to_have_count(12, timeout=30_000)
    expect(page.get_by_text("Test accuracy (quick protocol, ConvNet). Bars: 95 % t interval")).to_be_visible()
    expect(page.locator(".js-plotly-plot")).to_have_count(4, timeout=30_000)
    for width in (1280, 390):
        page.set_viewport_size({"width": width, "height": 800})
        until(lambda: overflow(page) == [], 10, "nothing sticks out")
    page.locator(".cells a").first.click()
    expect(page.locator(".player[data-drawn]")).to_be_visible(timeout=60_000)
    assert json.loads(server.get(f"/api/runs/{query(page, 'run')}/frames"))["frames"][-1][0] == 4
