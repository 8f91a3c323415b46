"""What holds for every page: it fits, it has a heading, it survives a broken link; the server stays light."""

import pytest
from playwright.sync_api import Page, expect

from tests.browser.helpers import Server, evaluation, go, loaded_torch, overflow, seed_run, until

PATHS = (
    "/", "/distil", "/sweep", "/compare", "/data", "/students", "/attribution", "/bias", "/robustness", "/pieces",
    "/applications", "/terms",
)  # fmt: skip


@pytest.fixture(scope="module", autouse=True)
def some_runs(server: Server) -> None:
    seed_run(server.home, "distill", method="dc", frames=3, evaluations=[evaluation("dc", [0.86, 0.9])])
    seed_run(server.home, "baseline", kind="kmeans", ipc=10, evaluations=[evaluation("dsa", [0.9, 0.92, 0.94])])


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 390])
@pytest.mark.parametrize("path", PATHS)
def test_every_page_fits_and_has_one_heading(page: Page, server: Server, path: str, width: int, scheme: str) -> None:
    page.emulate_media(color_scheme=scheme)
    page.set_viewport_size({"width": width, "height": 720})
    go(page, server, path)
    expect(page.locator("h1")).to_have_count(1)
    page.wait_for_timeout(700)  # charts and players find their size after the first drawing
    assert overflow(page) == []
    ink, paper = page.get_by_test_id("stApp").evaluate(
        "e => [getComputedStyle(e).color, getComputedStyle(e).backgroundColor]"
        ".map(c => c.match(/[\\d.]+/g).slice(0, 3).reduce((a, b) => a + Number(b), 0))"
    )
    assert (paper > ink) == (scheme == "light")


@pytest.mark.parametrize(
    "address",
    [
        "/?run=../../../etc/passwd",
        "/distil?run=../../../etc/passwd",
        "/?run=20261121-0423-mnist-dc-1-gone5",
        "/?v=1&d=nothing&m=magic&ipc=100000&lr=nan&s=-1",
        "/distil?v=99&ipc=",
        "/?v=1&d=folder:",
        "/compare?dataset=nothing&runs=a,b,,%00,c",
        "/compare?dataset=digits&runs=../..&protocol=none&film=perhaps",
        "/compare?runs=",
        "/data?dataset=folder:/no/such/place%00&import=../x",
        "/data?dataset=digits",
        "/students?dataset=nothing&look=../..,%00&source=gone",
        "/attribution?dataset=nothing&students=../..,b,,&method=magic&index=-1",
        "/bias?dataset=nothing&students=a,b&view=none",
        "/robustness?dataset=nothing&students=../..&section=none",
        "/pieces?run=../..&section=none&ed=0:melt&st=-1",
        "/applications?ds=nothing&section=none&i=-1",
        "/applications?section=inversion&ds=folder:",
    ],
)
def test_a_broken_link_does_not_break_the_page(page: Page, server: Server, address: str) -> None:
    page.goto(server.url + address)
    expect(page.locator("h1")).to_be_visible(timeout=30_000)
    until(lambda: page.get_by_test_id("stApp").get_attribute("data-test-script-state") == "notRunning", 30)


def test_the_server_does_not_load_torch(page: Page, server: Server) -> None:
    for path in PATHS:
        go(page, server, path)
    if loaded_torch(server.pid) is None:
        pytest.skip("this system does not list the libraries of a process")
    assert loaded_torch(server.pid) is False


@pytest.mark.parametrize(
    "path", ["/api/runs/..%2F..%2Fx/frames", "/api/runs/none-at-all/frames/1.webp", "/api/runs/none-at-all/result.zip"]
)
def test_routes_refuse_what_is_outside_the_store(server: Server, path: str) -> None:
    from urllib.error import HTTPError

    with pytest.raises(HTTPError) as answer:
        server.get(path)
    assert answer.value.code in (400, 404)


@pytest.mark.parametrize(("path", "section"), [("/bias", "Probes"), ("/applications", "What if"), ("/compare", "")])
def test_the_bar_shows_which_section_the_page_is_in(page: Page, server: Server, path: str, section: str) -> None:
    go(page, server, path)
    for title in ("Probes", "What if"):
        weight = "600" if title == section else "400"
        expect(page.get_by_test_id("stTopNavSection").filter(has_text=title)).to_have_css("font-weight", weight)
