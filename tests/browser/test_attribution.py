"""Attribution: maps beside each other, shared by their address; drawn pictures, painted masks and training images."""

import csv
import io
import re

import pytest
import torch
from playwright.sync_api import Page, expect

from engine.data import load
from engine.runs.store import Store
from tests.browser.helpers import Server, go, keep_student, overflow, settled


def table(page: Page, label: str) -> list[dict[str, str]]:
    """What a download button gives."""
    with page.expect_download() as download:
        page.get_by_role("button", name=label, exact=True).click()
    return list(csv.DictReader(io.StringIO(download.value.path().read_text())))


@pytest.mark.slow
def test_maps_of_two_students_and_the_method_that_suits_only_one(page: Page, server: Server, idle: Store) -> None:
    students = [
        keep_student(server, 0, "distilled", "Apple", "lenet"),
        keep_student(server, 1, "random", "Pear", "convnet"),
    ]
    apple, pear = (student.id for student in students)
    go(page, server, "/attribution", dataset="digits", students=f"{apple},nobody,{pear}", image="test:3:2",
       m="saliency", n="lots", section="nonsense")  # fmt: skip
    expect(page.get_by_role("heading", level=1)).to_have_text("Attribution")
    expect(page.get_by_test_id("stAlert").filter(has_text="steps “lots”")).to_be_visible()
    expect(page.get_by_test_id("stAlert").filter(has_text="nobody")).to_be_visible()

    data = load("digits")
    index = int(torch.nonzero(data.test_labels == 3)[2])
    image = (data.test_images[index : index + 1].float() / 255).requires_grad_()
    cards = page.locator(".maps figure")
    expect(cards).to_have_count(3, timeout=150_000)
    expect(cards.nth(0)).to_contain_text(f"Test image {index} of Digits")
    rows = table(page, "Maps (CSV)")
    for i, student in enumerate(students):
        logits = student.module(student.prepare(image))[0]
        best = int(logits.argmax())
        said = re.search(r"Says (\d) \(([\d.]+) %\)", cards.nth(i + 1).inner_text())
        assert said and int(said[1]) == best
        assert float(said[2]) == pytest.approx(100 * float(logits.detach().softmax(0)[best]), abs=0.11)
        gradient = torch.autograd.grad(logits[best], image)[0][0, 0].abs()
        mine = torch.tensor([float(r["attribution"]) for r in rows if r["id"] == student.id]).view(16, 16)
        assert torch.allclose(mine, gradient, rtol=1e-2, atol=1e-4), "the map is the size of the gradient"

    page.get_by_role("combobox", name="Method").click()
    page.get_by_role("option", name="DeepLift").click()
    expect(cards.nth(2)).to_contain_text("no rule for the normalisation layers of convnet", timeout=90_000)
    expect(cards.nth(2).locator("img")).to_have_count(0)
    expect(cards.nth(1).locator("img")).to_have_count(2)
    expect(cards.nth(1)).to_contain_text("Completeness gap")
    page.wait_for_url(re.compile("m=deeplift"))
    page.reload()
    expect(cards.nth(2)).to_contain_text("no rule for the normalisation layers of convnet")
    expect(cards.nth(0)).to_contain_text(f"Test image {index} of Digits")

    page.get_by_role("button", name="Sanity check").click()
    expect(page.get_by_text(re.compile("with all weights random"))).to_be_visible(timeout=90_000)
    assert [row["layer"] for row in table(page, "Download the data (CSV)")][0] == "trained"

    page.get_by_role("radio", name="Disputed").click()
    expect(page.get_by_text(re.compile(r"Of 360 test images they answer .* differently"))).to_be_visible(timeout=90_000)
    page.wait_for_url(re.compile(r"image=test%3A\d+(&|$)"))
    page.set_viewport_size({"width": 390, "height": 844})
    page.wait_for_timeout(700)  # charts find their size after the first drawing
    assert overflow(page) == []
    for id in (apple, pear):
        idle.delete(id)


@pytest.mark.slow
def test_a_drawing_a_painted_mask_and_the_images_that_did_it(page: Page, server: Server, idle: Store) -> None:
    student = keep_student(server, 2, "full", "Plum", "lenet")
    go(page, server, "/attribution", dataset="digits", students=student.id, m="saliency", pick="draw", image="file:x")
    expect(page.get_by_text("That is no name of a kept picture")).to_be_visible(timeout=90_000)
    board = page.get_by_role("application")
    box = board.bounding_box()
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + 30)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] - 60, steps=4)
    page.mouse.up()
    cards = page.locator(".maps figure")
    expect(cards.nth(0)).to_contain_text("Your picture", timeout=90_000)
    page.wait_for_url(re.compile(r"image=file%3A[0-9a-f]{24}\.png"))
    colours = (
        cards.nth(0)
        .locator("img")
        .evaluate(
            "async i => {await i.decode(); const c = document.createElement('canvas').getContext('2d');"
            " c.canvas.width = i.naturalWidth; c.canvas.height = i.naturalHeight; c.drawImage(i, 0, 0);"
            " const at = (x, y) => c.getImageData(x * i.naturalWidth, y * i.naturalHeight, 1, 1).data[0];"
            " return [at(0.5, 0.5), at(0.05, 0.5)];}"
        )
    )
    assert colours[0] > 200 and colours[1] == 0, "a white stroke down the middle of a black picture"

    page.get_by_role("radio", name="Object or context?").click()
    expect(page.get_by_text("Paint over the object on the left")).to_be_visible(timeout=90_000)
    mask = page.get_by_role("application", name="Paint over the object")
    mask.focus()
    for key in ("Space", *["ArrowDown"] * 4, "Space"):  # a stroke from the middle downwards
        mask.press(key)
    page.get_by_role("button", name="Use this mask").click()
    expect(page.get_by_role("img", name="An image under the five conditions")).to_be_visible(timeout=90_000)
    rows = table(page, "Download the data (CSV)")
    assert {row["subset"] for row in rows} == {"all"} and len(rows) == 5, "nobody knows what the drawing is"
    assert 0.03 < float(rows[0]["area"]) < 0.25

    page.get_by_role("radio", name="Which training image did it?").click()
    expect(page.get_by_text("1,000 of its 1,437 training images were looked at").first).to_be_visible(timeout=90_000)
    rows = table(page, "Download the data (CSV)")
    assert {row["direction"] for row in rows} == {"up", "down", "similar"}
    page.reload()
    expect(page.get_by_role("img", name="Nearest in feature space")).to_be_visible(timeout=90_000)
    settled(page)
    idle.delete(student.id)
