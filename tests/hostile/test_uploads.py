"""Uploads on the page Your images: each is taken or refused in a sentence, and lies nowhere but among the uploads."""

from __future__ import annotations

import html
from pathlib import Path

import pytest
from streamlit.testing.v1 import AppTest

from engine.errors import Refused
from engine.runs.store import Store
from tests.hostile.archives import WILD_CLASSES, entries, files, raw_zip
from tests.hostile.case import Case, bounded, is_sentence, name_of
from tests.hostile.uploads import IMAGES, SETS

ROOT = Path(__file__).parents[2]


def opened(**query: str) -> AppTest:
    at = AppTest.from_file(str(ROOT / "app.py"), default_timeout=60).switch_page("pages/data.py")
    for key, value in query.items():
        at.query_params[key] = value
    return at.run()


@pytest.fixture
def page(inside, compiled_once) -> AppTest:
    return opened()


def kept(inside: Path) -> list[Path]:
    """What lies among the uploads, each in a folder of its own, under a name that is nobody's choice."""
    uploads = inside.parents[1] / "home" / "uploads"
    found = [p for p in uploads.rglob("*") if p.is_file()]
    assert all(len(p.parent.name) == 16 and p.parent.parent == uploads for p in found)
    assert all(p.name.replace("-", "").replace("_", "").replace(".", "").isalnum() and len(p.name) < 70 for p in found)
    return found


@pytest.mark.parametrize("case", IMAGES, ids=name_of)
def test_uploaded_images(inside, page, case: Case) -> None:
    name, content = case.make()
    with bounded():
        page.file_uploader(key="data_upload").set_value((name, content, "application/zip")).run()
    assert not page.exception
    said = [e.value for e in page.error]
    if said:
        case.refused(Refused(said[0]))
        assert kept(inside) == []
    else:
        case.read(page)
        assert len(kept(inside)) == 1 and "12 images of 2 classes" in " ".join(m.value for m in page.markdown)


@pytest.mark.parametrize("case", SETS, ids=name_of)
def test_an_uploaded_set(inside, page, case: Case) -> None:
    name, content = case.make()
    page.file_uploader(key="import_file").set_value((name, content, "application/octet-stream"))
    page.run()
    with bounded():
        next(b for b in page.button if b.label == "Import this set").click().run()
    assert not page.exception and not page.error
    (run,) = Store(inside.parents[1] / "home").runs()
    assert is_sentence(f"{run.title}.") and [Path(run.spec["path"])] == kept(inside)


def test_names_of_classes_are_text_on_the_page(inside, compiled_once) -> None:
    """Whatever a class is called, it is shown as that and is no part of the page."""
    (inside / "a.zip").write_bytes(raw_zip(entries(files(WILD_CLASSES.values()))))
    at = opened(dataset=f"folder:{inside / 'a.zip'}")
    assert not at.exception and not at.error
    (body,) = [e.proto.body for e in at.get("html") if 'class="heads"' in e.proto.body]
    for name in WILD_CLASSES.values():
        assert html.escape(name) in body and (name not in body or html.escape(name) == name)
    assert "onerror=alert(1)>" not in body and "<script" not in body
