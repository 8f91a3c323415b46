"""Texture & shape: asked of students that are here, shared by its address, and without any student."""

import csv
import io
import os
import re

import pytest
from playwright.sync_api import Page, expect

from engine.data.shapes import load
from engine.networks import make_network
from engine.runs.store import Store
from engine.spec import build_spec
from engine.students.kept import save_student
from tests.browser.helpers import Server, go, overflow


def keep(server: Server, seed: int, kind: str, name: str) -> str:
    """An untrained student of shapes, kept as a worker leaves it."""
    store, data = Store(server.home), load()
    spec = build_spec("student", dataset="shapes", network="mlp", seed=seed)
    run = store.submit("student", spec, pid=os.getpid())
    build = {"name": "mlp", "channels": 3, "size": 32, "classes": 10, "width": 128}
    facts = {
        "name": name, "dataset": "shapes", "network": "mlp", "protocol": "quick", "seed": seed, "size": 32,
        "channels": 3, "classes": list(data.classes), "mean": list(data.mean), "std": list(data.std),
        "source": {"kind": kind, "text": kind, "run": None, "images": 10, "ipc": 1, "method": "dm"},
        "accuracy": 0.125, "per_class": [0.125] * 10, "confusion": [[10] * 10] * 10, "mistakes": [],
        "test_images": 1000, "seconds": 1.0, "machine": "a CPU", "parameters": 400_000,
        "spec": spec.model_dump(mode="json"),
    }  # fmt: skip
    save_student(store.folder(run) / "student", make_network(**build, seed=seed), facts, build)
    store.announce(run, "done", "Done.")
    return run


def forget(store: Store) -> None:
    for run in store.runs(kinds=["student"], dataset="shapes"):
        store.delete(run.id)


@pytest.fixture(autouse=True)
def nobody(server: Server):
    """No student of shapes before, and none after."""
    forget(Store(server.home))
    yield
    forget(Store(server.home))


def table(page: Page, label: str) -> list[dict[str, str]]:
    """What a download button gives."""
    with page.expect_download() as download:
        page.get_by_role("button", name=label, exact=True).click()
    return list(csv.DictReader(io.StringIO(download.value.path().read_text())))


@pytest.mark.slow
def test_students_are_asked_for_texture_and_shape(page: Page, server: Server, idle: Store) -> None:
    first, second = keep(server, 0, "distilled", "Apple"), keep(server, 1, "random", "Pear")
    go(
        page,
        server,
        "/bias",
        dataset="shapes",
        students=f"{first},nobody,{second}",
        n=40,
        s="minus",
        section="conflict",
    )
    expect(page.get_by_role("heading", level=1)).to_have_text("Texture & shape")
    expect(page.get_by_test_id("stAlert").filter(has_text="seed “minus”")).to_be_visible()
    expect(page.get_by_test_id("stAlert").filter(has_text="nobody")).to_be_visible()
    plot = page.locator(".js-plotly-plot")
    expect(plot).to_have_count(1, timeout=60_000)
    expect(plot.locator(".scatterlayer .trace")).not_to_have_count(0)
    expect(page.locator(".st-key-bias_examples img")).to_have_count(8)
    rows = {row["observer"]: row for row in table(page, "Summary (CSV)")}
    assert set(rows) == {"Apple", "Pear"}
    for row in rows.values():
        assert row["trials"] == "40" and int(row["shape"]) + int(row["texture"]) + int(row["other"]) == 40
        assert float(row["low"]) <= float(row["bias"]) <= float(row["high"])
    assert len(table(page, "All decisions (CSV)")) == 80
    page.set_viewport_size({"width": 390, "height": 800})
    page.wait_for_timeout(700)  # charts find their size after the first drawing
    assert overflow(page) == []
    page.set_viewport_size({"width": 1280, "height": 720})

    page.get_by_role("radiogroup").get_by_text("Five experiments").click()
    expect(page.get_by_role("img", name="Examples of the experiment silhouette")).to_be_visible(timeout=60_000)
    page.wait_for_url(re.compile("section=five"))
    page.get_by_role("radiogroup").get_by_text("Error consistency").click()
    expect(page.locator(".js-plotly-plot .heatmaplayer")).to_be_visible(timeout=60_000)
    kappas = {(r["first"], r["second"]): float(r["kappa"]) for r in table(page, "Download the data (CSV)")}
    assert kappas["Apple", "Apple"] == 1 and -1 <= kappas["Apple", "Pear"] < 1
    page.get_by_role("radiogroup").get_by_text("Does distilling change it?").click()
    expect(page.get_by_text("there are too few students to tell")).to_be_visible(timeout=60_000)
    expect(page.get_by_text(re.compile("These networks are not trained"))).to_have_count(0)
    page.reload()
    expect(page.get_by_text("there are too few students to tell")).to_be_visible(timeout=60_000)


def test_links_that_are_broken_and_students_that_are_missing_are_said(page: Page, server: Server) -> None:
    go(page, server, "/bias", dataset="shapes", section="nowhere", source="magic", study='{"seeds": "many"}')
    expect(page.get_by_text("No student of Shapes is trained yet")).to_be_visible()
    expect(page.get_by_role("link", name="Train a student")).to_have_attribute("href", re.compile("students"))
    expect(page.get_by_test_id("stAlert").filter(has_text="magic")).to_be_visible()
    page.get_by_role("radiogroup").get_by_text("Does distilling change it?").click()
    expect(page.get_by_test_id("stAlert").filter(has_text="Students of each kind (seeds) was")).to_be_visible()
    go(page, server, "/bias", dataset="shapes", section="study", study='{"counts": "10", "sets": "none", "minutes": 3}')
    expect(page.get_by_text("not trained yet. That takes up to 3 minutes")).to_be_visible()
    expect(page.get_by_role("button", name="Run this study")).to_be_visible()
    page.set_viewport_size({"width": 390, "height": 800})
    page.wait_for_timeout(500)
    assert overflow(page) == []
