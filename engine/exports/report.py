"""A run as one HTML page that opens anywhere, offline: images, curves, results, settings (torch-free)."""

from __future__ import annotations

import base64
import hashlib
import html
import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from engine import words
from engine.data.catalogue import DATASETS
from engine.exports.curves import Line, curve
from engine.exports.facts import Story, thinned
from engine.methods import METHODS
from engine.students.protocols import TRAINING

HERE = Path(__file__).parent
MOST = 80  # frames that the page carries
LIMIT = 8_000_000  # bytes; fewer frames are taken where it would be more
HEADS = ("Protocol", "Network", "Tested on", "Each student, %", "Seeds", "Took")
escape = html.escape


def html_report(story: Story) -> bytes:
    """The page as UTF-8, at most ``LIMIT`` bytes where its film can be thinned so far.

    It asks nobody for anything: images, styles and the one script are inside, and its policy forbids the rest. Without
    the script it shows the last images. Everything that anybody could have written is escaped.
    """
    return thinned(lambda steps: _page(story, steps), story.frames, MOST, LIMIT)


def _page(story: Story, steps: Sequence[int]) -> bytes:
    style, script = ((HERE / name).read_text() for name in ("report.css", "report.js"))
    moving = len(steps) > 1
    allowed = f"'sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}'" if moving else "'none'"
    policy = f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src {allowed}"
    parts = [
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">',
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        f"<title>{escape(story.run.title)} · Limbeck</title>\n<style>\n{style}</style>\n</head>\n<body>\n<main>",
        _head(story),
        _section("The images", _film(story, steps)),
        _section("While it was distilled", _curves(story)),
        _section("Results", _results(story)),
        _section("What it took", _cost(story)),
        _section("Settings", _settings(story)),
        _section("Make it again", _again(story)),
        _section("Method and data", _sources(story)),
        "</main>",
        f"<script>{script}</script>" if moving else "",
        "</body>\n</html>\n",
    ]
    return "\n".join(filter(None, parts)).encode()


def _section(title: str, content: str) -> str:
    return f"<section>\n<h2>{title}</h2>\n{content}\n</section>" if content else ""


def _paragraph(text: str, style: str = "") -> str:
    return f"<p{f' class={chr(34)}{style}{chr(34)}' if style else ''}>{escape(text)}</p>"


# ---- the sections ---------------------------------------------------------------------------------------------------


def _head(story: Story) -> str:
    found = story.headline
    number = _paragraph("Students of these images have not been tested.", "lead")
    if found:
        number = (
            f'<p class="lead"><span class="number">{escape(words.accuracy(found))}</span> of the test images right'
            f"<br>{escape(words.under(found))}; mean ± standard deviation over students</p>"
            if len(found["accuracies"]) > 1
            else f'<p class="lead"><span class="number">{escape(words.accuracy(found))}</span> of the test images right'
            f"<br>{escape(words.under(found))}</p>"
        )
    name = "" if story.run.title == story.what else f"“{story.run.title}”, "
    came = "imported from another Limbeck, " if story.origin else ""
    facts = f"{name}made on {story.date}, {came}run {story.run.id}."
    facts = facts[:1].upper() + facts[1:]
    return f"<header>\n<h1>{escape(story.what)}</h1>\n{number}\n{_paragraph(facts, 'soft')}\n</header>"


