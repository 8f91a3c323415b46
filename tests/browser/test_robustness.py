"""Robustness: each section asks only when its button is pressed, shows what was measured, and keeps it in the link."""

from __future__ import annotations

import csv
import io
import os

import pytest
from playwright.sync_api import Page, expect

from engine.runs.store import Store
from engine.spec import build_spec
from tests.browser.helpers import Server, go, overflow, settled


def keep_student(server: Server, seed: int, steps: int) -> str:
    """A perceptron that knows shapes a little, written into the store as a worker leaves it."""
    from engine.accel import pick_accel
    from engine.data import load
    from engine.students.fit import fit
    from engine.students.kept import save_student

    store, data = Store(server.home), load("shapes")
    spec = build_spec("student", dataset="shapes", source="full", network="mlp", seed=seed)
    run = store.submit("student", spec, pid=os.getpid())
    accel = pick_accel("cpu", compile=False)
    module = fit(data.train_images, data.train_labels, data, "mlp", seed=seed, steps=steps, accel=accel)
    counts = [[10 * (t == p) for p in range(10)] for t in range(10)]
    facts = {
        "name": f"Perceptron {seed}", "dataset": "shapes", "classes": list(data.classes), "channels": 3, "size": 32,
        "mean": list(data.mean), "std": list(data.std), "network": "mlp", "protocol": "full", "seed": seed,
        "source": {"kind": "random" if seed else "full", "text": "images of Shapes"}, "accuracy": 1.0,
        "per_class": [1.0] * 10, "confusion": counts, "mistakes": [], "test_images": 100, "seconds": 1.0,
        "spec": spec.model_dump(mode="json"),
    }  # fmt: skip
    build = {"name": "mlp", "channels": 3, "size": 32, "classes": 10}
    save_student(store.folder(run) / "student", module, facts, build)
    store.announce(run, "done", "Done.")
    return run


def questions(server: Server) -> int:
    """How many questions were put so far."""
    return len(list((server.home / "probes").glob("*/question.json")))


def test_students_are_questioned_in_each_section(page: Page, server: Server) -> None:
    first, second = keep_student(server, 0, 60), keep_student(server, 1, 2)
    before = questions(server)
    small = {"dataset": "shapes", "students": f"{first},../x,{second}", "n": 40, "na": 10, "ns": 2, "as": 2}
    go(page, server, "/robustness", section="robustness", eps="lots", **small)
    for text in ("attack radius “lots”", "no such student: ../x", "has not been measured"):
        expect(page.get_by_test_id("stAlert").filter(has_text=text)).to_be_visible()
    measure = page.get_by_role("button", name="Measure", exact=True)
    measure.click()
    for figure in ("lanes", "severity", "radii"):
        expect(page.locator(f".st-key-robust_figure_{figure} .plot-container")).to_be_visible(timeout=150_000)
    with page.expect_download() as download:
        page.get_by_role("button", name="Download the data (CSV)").click()
    rows = list(csv.DictReader(io.StringIO(download.value.path().read_text())))
    assert len(rows) == 2 * (1 + 3 * 10 + 2 * 4) and {r["student"] for r in rows} == {first, second}
    clean = {r["student"]: float(r["accuracy"]) for r in rows if r["perturbation"] == "clean"}
    assert clean[first] > clean[second], "the one that was trained longer is the better one"
    expect(page.get_by_role("group", name="A test image under each corruption")).to_be_visible()
    assert questions(server) == before + 1
    page.reload()
    expect(page.locator(".st-key-robust_figure_lanes .plot-container")).to_be_visible()
    page.set_viewport_size({"width": 390, "height": 800})
    page.wait_for_timeout(700)  # charts find their size after the first drawing
    assert overflow(page) == []

    chosen = {"dataset": "shapes", "students": f"{first},{second}"}
    for section, figures, knobs in (
        ("subgroups", ("subgroups", "groups"), {"n": 300, "k": 3, "sm": 5, "sh": 20}),
        ("transfer", ("transfer", "scores"), {"d": "digits", "n": 60, "nt": 40, "ft": 2}),
        ("fooling", ("matrix", "beside"), {"n": 20, "as": 2}),
    ):
        go(page, server, "/robustness", section=section, **chosen, **knobs)
        expect(page.get_by_test_id("stAlert").filter(has_text="has not been measured")).to_be_visible()
        measure.click()
        for figure in figures:
            expect(page.locator(f".st-key-robust_figure_{figure} .plot-container")).to_be_visible(timeout=150_000)
        page.wait_for_timeout(700)
        assert overflow(page) == []
    assert questions(server) == before + 4
    Store(server.home).delete(first)
    Store(server.home).delete(second)


@pytest.mark.slow
def test_without_students_there_is_the_shortcut_which_trains_its_own(page: Page, server: Server, idle: Store) -> None:
    for run in idle.runs(kinds=["student"], limit=1000):
        idle.delete(run.id)
    go(page, server, "/robustness", section="fooling")
    expect(page.get_by_text("No student is trained yet")).to_be_visible()
    expect(page.get_by_role("link", name="Train a student")).to_be_visible()
    go(page, server, "/robustness", n=2, r=1, st=1, tr=60, w=8, net="mlp")
    settled(page)
    before = questions(server)
    button = page.get_by_role("button", name="Train and measure")
    button.click()
    page.get_by_role("button", name="Cancel").click()
    expect(page.get_by_test_id("stAlert").filter(has_text="Cancelled.")).to_be_visible()
    page.get_by_role("button", name="Try again").click()
    expect(page.get_by_text("of their answers, those of all images in")).to_be_visible(timeout=240_000)
    expect(page.locator(".st-key-robust_figure_shortcut .plot-container")).to_be_visible()
    expect(page.get_by_role("group", name="Distilled images of the first repeat")).to_be_visible()
    assert questions(server) == before + 1
