"""Your images: what is wrong is said in a sentence, what is right can be distilled or compared."""

import io
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import Page, expect

from tests.browser.helpers import Server, go

ZIP = 'input[type="file"][accept*="zip"]'


def pets(path: Path, classes: tuple[str, ...] = ("cats", "dogs"), each: int = 8) -> Path:
    """A zip of small images by class."""
    noise = np.random.default_rng(0)
    with zipfile.ZipFile(path, "w") as archive:
        for name in classes:
            for i in range(each):
                buffer = io.BytesIO()
                Image.fromarray(noise.integers(0, 255, (40, 50, 3), np.uint8)).save(buffer, "PNG")
                archive.writestr(f"{name}/{i}.png", buffer.getvalue())
    return path


def test_a_bad_zip_shows_its_sentence(page: Page, server: Server, tmp_path: Path) -> None:
    bad = tmp_path / "holiday.zip"
    bad.write_bytes(b"not a zip at all")
    go(page, server, "/data")
    page.locator(ZIP).first.set_input_files(bad)
    expect(page.get_by_test_id("stAlert").first).to_contain_text("is not a zip that can be read")
    page.locator(ZIP).first.set_input_files(pets(tmp_path / "lonely.zip", classes=("cats",)))
    expect(page.get_by_test_id("stAlert").first).to_contain_text("holds 1 class")
    assert not list((server.home / "uploads").glob("*/*")), "refused uploads are not kept"


def test_a_good_zip_leads_to_the_form(page: Page, server: Server, tmp_path: Path) -> None:
    go(page, server, "/data")
    page.locator(ZIP).first.set_input_files(pets(tmp_path / "pets.zip"))
    expect(page.get_by_text("16 images of 2 classes, 8 each")).to_be_visible()
    expect(page.get_by_role("img", name="images of each class")).to_be_visible()
    page.reload()
    expect(page.get_by_text("16 images of 2 classes, 8 each")).to_be_visible()
    page.get_by_role("button", name="Distil these").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("Distil")
    expect(page.get_by_role("combobox", name="Dataset")).to_have_value("Your images: pets")


def test_a_path_that_is_not_there(page: Page, server: Server) -> None:
    go(page, server, "/data")
    field = page.get_by_role("textbox", name="or a folder or .zip on this machine")
    field.fill("no/such/folder")
    field.press("Enter")
    expect(page.get_by_test_id("stAlert").first).to_contain_text("There is no folder or .zip")


@pytest.mark.slow
def test_a_set_from_elsewhere_is_imported(page: Page, server: Server, tmp_path: Path, idle: object) -> None:
    import torch

    torch.save((torch.rand(10, 1, 16, 16), torch.arange(10)), tmp_path / "theirs.pt")
    go(page, server, "/data")
    page.locator('input[type="file"][accept*="pt"]').first.set_input_files(tmp_path / "theirs.pt")
    page.get_by_role("combobox", name="Dataset").click()
    page.get_by_role("option", name="digits").or_(page.get_by_role("option", name="Digits")).first.click()
    page.get_by_role("button", name="Import this set").click()
    page.get_by_role("link", name="Compare it").click(timeout=60_000)
    expect(page.get_by_role("heading", level=1)).to_have_text("Compare")
    expect(page.get_by_role("table").first).to_contain_text("theirs, imported")


@pytest.mark.slow
def test_a_file_that_holds_code_is_refused(page: Page, server: Server, tmp_path: Path, idle: object) -> None:
    import pickle

    (tmp_path / "bad.pt").write_bytes(pickle.dumps(print))
    go(page, server, "/data")
    page.locator('input[type="file"][accept*="pt"]').first.set_input_files(tmp_path / "bad.pt")
    page.get_by_role("button", name="Import this set").click()
    expect(page.get_by_test_id("stAlert").last).to_contain_text("bad.pt", timeout=60_000)
