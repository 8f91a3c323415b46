"""A seminar in two browsers: the presenter leads, a viewer follows, is told what is not theirs, and looks around."""

from __future__ import annotations

import pytest
from playwright.sync_api import Browser, Page, expect

from engine import seminar
from engine.runs.store import Store
from engine.spec import build_spec
from tests.browser.conftest import HARMLESS, serving
from tests.browser.helpers import Server, go, guess, publish_average, seed_run, settled, struck, until

KEY = "a-key-for-tests"


@pytest.fixture(scope="module")
def room(tmp_path_factory: pytest.TempPathFactory):
    """A server in seminar mode, with one run of five frames."""
    home = tmp_path_factory.mktemp("seminar")
    seed_run(home, "distill", method="dm", frames=5)
    with serving(home, **{seminar.VARIABLE: KEY}) as running:
        yield running


@pytest.fixture
def windows(browser: Browser, room: Server):
    """The presenter's and a viewer's; their consoles must stay clean."""
    contexts = [browser.new_context(viewport={"width": 1280, "height": 720}, reduced_motion="reduce") for _ in range(2)]
    pages, errors = [context.new_page() for context in contexts], []
    for page in pages:
        page.set_default_timeout(20_000)
        page.set_default_navigation_timeout(60_000)
        page.on(
            "console", lambda m: errors.append(f"{m.text} ({m.location.get('url')})") if m.type == "error" else None
        )
        page.on("pageerror", lambda e: errors.append(str(e)))
    yield pages
    for context in contexts:
        context.close()
    assert not [e for e in errors if not any(h in e for h in HARMLESS)], errors


def heading(page: Page, text: str) -> None:
    expect(page.get_by_role("heading", level=1, name=text)).to_be_visible()


def bar(page: Page):
    return page.get_by_role("region", name="Seminar")


def test_a_viewer_follows_is_told_and_goes_their_own_way(windows, room: Server):
    presenter, viewer = windows
    go(presenter, room, key=KEY)
    assert KEY not in presenter.url
    go(viewer, room)
    expect(bar(viewer)).to_contain_text("Following the presenter")
    expect(bar(presenter)).to_contain_text("You present: 1 follows")
    assert KEY not in presenter.content() + viewer.content()

    presenter.get_by_role("link", name="Compare").click()
    heading(viewer, "Compare")
    presenter.reload()  # the right is kept
    expect(bar(presenter)).to_contain_text("You present")

    bar(viewer).get_by_role("button", name="Look around on my own").click()
    expect(bar(presenter)).to_contain_text("0 follow")
    presenter.get_by_role("link", name="Students").click()
    heading(presenter, "Students")
    heading(viewer, "Compare")
    bar(viewer).get_by_role("button", name="Back to the presenter").click()
    heading(viewer, "Students")

    viewer.get_by_role("link", name="Distil", exact=True).click()
    heading(viewer, "Distil")
    expect(bar(viewer)).to_contain_text("On my own")
    button = viewer.get_by_role("button", name="Distil", exact=True)
    expect(button).to_be_disabled()
    settled(viewer)

    def told() -> bool:  # the button moves when the replay beside it comes: then, like a person, point at it again
        viewer.mouse.move(1, 1)
        button.evaluate("button => button.scrollIntoView({block: 'center'})")
        button.hover(force=True)
        viewer.wait_for_timeout(1000)
        return viewer.get_by_text("Only the presenter can start runs here.").first.is_visible()

    until(told, 20, "the viewer is told why")
    heading(presenter, "Students")