def _film(story: Story, steps: Sequence[int]) -> str:
    layout = story.layout
    classes, columns = [str(name) for name in layout["classes"]], layout["columns"]
    seconds = {event.step: event.data.get("seconds") for event in story.events("frame")}

    def said(step: int) -> str:
        passed = seconds.get(step)
        took = f", {words.duration(passed)} of distilling" if passed else ""
        return f"Step {step:,} of {story.steps:,}{took}" if story.steps else "The images of the set"

    def source(step: int) -> str:
        path = story.store.frame_path(story.run.id, step)
        return f"data:image/webp;base64,{base64.b64encode(path.read_bytes() if path else b'').decode()}"

    alt = f"{story.what}: {columns} columns, one per class ({', '.join(classes)[:200]})"
    upright = max(map(len, classes)) * columns > 90
    heads = "".join(f'<span title="{escape(name)}">{escape(name)}</span>' for name in classes)
    least = columns * 18  # CSS pixels; more columns scroll sideways
    most = columns * min(110, 7 * layout["size"])
    parts = [
        '<figure><div class="film" tabindex="0" role="group" aria-label="The images, a column for each class">'
        f'<div style="min-width:{least}px;max-width:{most}px">'
        f'<div class="heads{" upright" if upright else ""}" aria-hidden="true" '
        f'style="grid-template-columns:repeat({columns},minmax(0,1fr))">{heads}</div>',
        f'<img id="frame" src="{source(steps[-1])}" alt="{escape(alt)}" width="{columns * layout["size"]}" '
        f'height="{layout["rows"] * layout["size"]}"></div></div>',
    ]
    if len(steps) > 1:
        frames = [[step, source(step), said(step)] for step in steps]
        carried = json.dumps({"alt": alt, "frames": frames}).replace("<", "\\u003c")
        parts.append(
            '<div class="controls" id="controls" hidden><button id="play" type="button">Play</button>'
            '<input id="step" type="range" min="0" value="0" aria-label="Step of the distillation"></div>'
            f'<script type="application/json" id="film">{carried}</script>'
        )
    parts.append(f'<figcaption id="where">{escape(said(steps[-1]))}</figcaption></figure>')
    return "\n".join(parts)


def _curves(story: Story) -> str:
    found = []
    measured, references = story.events("accuracy"), story.events("reference")
    if measured:
        last = measured[-1].data
        lines = [
            Line(
                f"{r.data['label']} {100 * r.data['accuracy']:.1f} %",
                100 * r.data["accuracy"],
                "random" if r.data["kind"] == "random" else "selected",
            )
            for r in references
        ]
        drawn = curve(
            [(e.data["seconds"], 100 * e.data["accuracy"]) for e in measured],
            title=f"Accuracy while distilling: {100 * measured[0].data['accuracy']:.1f} % at first, "
            f"{100 * last['accuracy']:.1f} % at last",
            across="seconds of distilling", up="accuracy", unit=" %", lines=lines, marked=True,
        )  # fmt: skip
        under = (
            f"On {last.get('split', 'held-out')} training images, {last['protocol']} protocol, "
            f"{words.count(last['students'], 'student')}: not to be compared with the test accuracy. Dashed: real "
            "images, as many per class."
        )
        found.append(f"<figure>{drawn}<figcaption>{escape(under)}</figcaption></figure>")
    losses = [(e.data["seconds"], e.data["loss"]) for e in story.events("metric") if e.data.get("loss") is not None]
    if len(losses) > 1:
        title = f"Loss while distilling: {losses[0][1]:.4g} at first, {losses[-1][1]:.4g} at last"
        drawn = curve(losses, title=title, across="seconds of distilling", up="loss")
        found.append(
            f"<figure>{drawn}<figcaption>How far the images are from what the method wants; lower is better."
            "</figcaption></figure>"
        )
    return f'<div class="curves">{"".join(found)}</div>' if found else ""


