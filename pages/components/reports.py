"""The tables and figures about trained students, made from what the store knows of them (torch-free, no Streamlit)."""

from __future__ import annotations

import base64
import html
import io
import json
import math
import statistics
import textwrap
from collections import Counter
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pandas as pd
import plotly.graph_objects as go
from PIL import Image

from engine.intervals import wilson
from engine.runs.store import Store
from pages.components.comparison import duration
from pages.components.cues import ink, kind_mark, looks

Facts = dict[str, Any]

NEEDED = {
    "name", "dataset", "network", "protocol", "seed", "source", "classes", "accuracy", "per_class", "confusion",
    "mistakes", "test_images", "seconds", "spec",
}  # fmt: skip
SHARES = (0.0, 0.01, 0.05, 0.2, 0.5, 1.0)  # named on the colour bar of a confusion matrix
# Steps of even lightness, so that the map reads the same in grey
PALE = [(0.0, "#fdfcf9"), (0.25, "#f0cfb0"), (0.5, "#d08b52"), (0.75, "#8f4717"), (1.0, "#33180a")]
DARK = [(0.0, "#1b1814"), (0.25, "#55331a"), (0.5, "#98562a"), (0.75, "#dc9a66"), (1.0, "#fbeadb")]
CLASSES_WITH_COUNTS = 12  # beyond so many classes the counts would not fit their cells


# ---- what is there --------------------------------------------------------------------------------------------------


def kept(where: Store, dataset: str) -> dict[str, Facts]:
    """The facts of all finished students of a dataset by the id of their run, newest first."""
    runs = where.runs(kinds=["student"], statuses=["done"], dataset=dataset, limit=1000)
    found = {run.id: where.student(run.id) for run in runs}
    return {id: facts for id, facts in found.items() if facts is not None and _whole(facts)}


def _whole(facts: Facts) -> bool:
    """Whether facts, which may come from another version or machine, are all there and fit together."""
    if not facts.keys() >= NEEDED or not isinstance(facts["source"], dict) or not isinstance(facts["spec"], dict):
        return False
    try:
        count = len(facts["classes"])
        inside = all(0 <= m["true"] < count and 0 <= m["predicted"] < count for m in facts["mistakes"])
        return inside and [len(row) for row in facts["confusion"]] == [count] * count
    except (KeyError, TypeError):
        return False


def names(students: dict[str, Facts], marks: bool = True) -> dict[str, str]:
    """A name for each student that no other of them has; with ``marks``, what it was trained on before it."""
    count = Counter(str(facts["name"]) for facts in students.values())
    called = {}
    for id, facts in students.items():
        sign = f"{mark(facts).sign} " if marks else ""
        called[id] = f"{sign}{facts['name']}" + (f" ({id[-5:]})" if count[str(facts["name"])] > 1 else "")
    return called


def mark(facts: Facts) -> Any:
    """The mark of what a student was trained on."""
    return kind_mark(str(facts["source"].get("kind", "full")))


# ---- tables ---------------------------------------------------------------------------------------------------------


def tidy(students: dict[str, Facts]) -> pd.DataFrame:
    """One row per student. ``accuracy`` is a fraction of the test images, ``seconds`` are seconds of training."""
    return pd.DataFrame(
        {
            "run": id,
            "name": facts["name"],
            "dataset": facts["dataset"],
            "kind": mark(facts).name,
            "trained_on": facts["source"].get("text"),
            "set": facts["source"].get("run"),
            "images": facts["source"].get("images"),
            "ipc": facts["source"].get("ipc"),
            "method": facts["source"].get("method"),
            "network": facts["network"],
            "protocol": facts["protocol"],
            "seed": facts["seed"],
            "style": facts["spec"].get("style"),
            "epsilon": facts["spec"].get("epsilon"),
            "accuracy": facts["accuracy"],
            "test_images": facts["test_images"],
            "seconds": facts["seconds"],
            "parameters": facts.get("parameters"),
            "machine": facts.get("machine"),
        }
        for id, facts in students.items()
    )


def over_seeds(students: dict[str, Facts]) -> dict[str, str]:
    """By id: mean ± standard deviation of the accuracies of all students that differ from it in their seed alone."""
    alike: dict[str, list[str]] = {}
    for id, facts in students.items():
        rest = {k: v for k, v in facts["spec"].items() if k not in ("seed", "name", "device")}
        alike.setdefault(json.dumps(rest, sort_keys=True), []).append(id)
    found: dict[str, Any] = {}
    for ids in alike.values():
        values = [100 * students[id]["accuracy"] for id in ids]
        text = f"{statistics.mean(values):.1f} ± {statistics.pstdev(values):.1f} % ({len(ids)} seeds)"
        found |= {id: text if len(ids) > 1 else "" for id in ids}
    return found