def test_the_film_is_where_the_presenter_has_it_until_a_viewer_takes_it(windows, room: Server):
    presenter, viewer = windows
    run = next(r.id for r in Store(room.home).runs(kinds=("distill",)) if not r.gallery)
    go(presenter, room, key=KEY)
    go(viewer, room)
    go(presenter, room, run=run)
    for page in windows:  # another film, the replay, has gone
        heading(page, "Digits, 1 per class")
        settled(page)
    step = {page: page.locator(".player .facts div", has_text="step").locator("dd") for page in windows}
    expect(step[presenter]).to_have_text("40")
    expect(step[viewer]).to_have_text("40")
    presenter.locator(".player .stage").focus()
    presenter.keyboard.press("Home")
    expect(step[viewer]).to_have_text("0")
    presenter.keyboard.press("ArrowRight")
    expect(step[viewer]).to_have_text("10")

    viewer.locator(".player .stage").focus()
    viewer.keyboard.press("End")
    expect(bar(viewer)).to_contain_text("On my own")
    expect(step[viewer]).to_have_text("40")
    presenter.keyboard.press("ArrowRight")
    expect(step[presenter]).to_have_text("20")
    expect(step[viewer]).to_have_text("40")
    bar(viewer).get_by_role("button", name="Back to the presenter").click()
    expect(step[viewer]).to_have_text("20", timeout=40_000)

    presenter.get_by_text("Where its images lie among real ones").click()
    presenter.get_by_text("Show where the images lie among real ones").click()
    viewer.wait_for_url(lambda url: "map=true" in url and "at=20" in url, timeout=40_000)
    expect(viewer.get_by_role("switch", name="Show where the images lie")).to_be_checked()
    expect(step[viewer]).to_have_text("20")


@pytest.mark.slow
def test_a_step_in_slow_motion_halts_for_everybody(windows, room: Server):
    presenter, viewer = windows
    store = Store(room.home)
    go(presenter, room, key=KEY)
    go(viewer, room)
    run = store.submit("distill", build_spec("distill", dataset="digits", method="dm", steps=4, students=0))
    until(lambda: store.run(run).status == "done", 120, "four steps are done")
    go(presenter, room, "/distil", run=run)
    presenter.get_by_text("How distribution matching works").click()
    presenter.get_by_text("Take one step in slow motion").click()
    lit = {page: page.locator(".slow .parts [aria-current] h4") for page in windows}
    for page in windows:
        expect(lit[page]).to_have_text("Sample", timeout=120_000)
    for part in ("Look", "Match"):
        presenter.get_by_role("button", name="Next", exact=True).click()
        expect(lit[viewer]).to_have_text(part)
    viewer.get_by_role("button", name="Back", exact=True).click()
    expect(bar(viewer)).to_contain_text("On my own")
    presenter.get_by_role("button", name="Next", exact=True).click()
    expect(lit[presenter]).to_have_text("Move")
    expect(lit[viewer]).to_have_text("Look")


def test_the_presenter_sees_what_everybody_answered_in_a_quiz(windows, room: Server):
    presenter, viewer = windows
    run = publish_average(Store(room.home))
    go(presenter, room, "/pieces", key=KEY, section="quiz", run=run, q=3)
    expect(presenter.get_by_text("Question 1 of 3")).to_be_visible(timeout=90_000)
    go(viewer, room)  # and is led there
    for question in (1, 2, 3):
        guess(viewer, question, 3, "7")
        after = viewer.get_by_text(f"Question {question + 1} of 3" if question < 3 else "Everybody so far")
        struck(viewer, "Enter", after)
    expect(viewer.get_by_text("1 person, 3 answers")).to_be_visible(timeout=30_000)
    expect(presenter.get_by_text("Question 1 of 3")).to_be_visible()
    presenter.get_by_text("Show what everybody answered").click()
    expect(presenter.get_by_text("1 person, 3 answers")).to_be_visible(timeout=30_000)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_type_is_large_until_one_wants_it_smaller(browser: Browser, room: Server, scheme: str):
    context = browser.new_context(viewport={"width": 1280, "height": 720}, color_scheme=scheme)
    page = context.new_page()
    go(page, room, "/compare")
    size = "getComputedStyle(document.documentElement).fontSize"
    colours = "() => ['color', 'backgroundColor'].map(c => getComputedStyle(document.querySelector('.stApp'))[c])"
    until(lambda: page.evaluate(size) == "18px", 20, "the type is large")
    page.set_viewport_size({"width": 1920, "height": 1080})
    assert page.evaluate(size) == "26px"
    black, white = "rgb(0, 0, 0)", "rgb(255, 255, 255)"
    assert page.evaluate(colours) == ([black, white] if scheme == "light" else [white, black])
    bar(page).get_by_role("button", name="Large type").click()
    page.wait_for_url("**seminar=0**")
    page.wait_for_function(f"{size} === '16px'")
    context.close()
