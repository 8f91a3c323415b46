"""Distil: a click starts it, the picture moves, and the run outlives the page."""

import json
import re
from dataclasses import asdict
from typing import Any

import pytest
from playwright.sync_api import Page, expect

from engine.probes.desk import Answer, Desk, write_json
from engine.probes.distilling.specs import FeatureMapSpec
from engine.runs.store import Store
from tests.browser.helpers import DIGITS, Server, go, seed_run, until

LONG = {"v": 1, "d": "digits", "m": "dm", "ipc": 1, "min": 3, "st": 0}  # nobody waits for its end


def distil(page: Page, server: Server, **settings: Any) -> str:
    """Open the form by a link, press the button; the run's id, once its first image is drawn."""
    go(page, server, "/distil", **settings)
    page.get_by_role("button", name="Distil", exact=True).click()
    page.wait_for_url("**/*run=*")
    expect(page.locator(".player[data-drawn]")).to_be_visible(timeout=90_000)
    return page.url.split("run=")[1].split("&")[0]


def grey(page: Page) -> int:
    """The brightness of the picture's first pixel."""
    return page.locator(".player canvas:not(.loupe canvas)").first.evaluate(
        "c => c.getContext('2d').getImageData(1, 1, 1, 1).data[0]"
    )


def step(page: Page) -> int:
    """The step that the player shows, 0 before its first. A page that is drawn anew may have two for a moment."""
    grids = page.locator(".player .grid[aria-label]")
    label = grids.evaluate_all("all => all.at(-1)?.getAttribute('aria-label') || 'step 0'")
    return int(label.split("step ")[1].split(",")[0])


@pytest.mark.slow
def test_from_the_click_to_a_result(page: Page, server: Server, idle: Store) -> None:
    run = distil(page, server, v=1, d="digits", m="dm", ipc=1, n=12, st=2, p="quick")
    expect(page.get_by_text("Finished", exact=True)).to_be_visible(timeout=240_000)
    expect(page.get_by_test_id("stMetric").filter(has_text="Test accuracy")).to_contain_text("%")
    expect(page.get_by_text("2 students, quick protocol")).to_be_visible()
    film = json.loads(server.get(f"/api/runs/{run}/frames"))
    assert film["frames"][0][0] == 0 and film["frames"][-1][0] == 12
    first, last = (server.get(f"/api/runs/{run}/frames/{n}.webp") for n in (0, 12))
    assert first != last, "the images have changed"
    page.locator(".player .band canvas").first.hover(position={"x": 12, "y": 12})
    for told in ("0", "Share in lowering the loss: ", "Nearest real image: "):
        expect(page.locator(".loupe")).to_contain_text(told)
    page.locator(".player .band canvas").first.click(position={"x": 12, "y": 12})
    expect(page.get_by_role("link", name="Change it")).to_have_attribute("href", re.compile(f"run={run}&image=0$"))
    page.mouse.move(1, 1)
    expect(page.locator(".loupe")).to_be_hidden()  # although the tiles moved under the pointer
    page.locator(".player .stage").press("Shift+ArrowRight")
    expect(page.get_by_role("link", name="Change it")).to_have_attribute("href", re.compile("image=1$"))
    expect(page.locator(".player .leads b")).to_have_text("1")
    page.get_by_role("button", name="Speed, timeline and view").click()
    page.get_by_label("Timeline", exact=True).select_option("by real images seen")
    expect(page.locator(".player .facts", has_text="real images seen")).to_be_visible()
    page.get_by_label("Show", exact=True).select_option("difference from the class mean")
    expect(page.get_by_role("img", name="difference from the class mean")).to_be_visible()
    page.get_by_role("button", name="Export", exact=True).click()
    with page.expect_download() as download:
        page.get_by_role("button", name="Images (.zip)").click()
    assert download.value.path().read_bytes()[:2] == b"PK"
    page.keyboard.press("Escape")
    page.get_by_role("link", name="Change it").click()
    expect(page.get_by_role("heading", name="Image by image")).to_be_visible(timeout=60_000)
    expect(page.get_by_role("combobox", name="Image", exact=True)).to_have_value("Image 1 · 1", timeout=60_000)


@pytest.mark.slow
def test_a_reload_shows_the_same_run_still_going(page: Page, server: Server, idle: Store) -> None:
    run = distil(page, server, **LONG)
    expect(page.get_by_role("heading", level=1)).not_to_have_text("Distil")  # the form's: the run's comes after it
    title = page.get_by_role("heading", level=1).inner_text()
    before = until(lambda: step(page), 60, "a step beyond the first")
    page.reload()
    expect(page.get_by_role("heading", level=1)).to_have_text(title)
    expect(page.get_by_text("Live", exact=True)).to_be_visible()
    assert f"run={run}" in page.url
    until(lambda: step(page) > before, 60, "the run goes on")