def wide(students: dict[str, Facts], networks: dict[str, str]) -> pd.DataFrame:
    """The table people read, one row per student in the order given. Accuracies are percent."""
    together, called = over_seeds(students), names(students)
    rows = [
        {
            "Accuracy": 100 * facts["accuracy"],
            "Name": called[id],
            "Over seeds": together[id],
            "Trained on": facts["source"].get("text") or mark(facts).name,
            "Network": networks.get(facts["network"], facts["network"]),
            "Protocol": facts["protocol"],
            "Seed": facts["seed"],
            "Training": duration(facts["seconds"]),
        }
        for id, facts in students.items()
    ]
    return pd.DataFrame(rows)


def per_class(students: dict[str, Facts]) -> pd.DataFrame:
    """One row per student and class: how many of its test images it had right, and the 95 % Wilson interval."""
    called, rows = names(students, marks=False), []
    for id, facts in students.items():
        for c, (name, row) in enumerate(zip(facts["classes"], facts["confusion"], strict=True)):
            low, high = wilson(row[c], sum(row))
            rows.append(
                {
                    "run": id,
                    "student": called[id],
                    "kind": facts["source"].get("kind", "full"),
                    "class": str(name),
                    "right": row[c],
                    "images": sum(row),
                    "accuracy": row[c] / sum(row) if sum(row) else None,
                    "low": low,
                    "high": high,
                }
            )
    return pd.DataFrame(rows)


def confusion_table(facts: Facts) -> pd.DataFrame:
    """Counts, one row per true class and answer."""
    classes = [str(name) for name in facts["classes"]]
    return pd.DataFrame(
        {"true": classes[t], "answer": classes[p], "count": count}
        for t, row in enumerate(facts["confusion"])
        for p, count in enumerate(row)
    )


# ---- figures --------------------------------------------------------------------------------------------------------


def confusion(facts: Facts, dark: bool) -> go.Figure:
    """The confusion matrix: rows are true classes, columns answers, colours the share of the row.

    Colours follow the square root of the share, so that a handful of errors shows beside a thousand right answers.
    """
    text, _ = ink(dark)
    counts, totals = facts["confusion"], [sum(row) for row in facts["confusion"]]
    classes = [str(name) for name in facts["classes"]]
    share = [[n / total if total else 0.0 for n in row] for row, total in zip(counts, totals, strict=True)]
    few = len(classes) <= CLASSES_WITH_COUNTS
    figure = go.Figure(
        go.Heatmap(
            z=[[math.sqrt(s) for s in row] for row in share],
            x=classes,
            y=classes,
            zmin=0,
            zmax=1,
            colorscale=DARK if dark else PALE,
            xgap=1,
            ygap=1,
            text=[[f"{n:,}" if n else "" for n in row] for row in counts],
            texttemplate="%{text}" if few else None,
            customdata=[
                [[n, total, 100 * s] for n, s in zip(row, shares, strict=True)]
                for row, shares, total in zip(counts, share, totals, strict=True)
            ],
            hovertemplate="%{y} taken for %{x}: %{customdata[0]:,} of %{customdata[1]:,} "
            "(%{customdata[2]:.1f} %)<extra></extra>",
            colorbar={
                "tickvals": [math.sqrt(s) for s in SHARES],
                "ticktext": [f"{s:.0%}" for s in SHARES],
                "thickness": 10,
                "tickfont": {"color": text, "size": 12},
            },
        )
    )
    axis = {"type": "category", "showgrid": False, "zeroline": False, "tickfont": {"color": text, "size": 13}}
    figure.update_layout(
        height=min(max(330, 130 + 26 * len(classes)), 760),
        margin={"l": 8, "r": 8, "t": 8, "b": 8},
        font={"size": 13, "color": text},
        xaxis={**axis, "title": {"text": "The student says", "font": {"color": text}}},
        yaxis={**axis, "title": {"text": "It is", "font": {"color": text}}, "autorange": "reversed"},
    )
    return figure


