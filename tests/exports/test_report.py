"""A run as one HTML page: what it holds, that it asks nobody for anything, that nothing in it is anybody's code."""

from __future__ import annotations

import argparse
import base64
import hashlib
import html
import io
import json
import re
import shlex
from html.parser import HTMLParser

import pytest
from PIL import Image

from engine import cli, words
from engine.exports import export, report
from engine.exports.curves import Line, curve
from engine.presets import PRESETS
from engine.runs.store import Store
from engine.spec import build_spec
from tests.exports.runs import a_run, evaluation

HOSTILE = '"><script>alert(1)</script><img src=http://evil.example/x>'


@pytest.fixture
def store(tmp_path) -> Store:
    return Store(tmp_path)


class Page(HTMLParser):
    """Elements with their attributes in order, and the text."""

    def __init__(self, text: str):
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text, self.scripts, self.open = "", [], []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))
        if tag == "script":
            self.scripts.append("")
        if tag not in ("meta", "img", "input", "br"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag, tag

    def handle_data(self, data):
        if self.open and self.open[-1] == "script":
            self.scripts[-1] += data
        elif "style" not in self.open:
            self.text += data

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]


def read(store: Store, id: str) -> tuple[str, Page]:
    text = export(store, id, "html").decode()
    page = Page(text)
    assert page.open == [], "every element is closed"
    return text, page