@pytest.mark.slow
def test_pause_resume_and_stop(page: Page, server: Server, idle: Store) -> None:
    run = distil(page, server, **LONG)
    until(lambda: step(page), 60, "a step beyond the first")
    page.get_by_role("button", name="Pause", exact=True).click()
    expect(page.get_by_text("Paused", exact=True)).to_be_visible()
    held = idle.run(run).step
    page.wait_for_timeout(1500)
    assert idle.run(run).step == held, "a paused run stands still"
    page.get_by_role("button", name="Resume").click()
    expect(page.get_by_role("button", name="Pause", exact=True)).to_be_visible()
    until(lambda: step(page) > held, 60, "the run goes on")
    page.get_by_role("button", name="Stop").click()
    expect(page.get_by_text("Stopped", exact=True)).to_be_visible(timeout=60_000)
    assert idle.run(run).status == "stopped"


def test_the_timeline_goes_back_through_what_has_happened(page: Page, server: Server) -> None:
    run = seed_run(server.home, "distill", method="dm", frames=5)
    go(page, server, "/distil", run=run)
    expect(page.get_by_role("img", name="step 40")).to_be_visible()
    until(lambda: grey(page) == 200, 10, "the last frame is drawn")
    slider = page.get_by_label("Distillation step")
    slider.press("Home")
    expect(page.get_by_role("img", name="step 0")).to_be_visible()
    until(lambda: grey(page) == 0, 10, "the first frame is drawn")
    slider.press("ArrowRight")
    until(lambda: grey(page) == 50, 10, "the second frame is drawn")
    page.get_by_role("button", name="One frame on").click()
    until(lambda: grey(page) == 100, 10, "the third frame is drawn")


def test_the_map_goes_where_the_film_is_brought_to_rest(page: Page, server: Server) -> None:
    run, desk, steps = seed_run(server.home, "distill", method="dm", frames=5), Desk(server.home), range(0, 50, 10)
    spots = [{"kind": "real", "class": c, "image": i, "step": None, "x": i, "y": 1.0} for i, c in enumerate(DIGITS)]
    spots += [{**spot, "kind": "synthetic", "step": step, "y": step} for spot in spots for step in steps]
    facts = {"classes": DIGITS, "network": "a random ConvNet", "share": 0.5}
    folder = desk.root / desk.ask("feature-map", FeatureMapSpec(run=run))
    write_json(folder / "answer.json", asdict(Answer({"points": spots}, facts)))
    go(page, server, "/distil", run=run, map="true")
    beside = page.get_by_text("synthetic ones at step")
    expect(beside).to_contain_text("at step 40,")
    expect(page.get_by_role("img", name="step 40")).to_be_visible()
    page.get_by_label("Distillation step").press("Home")
    expect(beside).to_contain_text("at step 0,")
    page.get_by_role("button", name="One frame on").click()
    expect(beside).to_contain_text("at step 10,")
    page.get_by_label("Distillation step").fill("1000")
    expect(beside).to_contain_text("at step 40,")


def test_a_link_holds_where_the_film_is_and_what_is_shown(page: Page, server: Server) -> None:
    run = seed_run(server.home, "distill", method="dm", frames=5)
    go(page, server, "/distil", run=run)
    expect(page.get_by_role("img", name="step 40")).to_be_visible()
    for key in ("Home", "ArrowRight"):
        page.get_by_label("Distillation step").press(key)
    page.get_by_role("button", name="Speed, timeline and view").click()
    page.get_by_label("Show", exact=True).select_option("change since the start")
    page.get_by_label("Timeline", exact=True).select_option("by distilling time")
    page.get_by_text("Where its images lie among real ones").click()
    page.get_by_text("Show where the images lie among real ones").click()
    page.wait_for_url(lambda url: all(part in url for part in ("at=10", "layer=start", "timeline=seconds", "map=true")))

    page.goto(page.url)  # as in another browser: nothing of this page is left
    expect(page.get_by_role("img", name="change since the start, 10 classes, step 10")).to_be_visible()
    expect(page.get_by_label("Timeline", exact=True)).to_have_value("seconds")
    expect(page.get_by_role("switch", name="Show where the images lie")).to_be_checked()
    page.get_by_label("Distillation step").press("End")
    page.wait_for_url(lambda url: "at=" not in url and "layer=start" in url)

    go(page, server, "/distil", run=run, at="a lot", layer="<b>", timeline="9", arrange="wipe")
    expect(page.get_by_role("img", name="step 40")).to_be_visible()


def test_a_picture_comes_without_a_script_run_for_each_frame(page: Page, server: Server) -> None:
    run = seed_run(server.home, "distill", method="dm", frames=5)
    sent = []
    page.on("websocket", lambda socket: socket.on("framesent", lambda frame: sent.append(frame)))
    go(page, server, "/distil", run=run)
    expect(page.get_by_role("img", name="step 40")).to_be_visible()
    page.wait_for_timeout(500)
    sent.clear()
    for key in ("Home", "ArrowRight", "ArrowRight", "End"):
        page.get_by_label("Distillation step").press(key)
        page.wait_for_timeout(150)
    assert not sent
