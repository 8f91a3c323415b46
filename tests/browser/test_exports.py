"""What one can take away, taken with a click: files of a run, charts as pictures and numbers, a run to another home."""

from __future__ import annotations

import csv
import io
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest
from PIL import Image
from playwright.sync_api import Locator, Page, expect

from engine.exports import export
from engine.runs.store import Store
from tests.browser.helpers import Server, evaluation, go, overflow, seed_run, settled
from tests.exports.runs import a_run

SVG = "{http://www.w3.org/2000/svg}"


def saved(page: Page, button: Locator) -> bytes:
    """What a click downloads."""
    with page.expect_download() as download:
        button.click()
    return download.value.path().read_bytes()


def chart_files(page: Page, key: str) -> tuple[ET.Element, Image.Image, list[dict[str, str]]]:
    """A chart as SVG, PNG and rows, by way of the control below it."""
    page.locator(f".st-key-take-{key} button").first.click()
    content = {
        kind: saved(page, page.get_by_role("button", name=f"({kind})", exact=False).last)
        for kind in (".svg", ".png", ".csv")
    }
    page.keyboard.press("Escape")
    rows = list(csv.DictReader(io.StringIO(content[".csv"].decode())))
    return ET.fromstring(content[".svg"]), Image.open(io.BytesIO(content[".png"])), rows


def test_a_run_and_its_curves_are_taken_away(page: Page, server: Server) -> None:
    run = a_run(Store(server.home))
    go(page, server, "/distil", run=run)
    settled(page)
    page.get_by_role("button", name="Export", exact=True).click()
    starts = {"GIF": b"GIF89a", "Contact sheet (.png)": b"\x89PNG", "Report (.html)": b"<!doctype html>",
              "Whole run (.zip)": b"PK", ".npz": b"PK"}  # fmt: skip
    for name, start in starts.items():
        assert saved(page, page.get_by_role("button", name=name, exact=True)).startswith(start), name
    page.keyboard.press("Escape")
    drawn, picture, rows = chart_files(page, "accuracy")
    assert drawn.tag == f"{SVG}svg" and len(drawn.findall(f".//{SVG}path")) > 4
    assert "Random real images" in "".join(drawn.itertext())
    assert picture.format == "PNG" and picture.width == 3 * round(float(drawn.get("width")))
    assert [r["accuracy"] for r in rows][:2] == ["0.5", "0.51"] and rows[-1]["what"] == "Random real images"
    page.get_by_text("Train on this set without Limbeck").click()
    expect(page.get_by_text("82.0 ± 0.8 % test accuracy (DC protocol").first).to_be_visible()
    page.set_viewport_size({"width": 390, "height": 800})
    page.wait_for_timeout(700)
    assert overflow(page) == []


def test_a_finished_chart_is_saved_as_it_is_drawn(page: Page, server: Server) -> None:
    runs = [
        seed_run(server.home, "distill", method="dc", evaluations=[evaluation("quick", [a, a + 0.04])])
        for a in (0.7, 0.6)
    ]
    go(page, server, "/compare", dataset="digits", runs=",".join(runs))
    expect(page.locator(".st-key-compare_chart .js-plotly-plot .xtitle")).to_be_visible()
    settled(page)
    drawn, picture, rows = chart_files(page, "compare_chart")
    assert "Test accuracy (%), quick, convnet" in "".join(drawn.itertext())
    assert not [e for e in drawn.iter() if e.get("class") == "hoverlayer"]
    colours = picture.convert("RGB").getcolors(2**24)
    assert len(colours) > 20 and max(colours)[1] == (253, 252, 249), "on the page's own ground"
    copper = sum(n for n, c in colours if abs(c[0] - 180) < 20 and abs(c[1] - 98) < 20 and abs(c[2] - 45) < 20)
    assert copper > 500, "the markers are there"
    assert {r["run"] for r in rows} == set(runs) and {r["protocol"] for r in rows} == {"quick"}


@pytest.mark.slow
def test_a_run_goes_from_one_home_to_another(page: Page, server: Server, tmp_path: Path, idle: Store) -> None:
    elsewhere = Store(tmp_path / "elsewhere")
    path = tmp_path / "their-run.zip"
    path.write_bytes(export(elsewhere, a_run(elsewhere, title="Theirs"), "run"))
    go(page, server, "/data")
    page.locator('input[type="file"][accept*="pt"]').first.set_input_files(path)
    page.get_by_role("button", name="Import this set").click()
    page.get_by_role("link", name="Look at it").click(timeout=60_000)
    expect(page.get_by_role("heading", level=1)).to_have_text("Theirs, imported")
    expect(page.get_by_test_id("stMetric").filter(has_text="Test accuracy")).to_contain_text("82.0 ± 0.8 %")
    expect(page.get_by_role("img", name="step 20")).to_be_visible()
    page.get_by_label("Distillation step").press("Home")
    expect(page.get_by_role("img", name="step 0")).to_be_visible()