def _results(story: Story) -> str:
    if not story.evaluations:
        return _paragraph("Nobody has trained students on these images and tested them yet.")
    rows, protocols = [], []
    for e in reversed(story.evaluations):
        on = "test images" if e.get("split", "test") == "test" else f"{e['split']} training images"
        if e.get("dataset", story.run.dataset) != story.run.dataset:
            on += f" of {words.dataset_title(e['dataset'])}"
        single = ", ".join(f"{100 * a:.1f}" for a in e["accuracies"])
        seeds = ", ".join(str(seed) for seed in e.get("seeds", []))
        network = words.WORDS["network"].get(e["network"], e["network"])
        protocol = TRAINING[e["protocol"]] if e["protocol"] in TRAINING else None
        cells = (protocol.title if protocol else e["protocol"], network, on, single, seeds)
        took = words.duration(e["seconds"]) if e.get("seconds") else "–"
        named = zip(HEADS, (*cells, took), strict=True)
        line = "".join(f'<td data-head="{head}">{escape(cell)}</td>' for head, cell in named)
        rows.append(f'<tr><th scope="row">{escape(words.accuracy(e))}</th>{line}</tr>')
        if protocol and protocol not in protocols:
            protocols.append(protocol)
    heads = "".join(f'<th scope="col">{head}</th>' for head in ("Accuracy", *HEADS))
    table = f'<table class="results"><thead><tr>{heads}</tr></thead><tbody>{"".join(rows)}</tbody></table>'
    note = (
        "Networks (students) are trained on the synthetic images alone, each from a seed of its own, and tested once "
        "on real ones: mean ± standard deviation over the students of this one set. Numbers of two protocols cannot be "
        "compared."
    )
    elsewhere = "They were measured on another machine and came with the run." if story.origin else ""
    about = "".join(_paragraph(f"{p.title}: {p.description}", "soft") for p in protocols)
    return f"{table}\n{_paragraph(f'{note} {elsewhere}'.strip(), 'soft')}\n{about}"


def _cost(story: Story) -> str:
    seconds = story.origin.seconds if story.origin else story.run.seconds
    tested = sum(e.get("seconds") or 0 for e in story.evaluations)
    facts = [("Making the images", words.duration(seconds) + (f", {story.steps:,} steps" if story.steps else ""))]
    if tested:
        facts.append(("Training and testing students", words.duration(tested)))
    facts.append(("Machine", story.machine or "not known"))
    when = story.run.created
    facts.append(("Imported" if story.origin else "Started", time.strftime("%Y-%m-%d %H:%M", time.localtime(when))))
    if not story.origin and story.run.status not in ("done",):
        facts.append(("Ended", f"{story.run.status}: {story.run.message}"))
    rows = "".join(f'<tr><th scope="row">{escape(k)}</th><td>{escape(v)}</td></tr>' for k, v in facts)
    note = _paragraph("Compilation is counted; reading data, drawing frames and testing are not.", "soft")
    return f"<table><tbody>{rows}</tbody></table>{note if story.kind == 'distill' else ''}"


def _settings(story: Story) -> str:
    if story.kind not in ("distill", "baseline", "soften", "edit"):
        return ""
    own = ' class="own"'
    rows = "".join(
        f'<tr><th scope="row">{escape(s.label)}</th><td{"" if s.usual else own}>{escape(s.value)}</td>'
        f"<td>{escape(s.help)}</td></tr>"
        for s in words.settings(story.kind, story.public_spec)
    )
    heads = "".join(f'<th scope="col">{head}</th>' for head in ("Setting", "Value", "What it means"))
    note = _paragraph("Bold: what is not the default.", "soft")
    return f'<table class="settings"><thead><tr>{heads}</tr></thead><tbody>{rows}</tbody></table>{note}'


def _again(story: Story) -> str:
    line = words.command(story.kind, story.public_spec)
    if not line:
        return _paragraph("This set was imported; how it was made is not known here.")
    same = (
        "In the folder of Limbeck. The same command on the same machine gives the same images, bit for bit."
        if story.spec.get("deterministic")
        else "In the folder of Limbeck. The same settings and seed on the same machine give the same images, up to "
        "what compiled programs round differently; a budget in minutes ends at another step on another machine."
    )
    return f"<pre><code>{escape(line)}</code></pre>\n{_paragraph(same, 'soft')}"


def _sources(story: Story) -> str:
    parts: list[str] = []
    if story.kind == "distill":
        method: Any = METHODS[story.spec["method"]]
        parts += [_paragraph(method.idea), _paragraph(f"{method.name}: {method.paper}.", "soft")]
    data = DATASETS.get(story.run.dataset)
    if data:
        parts.append(_paragraph(f"{data.title}: {data.source}. Licence: {data.licence}.", "soft"))
    return "\n".join([*parts, _paragraph("Made with Limbeck, which distils training sets.", "soft")])