def test_it_asks_nobody_for_anything(store):
    text, page = read(store, a_run(store))
    for _, attributes in page.elements:
        for name in ("src", "href", "srcset", "action", "data", "poster", "xlink:href"):
            value = attributes.get(name)
            assert value is None or value.startswith("data:image/webp;base64,"), (name, value)
    assert not page.all("link") and not page.all("iframe") and "@import" not in text and "url(" not in text
    assert not re.findall(r"https?://", text), "not even as text"
    policy = next(m["content"] for m in page.all("meta") if m.get("http-equiv"))
    assert "default-src 'none'" in policy and "img-src data:" in policy and "unsafe-inline'; script" in policy
    (code,) = [s for s in page.scripts if "getElementById" in s]
    digest = base64.b64encode(hashlib.sha256(code.encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}'" in policy, "this script, and no other"


def test_what_people_wrote_is_text(store):
    names = (HOSTILE, "</script>", *map(str, range(8)))
    id = a_run(store, title=HOSTILE, channels=3, classes=names)
    store.append(id, [("reference", 0, {"label": HOSTILE, "kind": "random", "accuracy": 0.5})])
    text, page = read(store, id)
    assert "<script>alert" not in text and "<img src=http" not in text
    assert len(page.scripts) == 2 and len(page.all("img")) == 1
    assert HOSTILE in page.text and html.escape(HOSTILE) in text
    film = json.loads(next(s for s in page.scripts if s.startswith("{")))
    assert film["frames"][0][0] == 0


def test_the_film_is_carried_whole_and_stands_still_without_a_script(store):
    id = a_run(store)
    _, page = read(store, id)
    film = json.loads(next(s for s in page.scripts if s.startswith("{")))
    assert [frame[0] for frame in film["frames"]] == [0, 1, 5, 20]
    for step, source, _ in film["frames"]:
        content = base64.b64decode(source.split(",")[1])
        assert content == store.frame_path(id, step).read_bytes()
        assert Image.open(io.BytesIO(content)).size == (160, 32)
    (image,) = page.all("img")
    assert image["src"] == film["frames"][-1][1] and "10 columns" in image["alt"]
    controls = next(a for a in page.all("div") if a.get("id") == "controls")
    assert "hidden" in controls, "no buttons that do nothing"
    _, still = read(store, a_run(store, (0,)))
    assert not still.all("button") and "script-src 'none'" in still.all("meta")[1]["content"]


def test_a_long_film_is_thinned_to_the_limit(store, monkeypatch):
    id = a_run(store, tuple(range(90)))
    monkeypatch.setattr(report, "LIMIT", 40_000)
    text, page = read(store, id)
    film = json.loads(next(s for s in page.scripts if s.startswith("{")))
    assert len(text) <= 40_000 and 4 <= len(film["frames"]) <= 80 and film["frames"][-1][0] == 89


def test_numbers_come_with_all_that_they_mean(store):
    id = a_run(
        store,
        evaluations=(
            evaluation("quick", [0.5]),
            evaluation("dc", [0.81, 0.83, 0.82]),
            evaluation("dsa", [0.7], "lenet"),
        ),
    )
    _, page = read(store, id)
    assert "82.0 ± 0.8 % of the test images right" in page.text.replace("\n", " ")
    for part in ("DC protocol, ConvNet, 3 students", "81.0, 83.0, 82.0", "0, 1, 2", "ConvNet-3 of width 128", "LeNet"):
        assert part in page.text, part
    for part in ("10 s, 20 steps", "38 s", "a CPU", "standard deviation over"):
        assert part in page.text, part
    curves = [a["aria-label"] for a in page.all("svg")]
    assert curves == [
        "Accuracy while distilling: 50.0 % at first, 70.0 % at last",
        "Loss while distilling: 3 at first, 0.1429 at last",
    ]
    assert "Random real images 60.0 %" in page.text


def test_headings_are_in_order_and_pictures_have_words(store):
    _, page = read(store, a_run(store))
    levels = [tag for tag, _ in page.elements if re.fullmatch("h[1-6]", tag)]
    assert levels[0] == "h1" and set(levels[1:]) == {"h2"} and levels.count("h1") == 1
    assert page.all("html")[0]["lang"] == "en"
    assert all(a.get("alt") for a in page.all("img")) and all(a.get("aria-label") for a in page.all("svg"))
    assert all(a.get("scope") for a in page.all("th"))
    assert {a["name"]: a["content"] for a in page.all("meta") if a.get("name")}["viewport"].startswith("width=device")


def test_every_setting_that_had_a_say_is_there_in_words(store):
    _, page = read(store, a_run(store, init="kmeans", seed=9))
    for part in (
        "k-means centres",
        "Gradient matching",
        "Image learning rate",
        "Seed of everything random",
        "the method's own",
    ):
        assert part in page.text, part
    assert "Image size" not in page.text, "which only folders have"


def test_a_folder_of_somebodys_own_keeps_its_path_to_itself(store, tmp_path):
    path = tmp_path / "secret-place" / "pets"
    text, page = read(store, a_run(store, dataset=f"folder:{path}"))
    assert "secret-place" not in text and "Your images: pets" in page.text and "--dataset folder:pets" in page.text


# ---- the command that makes it again --------------------------------------------------------------------------------


def parsed(line: str, kind: str):
    """The spec that the command line makes of a command."""
    program = shlex.split(line)
    assert program[:3] == ["python", "-m", "engine"]
    args: argparse.Namespace = cli._parser().parse_args(program[3:])
    rows = cli._run_flags() if kind == "distill" else cli.parameters(cli.SPECS[kind])
    return build_spec(kind, **{**cli.QUICK_DEFAULTS, **cli._given(args, rows)})


@pytest.mark.parametrize("id", PRESETS)
def test_the_command_makes_the_same_run(id):
    spec = PRESETS[id].spec
    assert parsed(words.command("distill", spec.model_dump(mode="json")), "distill") == spec


@pytest.mark.parametrize(
    "values",
    [
        {"steps": 7, "students": 0, "deterministic": True, "augment": False, "lr_img": 0.1 + 0.2},
        {"method": "frepo", "zca": True, "network": "convnet-wide", "minutes": 12.5, "seed": 2**31 - 1, "factor": 2},
        {"method": "mtt", "lr_img": 1e5, "expert_rate": 1e-5},
        {"dataset": "folder:/tmp/some where/it's here", "size": 64, "protocol": "dc", "device": "cpu"},
    ],
)
def test_the_command_says_whatever_is_not_the_default(values):
    spec = build_spec("distill", **values)
    assert parsed(words.command("distill", spec.model_dump(mode="json")), "distill") == spec


def test_a_baseline_has_a_command_too():
    spec = build_spec("baseline", dataset="mnist", kind="forgetting", ipc=3, never_learned="first")
    assert parsed(words.command("baseline", spec.model_dump(mode="json")), "baseline") == spec
    assert words.command("import", {}) == ""


# ---- curves ---------------------------------------------------------------------------------------------------------


def heights(svg: str) -> list[float]:
    return [float(p.split(",")[1]) for p in re.search(r'<polyline class="line" points="([^"]*)"', svg)[1].split()]


def test_a_curve_goes_up_where_its_values_do():
    found = heights(curve([(0, 1.0), (1, 2.0), (2, 1.5)], title="t", across="a", up="u"))
    assert found[1] < found[2] < found[0], "y grows downwards in an SVG"


def test_a_curve_over_many_powers_is_logarithmic_and_one_with_negatives_is_not():
    evenly = heights(curve([(0, 1e-3), (1, 1e-1), (2, 1e1)], title="t", across="a", up="u"))
    assert evenly[0] - evenly[1] == pytest.approx(evenly[1] - evenly[2], abs=0.2)
    heights(curve([(0, -1000.0), (1, 0.0), (2, 1.0)], title="t", across="a", up="u"))


@pytest.mark.parametrize("points", [[(0, 0.0)], [(0, 5.0), (0, 5.0)], [(3, 1e-12), (4, 1e12)], [(0, 1.0)] * 2000])
def test_odd_curves_are_drawn_inside(points):
    svg = curve(points, title="<t>", across="a", up="u", lines=[Line("<l>", points[0][1], "random")], marked=True)
    assert "<t>" not in svg and "&lt;l&gt;" in svg
    assert all(0 <= y <= 250 for y in heights(svg)) and len(heights(svg)) <= 402
    assert curve([], title="t", across="a", up="u") == ""
