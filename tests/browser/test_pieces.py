"""Image by image in the browser: ten values, edits with undo, and a quiz."""

from __future__ import annotations

import re
from collections.abc import Iterator
from urllib.parse import parse_qs

import pytest
from playwright.sync_api import Page, expect

from engine.runs.store import Store
from tests.browser.helpers import Server, go, guess, overflow, publish_average, settled, struck, until
from tests.browser.test_accessibility import violations


@pytest.fixture(scope="module")
def digits(server: Server) -> Iterator[str]:
    yield publish_average(Store(server.home))


def asked(page: Page) -> dict[str, str]:
    """What is in the address; ``page.url`` is only brought up to date by other calls."""
    return {key: value[0] for key, value in parse_qs(page.evaluate("location.search")[1:]).items()}


def press(page: Page, name: str) -> None:
    """Press a button once what is left of the run before is gone."""
    button = page.get_by_role("button", name=name)
    expect(button).to_have_count(1, timeout=60_000)
    expect(button).to_be_enabled(timeout=60_000)
    button.click()


def done(page: Page, text: str) -> None:
    """Wait until that is what was done. While a new run of the page comes in, its text may be there twice."""
    expect(page.get_by_text(text).first).to_be_visible(timeout=30_000)
    settled(page)


def accessible(page: Page) -> None:
    """Nothing serious for axe once the page has settled, and nothing sticks out of a phone's screen."""
    grave: list[str] = []
    for _ in range(4):
        page.wait_for_timeout(700)
        grave = violations(page)
        if not grave:
            break
    assert not grave, "\n".join(grave)
    page.set_viewport_size({"width": 390, "height": 720})
    page.wait_for_timeout(700)
    assert overflow(page) == []


def test_ten_images_are_valued(page: Page, server: Server, digits: str) -> None:
    go(page, server, "/pieces", run=digits, st=1, n=100)
    page.get_by_role("button", name="Work out the values").click()
    figures = page.locator(".worth figure")
    expect(figures).to_have_count(10, timeout=150_000)
    for caption in figures.locator("b").all_inner_texts():
        assert re.fullmatch(r"[+-]\d+\.\d", caption.strip()), caption
    expect(page.locator(".st-key-pieces_heat .plot-container")).to_be_visible()
    settled(page)
    page.wait_for_timeout(2500)  # the chart finds its size, and the page below it moves
    page.get_by_text("Least valuable first").click()
    until(lambda: asked(page).get("order") == "worst", 20)

    def numbers() -> list[float]:
        return [float(text) for text in figures.locator("b").all_inner_texts()]

    until(lambda: len(numbers()) == 10 and numbers() == sorted(numbers()), 20, "the values ascend")
    with page.expect_download() as download:
        page.get_by_role("button", name="Download the values (CSV)").click()
    assert download.value.suggested_filename == "limbeck-values.csv"
    accessible(page)


def test_an_edit_is_seen_and_taken_back(page: Page, server: Server, digits: str) -> None:
    go(page, server, "/pieces", section="edit", run=digits, image=3, n=100, st=1)
    changed = page.locator(".edited .changed")
    expect(page.locator(".edited figure")).to_have_count(10, timeout=60_000)
    expect(changed).to_have_count(0)
    board = page.get_by_role("application")
    board.scroll_into_view_if_needed()
    box = board.bounding_box()
    assert box
    page.mouse.move(box["x"] + 30, box["y"] + box["height"] / 2)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] - 30, box["y"] + box["height"] / 2, steps=6)
    page.mouse.up()
    page.get_by_role("button", name="Use this mask").click()
    page.get_by_role("button", name="Erase the mask").click()
    expect(changed).to_have_count(1, timeout=30_000)
    done(page, "Image 3: a part erased.")
    expect(page.get_by_test_id("stMetric")).to_have_count(3, timeout=60_000)
    until(lambda: asked(page).get("ed", "").startswith("3:erase:@16."), 20)
    press(page, "Mirror")
    done(page, "Image 3: a part erased; image 3: mirrored.")
    press(page, "Undo edit")
    done(page, "Image 3: a part erased.")
    press(page, "Redo edit")
    done(page, "Image 3: a part erased; image 3: mirrored.")
    press(page, "Reset")
    expect(changed).to_have_count(0, timeout=30_000)
    done(page, "Nothing is edited yet.")
    accessible(page)


def test_an_edited_set_is_one_like_any_other(page: Page, server: Server, digits: str) -> None:
    go(page, server, "/pieces", section="edit", run=digits, ed="3:swap:1 4:label:5", n=100, st=1)
    page.get_by_text("Save as a new set").click(timeout=60_000)
    page.get_by_label("Name", exact=True).fill("Digits with a swap")
    page.get_by_role("button", name="Save", exact=True).click()
    store = Store(server.home)
    (run,) = until(lambda: store.runs(kinds=("edit",), statuses=("done",)), 60)
    assert run.title == "Digits with a swap" and store.result_folder(run.id)
    page.get_by_role("link", name="Compare it with the set it was made from").click()
    expect(page.get_by_role("heading", name="Compare")).to_be_visible()
    expect(page.get_by_text("Digits with a swap").first).to_be_visible(timeout=30_000)


def test_a_quiz_is_played_with_the_keyboard(page: Page, server: Server, digits: str) -> None:
    go(page, server, "/pieces", section="quiz", run=digits, q=3)
    for question in range(1, 4):
        guess(page, question, 3, "7")
        name = f"Question {question}: an image whose class is to be guessed"
        expect(page.get_by_role("img", name=name)).to_be_visible()
        if question == 1:
            accessible(page)
        after = page.get_by_text(f"Question {question + 1} of 3" if question < 3 else "Everybody so far")
        struck(page, "Enter", after)
    expect(page.get_by_test_id("stMetric").filter(has_text="You")).to_contain_text("of 3", timeout=30_000)
    expect(page.get_by_text(re.compile("1 person, 3 answers"))).to_be_visible()
    expect(page.locator(".st-key-quiz_confusion .plot-container")).to_be_visible()
