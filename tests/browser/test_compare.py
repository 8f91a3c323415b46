"""Compare: sets side by side, numbers that may be compared, the data to take away."""

import csv
import io

import pytest
from playwright.sync_api import Page, Route, expect

from engine.runs.store import Store
from tests.browser.helpers import Server, evaluation, go, pick, seed_run, settled, until


@pytest.fixture
def two(server: Server) -> tuple[str, str]:
    """A distilled set and a random baseline of digits, both evaluated."""
    distilled = seed_run(
        server.home, "distill", method="dc", frames=5,
        evaluations=[evaluation("quick", [0.7, 0.8]), evaluation("dc", [0.86, 0.9])],
    )  # fmt: skip
    return distilled, seed_run(server.home, "baseline", kind="random", evaluations=[evaluation("quick", [0.5, 0.54])])


def test_sets_side_by_side_and_their_data(page: Page, server: Server, two: tuple[str, str]) -> None:
    go(page, server, "/compare", dataset="digits", runs=",".join(two))
    expect(page.get_by_role("heading", level=1)).to_have_text("Compare")
    expect(page.get_by_test_id("stTopNav").or_(page.get_by_test_id("stSidebarNav"))).to_contain_text("Your images")
    table = page.get_by_role("table").first
    for text in ("quick, convnet", "dc, convnet", "75.0 ± 5.0 %", "88.0 ± 2.0 %", "52.0 ± 2.0 %"):
        expect(table).to_contain_text(text.replace(" ", "\N{NO-BREAK SPACE}") if "%" in text else text)
    expect(page.locator(".player canvas")).not_to_have_count(0)
    expect(page.get_by_role("img", name="Random real images")).to_be_visible()

    with page.expect_download() as download:
        page.get_by_role("button", name="Download the data (CSV)").click()
    rows = list(csv.DictReader(io.StringIO(download.value.path().read_text())))
    numbers = {(r["run"], r["protocol"], r["network"], r["split"]): float(r["mean"]) for r in rows}
    assert numbers == {
        (two[0], "quick", "convnet", "test"): pytest.approx(0.75),
        (two[0], "dc", "convnet", "test"): pytest.approx(0.88),
        (two[1], "quick", "convnet", "test"): pytest.approx(0.52),
    }


def test_the_address_holds_the_choice(page: Page, server: Server, two: tuple[str, str]) -> None:
    go(page, server, "/compare", dataset="digits", runs=two[1])
    rows = page.get_by_role("table").first.get_by_role("row")
    expect(rows).to_have_count(2)
    page.get_by_role("radio", name="quick, convnet").or_(page.get_by_role("button", name="quick, convnet")).click()
    go(page, server, "/compare", dataset="digits", runs=",".join(two), protocol="dc, convnet")
    expect(rows).to_have_count(3)
    before = page.url
    page.reload()
    expect(rows).to_have_count(3)
    assert page.url == before
    expect(page.locator(".xtitle").first).to_have_text("Test accuracy (%), dc, convnet")


def test_films_have_their_place_before_they_are_drawn(page: Page, server: Server, two: tuple[str, str]) -> None:
    """Else the page would move under the hand of somebody who has begun to use what lies below."""
    held: list[Route] = []
    page.route("**/BidiComponent*.js", lambda route: held.append(route))
    with page.expect_request("**/BidiComponent*.js"):
        go(page, server, "/compare", dataset="digits", runs=",".join(two))
    page.wait_for_function("document.querySelector('.st-key-compare_player').getBoundingClientRect().height > 250")
    assert held
    for route in held:
        route.continue_()
    expect(page.get_by_role("img", name="Random real images")).to_be_visible()


def test_films_share_one_timeline(page: Page, server: Server, two: tuple[str, str]) -> None:
    go(page, server, "/compare", dataset="digits", runs=",".join(two), film="true")
    slider = page.get_by_label("Distillation step")
    slider.press("Home")
    expect(page.get_by_role("img", name="step 0").first).to_be_visible()
    slider.press("End")
    expect(page.get_by_role("img", name="step 40")).to_be_visible()


def test_sets_across_networks(page: Page, server: Server, idle: Store) -> None:
    """Numbers, gaps and what is under way; the gaps are filled with one click."""
    accuracies = {"mlp": 0.3, "lenet": 0.4, "convnet": 0.6}
    run = seed_run(
        server.home, "baseline", kind="ccs", evaluations=[evaluation("quick", [a], n) for n, a in accuracies.items()]
    )
    go(page, server, "/compare", dataset="digits", runs=run)
    heat = page.get_by_role("region", name="Accuracy by set and network")
    expect(heat.get_by_role("columnheader", name="resnet18-bn")).to_be_attached()
    expect(heat.get_by_role("cell", name="60.0")).to_be_visible()
    cells = heat.get_by_role("cell").all_inner_texts()
    assert cells.count("–") == len(cells) - 3
    for names in (["lenet"], ["lenet", "convnet-d2"]):  # one after the other, as the list is drawn anew for each
        pick(page, page.get_by_role("combobox", name="Networks"), names[-1])
        expect(heat.get_by_role("columnheader")).to_have_text(["", *names])
    settled(page)
    with page.expect_download() as download:
        page.locator(".st-key-csv_networks button").first.click()
    (row,) = csv.DictReader(io.StringIO(download.value.path().read_text()))
    assert (row["run"], row["network"], row["protocol"], float(row["mean"])) == (run, "lenet", "quick", 0.4)
    page.get_by_role("button", name="Evaluate 1 missing cell").click()
    (asked,) = until(lambda: idle.runs(kinds=["evaluate"], limit=1), 20, "the missing cell is asked for")
    assert (asked.spec["source"], asked.spec["network"], asked.spec["depth"], asked.spec["protocol"]) == (
        run, "convnet", 2, "quick",
    )  # fmt: skip


@pytest.mark.slow
def test_a_baseline_is_made_and_evaluated_from_the_page(page: Page, server: Server, idle: object) -> None:
    go(page, server, "/compare", dataset="digits", runs="")
    page.get_by_role("button", name="Make a baseline").click()
    students = page.locator(".st-key-baseline_students input")
    students.fill("1")
    students.press("Enter")
    page.get_by_role("button", name="Make this baseline").click()
    table = page.get_by_role("table").first
    expect(table).to_contain_text("1\N{NO-BREAK SPACE}student", timeout=120_000)
    expect(table).to_contain_text("random\N{NO-BREAK SPACE}real")
    page.keyboard.press("Escape")
    settled(page)
    page.get_by_role("button", name="Evaluate a set").click()
    students = page.locator(".st-key-evaluate_students input")
    students.fill("2")
    students.press("Enter")
    page.get_by_role("button", name="Evaluate this set").click()
    expect(table).to_contain_text("2\N{NO-BREAK SPACE}students", timeout=120_000)
