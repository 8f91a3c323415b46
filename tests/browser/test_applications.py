"""Applications: a section asks only when its button is pressed, shows what was found, and keeps it in the link."""

from __future__ import annotations

import csv
import io

from playwright.sync_api import Page, expect

from tests.browser.helpers import Server, go, overflow

SMALL = {"k": 2, "n": 30, "st": 1}


def questions(server: Server) -> int:
    """How many questions were put so far."""
    return len(list((server.home / "probes").glob("*/question.json")))


def test_an_image_is_recovered_from_its_gradient(page: Page, server: Server) -> None:
    before = questions(server)
    go(page, server, "/applications", section="inversion", no="lots", **SMALL)
    for text in ("asked for noise “lots”", "has not been measured"):
        expect(page.get_by_test_id("stAlert").filter(has_text=text)).to_be_visible()
    assert questions(server) == before
    page.get_by_role("button", name="Measure", exact=True).click()
    expect(page.get_by_text("The gradient gives the label of 200 of 200 test images away")).to_be_visible(
        timeout=150_000
    )
    expect(page.locator(".st-key-apply_figure_inversion .plot-container")).to_be_visible()
    found = page.get_by_role("group", name="Test images in the first row").get_by_role("img")
    assert found.evaluate("e => e.naturalWidth") > 100
    with page.expect_download() as download:
        page.get_by_role("button", name="Download images (CSV)").click()
    rows = list(csv.DictReader(io.StringIO(download.value.path().read_text())))
    assert [row["image"] for row in rows] == ["0", "1"] and all(row["read"] == row["label"] for row in rows)
    assert max(float(row["ssim"]) for row in rows) > 0.8
    page.locator(".st-key-take-apply_figure_inversion button").click()
    with page.expect_download() as saved:
        page.get_by_role("button", name="Picture (.svg)").click()
    assert saved.value.suggested_filename == "limbeck-applications-inversion.svg"
    page.keyboard.press("Escape")

    page.reload()
    expect(page.locator(".st-key-apply_figure_inversion .plot-container")).to_be_visible()
    assert questions(server) == before + 1
    page.set_viewport_size({"width": 390, "height": 800})
    page.wait_for_timeout(700)  # charts find their size after the first drawing
    assert overflow(page) == []
