"""The gallery: images take form on the first screen, and every tile leads on."""

from __future__ import annotations

import re

import pytest
from playwright.sync_api import Locator, Page, expect

from tests.browser.helpers import Server, go, seed_run, settled, until

ONE, TEN = "One of each", "Ten of each"


@pytest.fixture
def lively(page: Page) -> Page:
    """The window of somebody who has not asked for less motion."""
    page.emulate_media(reduced_motion="no-preference")
    return page


def tile(page: Page, title: str) -> Locator:
    return page.get_by_role("article", name=title)


def picture(page: Page, title: str) -> str:
    """What a tile shows now."""
    return tile(page, title).get_by_role("img").evaluate("canvas => canvas.toDataURL()")


def grey(page: Page, title: str) -> int:
    """The brightness of a tile's last image: the frames' differ by one."""
    return (
        tile(page, title)
        .get_by_role("img")
        .evaluate("c => c.getContext('2d').getImageData(c.width - 2, c.height - 2, 1, 1).data[0]")
    )


def moves(page: Page, title: str, ms: int = 1500) -> bool:
    before = picture(page, title)
    page.wait_for_timeout(ms)
    return picture(page, title) != before


def test_tiles_move_until_they_are_paused(lively: Page, server: Server) -> None:
    go(lively, server)
    for title in (ONE, TEN):
        seen = set()
        until(lambda title=title, seen=seen: seen.add(grey(lively, title)) or len(seen) >= 4, 20, "its images change")
    lively.get_by_role("button", name="Pause").click()
    last = {ONE: 20 * 9 + 4 + 1, TEN: 20 * 9 + 5 * 3 + 4 + 1}  # of the first four rows
    until(lambda: all(grey(lively, title) == value for title, value in last.items()), 10, "the last images stand")
    assert not moves(lively, ONE, 1000)
    lively.get_by_role("button", name="Play").click()
    until(lambda: grey(lively, ONE) < last[ONE], 10, "it begins again")


def test_the_last_images_stand_still_for_people_who_asked_for_less_motion(page: Page, server: Server) -> None:
    asked = []
    page.on(
        "request",
        lambda request: (
            asked.append(request.url) if "/runs/gallery-" in request.url and "/frames/" in request.url else None
        ),
    )
    go(page, server)
    until(lambda: grey(page, ONE) == 185, 10, "the last images are drawn")
    assert not moves(page, ONE, 1000)
    assert all("/frames/4.webp" in url for url in asked), "nothing else is fetched"
    expect(page.get_by_role("button", name="Play")).to_be_visible()


def test_a_tile_leads_to_its_run_its_form_and_a_student(page: Page, server: Server) -> None:
    go(page, server)
    expect(tile(page, ONE)).to_contain_text("82.0 ± 0.8 % test accuracy, DC protocol, ConvNet, 3 students")
    tile(page, ONE).get_by_role("link", name=f"Open: {ONE}").click()
    page.wait_for_url("**/distil?run=gallery-one")
    expect(page.get_by_role("heading", level=1)).to_have_text("Kuzushiji-MNIST, 1 per class")
    expect(page.get_by_role("img", name="step 4")).to_be_visible()
    page.get_by_role("button", name="One frame back").click()
    expect(page.get_by_role("img", name="step 3")).to_be_visible()

    page.go_back()
    tile(page, ONE).get_by_role("link", name="What if").click()
    page.wait_for_url(re.compile("/distil[?].*d=kmnist.*"))
    expect(page.get_by_role("spinbutton", name="Seed", exact=True)).to_have_value("5")
    expect(page.get_by_role("button", name="Distil", exact=True)).to_be_enabled()

    page.go_back()
    tile(page, TEN).get_by_role("link", name="Train a student").click()
    page.wait_for_url("**/students?*src=gallery-ten*")
    expect(page.get_by_role("combobox", name="Training set")).to_have_value(re.compile("Ten of each"))


def test_the_picture_of_a_tile_is_a_link_too_and_links_open_in_tabs_of_their_own(page: Page, server: Server) -> None:
    go(page, server)
    tile(page, TEN).get_by_role("img").click()
    page.wait_for_url("**/distil?run=gallery-ten")
    page.go_back()
    with page.context.expect_page() as opened:
        tile(page, TEN).get_by_role("link", name="Open").click(modifiers=["ControlOrMeta"])
    expect(opened.value.get_by_role("img", name="step 4")).to_be_visible(timeout=30_000)


@pytest.mark.parametrize(("width", "columns"), [(1280, 4), (900, 2), (390, 1)])
def test_tiles_stand_side_by_side_where_there_is_room(page: Page, server: Server, width: int, columns: int) -> None:
    page.set_viewport_size({"width": width, "height": 800})
    go(page, server)
    expect(tile(page, ONE)).to_be_visible()
    tracks = page.locator(".tiles").evaluate("e => getComputedStyle(e).gridTemplateColumns.split(' ').length")
    assert tracks == columns
    beside = tile(page, ONE).bounding_box()["y"] == tile(page, TEN).bounding_box()["y"]
    assert beside == (columns > 1)


def test_old_links_lead_to_the_run_and_recent_runs_are_a_click_away(page: Page, server: Server) -> None:
    run = seed_run(server.home, "distill", method="dm", frames=3)
    go(page, server, "/", run=run)
    expect(page.get_by_role("img", name="step 20")).to_be_visible()
    assert "/distil?" in page.url
    for start in ("/", "/distil", "/distil?run=gallery-one"):
        go(page, server, start)
        settled(page)
        page.get_by_role("link", name="digits, distribution matching, 1 per class").first.click()
        page.wait_for_url("**/distil?run=2*")
        expect(page.get_by_role("heading", level=1)).to_have_text("Digits, 1 per class")
        expect(page.get_by_role("img", name="step 20")).to_be_visible()
