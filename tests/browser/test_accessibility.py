"""axe-core finds nothing serious on any page, with sets and students there and a map drawn."""

from __future__ import annotations

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Page, expect

from engine.probes.applications.specs import APPLICATIONS as APPLIED
from tests.browser.helpers import Server, evaluation, go, keep_student, seed_run

STUDENTS = ("/students", "/attribution", "/bias", "/robustness")
APPLICATIONS = tuple(f"/applications?section={probe.id}" for probe in APPLIED)
PATHS = ("/", "/distil", "/sweep", "/compare", "/pieces", *APPLICATIONS, "/data", *STUDENTS, "/terms")


@pytest.fixture(scope="module")
def students(server: Server) -> str:
    seed_run(server.home, "distill", method="dc", frames=2, evaluations=[evaluation("dc", [0.86, 0.9])])
    made = [keep_student(server, 10, "distilled", "Fig", "lenet"), keep_student(server, 11, "random", "Date", "lenet")]
    return ",".join(student.id for student in made)


@pytest.mark.slow
@pytest.mark.parametrize("path", PATHS)
def test_nothing_keeps_people_from_using_a_page(page: Page, server: Server, students: str, path: str) -> None:
    page.emulate_media(color_scheme="light")
    here = {"dataset": "digits", "students": students} if path in STUDENTS else {}
    go(page, server, path, **here, **({"m": "saliency"} if path == "/attribution" else {}))
    if path == "/attribution":
        expect(page.locator(".maps figure")).to_have_count(3, timeout=150_000)
    for scheme in ("light", "dark"):
        page.emulate_media(color_scheme=scheme)
        for _ in range(4):  # what fades in, or is grey while the page renews it, has too little contrast for a moment
            page.wait_for_timeout(1000)
            grave = violations(page)
            if not grave:
                break
        assert not grave, f"{scheme}: " + "\n".join(grave)


def violations(page: Page) -> list[str]:
    """What axe calls serious or critical, each with the element."""
    return [
        f"{v['id']}: {node['failureSummary']} {node['html'][:200]}"
        for v in Axe().run(page).response["violations"]
        if v["impact"] in ("serious", "critical")
        for node in v["nodes"]
    ]
