"""Students: trained from the page, kept, looked at, renamed and deleted."""

import csv
import io
import json
import os
import re

import pytest
from PIL import Image
from playwright.sync_api import Page, expect

from engine.runs.store import Store
from engine.spec import build_spec
from tests.browser.helpers import DIGITS, Server, go, overflow, settled, until


def keep_student(server: Server, seed: int, wrong: int, source: str = "full") -> str:
    """A student of digits as a worker leaves it, with 20 test images a class: the first ``wrong`` of the 4s taken for
    9s, on pictures of which the i-th is grey of brightness 10 i."""
    store = Store(server.home)
    spec = build_spec("student", dataset="digits", source=source, seed=seed)
    run = store.submit("student", spec, pid=os.getpid())
    confusion = [[20 * (t == p) for p in range(10)] for t in range(10)]
    confusion[4][4], confusion[4][9] = 20 - wrong, wrong
    facts = {
        "name": store.run(run).title,
        "source": {"kind": "full" if source == "full" else source, "text": "all 1,437 training images of Digits",
                   "run": None, "images": 1437, "ipc": None, "method": None},
        "network": "convnet", "protocol": "full", "seed": seed, "dataset": "digits", "size": 16, "channels": 1,
        "classes": DIGITS, "mean": [0.3], "std": [0.3], "accuracy": (200 - wrong) / 200, "per_class": [1.0] * 10,
        "confusion": confusion, "test_images": 200, "seconds": 3.0, "machine": "a CPU", "parameters": 300_000,
        "mistakes": [{"index": 7 * i, "true": 4, "predicted": 9, "confidence": 0.99 - i / 100} for i in range(wrong)],
        "spec": spec.model_dump(mode="json"),
    }  # fmt: skip
    folder = store.folder(run) / "student"
    folder.mkdir()
    (folder / "student.json").write_text(json.dumps(facts))
    sheet = Image.new("L", (16 * wrong, 16))
    for i in range(wrong):
        sheet.paste(10 * i, (16 * i, 0, 16 * i + 16, 16))
    sheet.save(folder / "mistakes.webp", lossless=True)
    store.announce(run, "done", "Done.")
    return run


def test_students_are_looked_at_named_and_deleted(page: Page, server: Server) -> None:
    first, second = keep_student(server, 0, 4), keep_student(server, 1, 16)
    store = Store(server.home)
    go(page, server, "/students", dataset="digits", students=f"{first},nonsense,{second}", ipc="lots", src="../x")
    expect(page.get_by_role("heading", level=1)).to_have_text("Students")
    for text in ("images per class “lots”", "The training set “../x”", "nonsense"):
        expect(page.get_by_test_id("stAlert").filter(has_text=text)).to_be_visible()
    reports = [page.locator(f".st-key-student-{run}") for run in (first, second)]
    expect(reports[0].get_by_test_id("stMetricValue")).to_have_text("98.0 %")
    expect(reports[1].get_by_test_id("stMetricValue")).to_have_text("92.0 %")
    expect(reports[0].locator(".heatmaplayer")).to_be_visible()
    expect(reports[0].locator("figure")).to_have_count(4)
    expect(reports[1].locator("figure")).to_have_count(12)
    third = reports[0].get_by_role("img", name="Test image 14: 4, taken for 9")
    colour = third.evaluate(
        "i => {const c = document.createElement('canvas').getContext('2d'); c.drawImage(i, 0, 0);"
        " return c.getImageData(8, 8, 1, 1).data[0];}"
    )
    assert colour == 20, "the picture is that of the third mistake"
    assert f"students={first}" in reports[0].locator("figure a").first.get_attribute("href")

    with page.expect_download() as download:
        page.get_by_role("button", name="Download the data (CSV)").first.click()
    rows = {r["run"]: r for r in csv.DictReader(io.StringIO(download.value.path().read_text()))}
    assert (rows[first]["accuracy"], rows[second]["accuracy"], rows[second]["seed"]) == ("0.98", "0.92", "1")

    page.set_viewport_size({"width": 390, "height": 800})
    page.wait_for_timeout(700)  # charts find their size after the first drawing
    assert overflow(page) == []
    page.set_viewport_size({"width": 1280, "height": 720})

    go(page, server, "/students", students=f"{first},{second}")
    settled(page)
    reports[1].get_by_role("button", name="Rename or delete").click()
    name = page.get_by_role("textbox", name="Name").last
    name.fill("Number nine")
    name.press("Enter")
    expect(reports[1].get_by_role("heading", name="Number nine")).to_be_visible()
    assert store.student(second)["name"] == store.run(second).title == "Number nine"
    page.get_by_role("button", name="Delete", exact=True).click()
    expect(reports[1]).to_have_count(0)
    assert store.run(second) is None and not store.folder(second).exists()
    page.wait_for_url(re.compile(rf"students={first}(&|$)"))
    store.delete(first)


@pytest.mark.slow
def test_a_student_is_stopped_trained_and_not_trained_twice(page: Page, server: Server, idle: Store) -> None:
    go(page, server, "/students", dataset="digits", src="random", ipc=500)
    train = page.get_by_role("button", name="Train", exact=True)
    train.click()
    expect(page.get_by_test_id("stAlert").filter(has_text="Images per class (ipc) was 500")).to_be_visible()
    assert not idle.runs(kinds=["student"], statuses=("queued", "running")), "nothing is queued that cannot work"

    go(page, server, "/students", dataset="digits", src="random", ipc=1, net="mlp", ep=10_000, nm="A long one")
    train.click()
    run = until(lambda: idle.runs(kinds=["student"], statuses=("running",)), 60, "the run starts")[0]
    expect(page.get_by_text("A long one —")).to_be_visible()
    page.get_by_test_id("stMainBlockContainer").get_by_role("button", name="Stop").click()
    expect(page.get_by_role("button", name="Start over")).to_be_visible(timeout=60_000)
    assert idle.run(run.id).status == "stopped" and idle.student(run.id) is None
    page.get_by_role("button", name="Discard").click()
    expect(page.get_by_role("button", name="Discard")).to_have_count(0)
    assert idle.run(run.id) is None

    before = len(idle.runs(kinds=["student"], statuses=("done",)))
    go(page, server, "/students", dataset="digits", src="random", ipc=1, net="mlp", ep=3, nm="A short one", n=2)
    page.get_by_role("button", name="Train 2 students").click()
    metrics = page.get_by_test_id("stMetric").filter(has_text="Test accuracy")
    until(lambda: len(idle.runs(kinds=["student"], statuses=("done",))) == before + 2, 120, "both are trained")
    expect(metrics).not_to_have_count(0, timeout=30_000)
    expect(page.get_by_role("heading", name="A short one, seed 1")).to_be_visible(timeout=30_000)
    expect(page.locator("figure img").first).to_be_visible()
    page.reload()
    expect(page.get_by_role("heading", name="A short one, seed 1")).to_be_visible()
    page.get_by_role("button", name="Train 2 students").click()
    expect(page.get_by_text("not trained again")).to_be_visible()
    assert len(idle.runs(kinds=["student"])) == before + 2