def class_accuracy(students: dict[str, Facts], dark: bool) -> go.Figure:
    """Accuracy for each class, a marker per student with its 95 % Wilson interval, and a line at its mean."""
    text, faint = ink(dark)
    table = per_class(students)
    figure = go.Figure()
    legend = ["<br>".join(map(html.escape, textwrap.wrap(name, 40))) for name in names(students, marks=False).values()]
    observers = table.drop_duplicates("run").rename(columns={"student": "observer"})
    classes = list(dict.fromkeys(table["class"]))
    for i, look in enumerate(looks(observers)):
        mine = table[table["run"] == observers["run"].iloc[i]]
        offset = (i - (len(students) - 1) / 2) * 0.7 / max(len(students), 3)
        figure.add_scatter(
            x=[classes.index(c) + offset for c in mine["class"]],
            y=100 * mine["accuracy"].astype(float),
            mode="markers",
            name=legend[i],
            marker={"color": look.colour, "symbol": look.symbol, "size": 11},
            error_y={
                "type": "data",
                "symmetric": False,
                "array": 100 * (mine["high"] - mine["accuracy"]).astype(float),
                "arrayminus": 100 * (mine["accuracy"] - mine["low"]).astype(float),
                "thickness": 1.5,
                "width": 3,
            },
            customdata=mine[["class", "right", "images"]],
            hovertemplate="%{customdata[0]}: %{y:.1f} % (%{customdata[1]:,} of %{customdata[2]:,})<extra>"
            + html.escape(look.name)
            + "</extra>",
        )
        mean = 100 * students[observers["run"].iloc[i]]["accuracy"]
        dash = "dash" if look.symbol.endswith("-dot") else "solid"
        figure.add_hline(y=mean, line={"color": look.colour, "width": 1.5, "dash": dash}, opacity=0.6)
    lowest = float(table["low"].dropna().min()) if table["low"].notna().any() else 0.0
    lines = sum(name.count("<br>") + 1 for name in legend) if len(students) > 1 else 0
    figure.update_layout(
        height=300 + 20 * lines,
        margin={"l": 8, "r": 8, "t": 8, "b": 8},
        font={"size": 14, "color": text},
        showlegend=len(students) > 1,
        legend={"y": 1.02, "yanchor": "bottom", "x": 0, "font": {"size": 14, "color": text}},
        xaxis={
            "tickvals": list(range(len(classes))), "ticktext": [html.escape(c) for c in classes], "showgrid": False,
            "zeroline": False, "range": [-0.5, len(classes) - 0.5], "tickfont": {"color": text, "size": 13},
        },
        yaxis={
            "title": {"text": "Right (%)", "font": {"color": text}},
            "range": [max(0, 10 * math.floor(10 * lowest)) - 3, 103],
            "gridcolor": faint, "zeroline": False, "tickfont": {"color": text},
        },
    )  # fmt: skip
    return figure


# ---- pictures -------------------------------------------------------------------------------------------------------


def cut(sheet: Path, count: int) -> list[str]:
    """The first ``count`` pictures of a sheet that holds square ones side by side, as URLs that carry them."""
    with Image.open(sheet) as image:
        side = image.height
        urls = []
        for i in range(min(count, image.width // side)):
            buffer = io.BytesIO()
            image.crop((i * side, 0, (i + 1) * side, side)).save(buffer, "PNG")
            urls.append(f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}")
    return urls


def mistakes(ids: list[str], facts: Facts, urls: list[str], count: int) -> str:
    """HTML of the most confident mistakes, each with what it is, what the student says, and a link to look at why.

    ``ids``: whose answers the link compares, the student first. ``urls``: the test images in the order of
    ``facts["mistakes"]``; where they are missing the index stands for them.
    """
    classes, figures = [html.escape(str(name)) for name in facts["classes"]], []
    for i, wrong in enumerate(facts["mistakes"][:count]):
        true, said = classes[wrong["true"]], classes[wrong["predicted"]]
        about = f"Test image {wrong['index']}: {true}, taken for {said}"
        picture = f'<img src="{urls[i]}" alt="{about}">' if i < len(urls) else f"<span>{wrong['index']}</span>"
        link = html.escape("attribution?" + urlencode({"students": ",".join(ids), "image": f"test:{wrong['index']}"}))
        figures.append(
            f'<figure><a href="{link}" target="_self" title="{about}. Why? Open it in Attribution.">{picture}</a>'
            f"<figcaption>{true} <b>→ {said}</b><br>{100 * wrong['confidence']:.1f} %</figcaption></figure>"
        )
    return f"""<style>
.mistakes {{ display: grid; grid-template-columns: repeat(auto-fill, minmax(84px, 1fr)); gap: 10px 8px; }}
.mistakes figure {{ margin: 0; min-width: 0; }}
.mistakes img {{ display: block; width: 100%; max-width: 112px; image-rendering: pixelated; border-radius: 3px; }}
.mistakes span {{ display: grid; place-items: center; aspect-ratio: 1; max-width: 112px; border: 1px solid; }}
.mistakes figcaption {{ font-size: 13px; line-height: 1.35; overflow-wrap: anywhere; padding-top: 2px; }}
</style><div class="mistakes">{"".join(figures)}</div>"""
