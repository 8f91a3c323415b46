"""The tables and the figure of a comparison, made from what the store knows (torch-free, no Streamlit)."""

from __future__ import annotations

import contextlib
import html
from collections import Counter
from typing import Any

import pandas as pd
import plotly.graph_objects as go
from pydantic import BaseModel
from safetensors import SafetensorError, safe_open

from engine.methods import METHODS
from engine.runs.store import Run, Store, default_title
from engine.spec import PROTOCOLS, BaselineSpec, RunSpec
from engine.students.protocols import TRAINING
from engine.table import parameters
from engine.words import BASELINE_NAMES
from pages.components.marks import MARKS, mark_of, origin

SET_KINDS = ("distill", "baseline", "import", "soften", "edit")  # the kinds of run that make a set
COLUMNS = (
    "run", "name", "kind", "made_by", "dataset", "images", "ipc", "classes", "seed", "protocol", "network", "split",
    "mean", "std", "students", "accuracies", "distilling_seconds", "evaluating_seconds",
)  # fmt: skip

LABELS = {
    row.name: row.label
    for table in list[type[BaseModel]]([RunSpec, BaselineSpec, *(info.parameters for info in METHODS.values())])
    for row in parameters(table)
}
FEW = 6  # columns of accuracies that a table has room for


ASIDE = {"students", "protocol", "deterministic", "device", "dataset", "ipc", "method", "kind"}  # tell no images apart


def names(runs: list[Run]) -> dict[str, str]:
    """A name for each run of one dataset that no other of them has: what made it, or its title where it was given one;
    where names repeat, with up to two settings in which they differ, or else the end of its id."""
    called, values = {}, {run.id: _flat(run) for run in runs}
    for run in runs:
        called[run.id] = run.title
        if run.kind in ("distill", "baseline") and run.title == default_title(run.kind, run.dataset, run.spec):
            made = METHODS[run.spec["method"]].name if run.kind == "distill" else BASELINE_NAMES[run.spec["kind"]]
            grids = "" if (n := values[run.id].get("factor", 1)) == 1 else f" of {n} × {n} pictures"
            called[run.id] = f"{made}, {run.spec['ipc']} per class{grids}"
    for name, count in Counter(called.values()).items():
        alike = [values[id] for id in called if called[id] == name]
        fields = [f for f in alike[0] if f not in ASIDE and len({repr(own.get(f)) for own in alike}) > 1][:2]
        if count > 1 and fields:
            for id in [id for id in called if called[id] == name]:
                told = [f"{LABELS.get(f, f).lower()} {_shown(values[id].get(f))}" for f in fields]
                called[id] = f"{name} ({', '.join(told)})"
    uses = Counter(called.values())
    return {id: name if uses[name] == 1 else f"{name} ({id[-5:]})" for id, name in called.items()}


def _flat(run: Run) -> dict[str, Any]:
    """The settings that a run was made with, a method's own among them."""
    return {**{k: v for k, v in run.spec.items() if k != "parameters"}, **(run.spec.get("parameters") or {})}


def _shown(value: Any) -> str:
    if value is None or isinstance(value, bool):
        return {True: "on", False: "off", None: "none"}[value]
    return f"{value:g}" if isinstance(value, float) else str(value)


def shape(store: Store, run: Run) -> tuple[int | None, int | None]:
    """How many images a run's set holds and for how many classes; None where nothing says so yet."""
    layout = store.events(run.id, kinds=("layout",), limit=1)
    classes = len(layout[0].data["classes"]) if layout else None
    folder = store.result_folder(run.id)
    if folder is not None:
        with contextlib.suppress(OSError, SafetensorError, IndexError):
            with safe_open(folder / "synthetic.safetensors", framework="numpy") as file:
                return file.get_slice("images").get_shape()[0], classes
    ipc = run.spec.get("ipc")
    return (ipc * classes if ipc and classes else None), classes


def made_by(run: Run) -> str:
    """The method or the kind of baseline, in words."""
    if run.kind == "distill":
        return METHODS[run.spec["method"]].name
    return str(run.spec.get("kind", "import")) if run.kind == "baseline" else "import"


def tidy(store: Store, runs: list[Run]) -> pd.DataFrame:
    """One row per set, protocol, network and split: the latest such evaluation. Accuracies are fractions in [0, 1].

    Evaluations on a dataset other than the set's own are left out: their numbers are not comparable with these. A set
    that was never evaluated has one row without accuracies. ``accuracies`` holds those of the single students,
    separated by spaces; seconds are seconds of computing.
    """
    called, latest = names(runs), {}
    dataset = {run.id: run.dataset for run in runs}
    images_of = {run.id: origin(store, run) for run in runs}
    for e in store.evaluations(list(dataset)):
        if e.get("dataset", dataset[e["run"]]) != dataset[e["run"]]:
            continue
        latest[e["run"], e["protocol"], e["network"], e.get("split", "test")] = e
    rows: list[dict[str, Any]] = []
    for run in runs:
        images, classes = shape(store, run)
        about = {
            "run": run.id,
            "name": called[run.id],
            "kind": mark_of(images_of[run.id]).name,
            "made_by": made_by(images_of[run.id]) + {"soften": ", soft labels", "edit": ", edited"}.get(run.kind, ""),
            "dataset": run.dataset,
            "images": images,
            "ipc": images / classes if images and classes else None,
            "classes": classes,
            "seed": run.spec.get("seed"),
            "distilling_seconds": run.seconds or None,
        }
        mine = [e for key, e in latest.items() if key[0] == run.id]
        rows += [
            about
            | {
                "protocol": e["protocol"],
                "network": e["network"],
                "split": e.get("split", "test"),
                "mean": e["mean"],
                "std": e["std"],
                "students": len(e["accuracies"]),
                "accuracies": " ".join(f"{a:.6g}" for a in e["accuracies"]),
                "evaluating_seconds": e.get("seconds"),
            }
            for e in mine
        ] or [about]
    return pd.DataFrame(rows, columns=list(COLUMNS))


def group_name(protocol: str, network: str, split: str) -> str:
    """What heads a column of accuracies: everything two numbers must share to be compared."""
    return f"{protocol}, {network}" + ("" if split == "test" else f", {split}")


def groups(table: pd.DataFrame) -> dict[str, tuple[str, str, str]]:
    """The (protocol, network, split) found in a tidy table by their names, in the protocols' own order."""
    found = {tuple(k) for k in table[["protocol", "network", "split"]].dropna().itertuples(index=False)}
    ranked = sorted(found, key=lambda k: (PROTOCOLS.index(k[0]) if k[0] in PROTOCOLS else 99, k[2] != "test", k[1]))
    return {group_name(*key): key for key in ranked}


def main_groups(table: pd.DataFrame) -> dict[str, tuple[str, str, str]]:
    """The groups that fit a table and a row of buttons: all of a few, else those of the protocols' own networks."""
    found = groups(table)
    if len(found) <= FEW:
        return found
    own = {name: key for name, key in found.items() if key[0] in TRAINING and key[1] == TRAINING[key[0]].network}
    return own or dict(list(found.items())[:FEW])


def duration(seconds: float | None) -> str:
    """Seconds in words, short."""
    if seconds is None or pd.isna(seconds):
        return "–"
    if seconds < 10:
        return f"{seconds:.1f} s"
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def percent(mean: float, std: float, students: int) -> str:
    """Fractions as people read them. Only the space before the bracket may break."""
    if students < 2:
        return _tight(f"{100 * mean:.1f} %") + " " + _tight("(1 student)")
    return _tight(f"{100 * mean:.1f} ± {100 * std:.1f} %") + " " + _tight(f"({students:.0f} students)")


def _tight(text: str) -> str:
    return text.replace(" ", "\N{NO-BREAK SPACE}")


def wide(table: pd.DataFrame) -> pd.DataFrame:
    """The table people read: one row per set, one column per protocol and network; two never share a column."""
    rows = []
    for _, mine in table.groupby("run", sort=False):
        first = mine.iloc[0]
        mark = next(m for m in MARKS.values() if m.name == first["kind"])
        row = {"Set": first["name"], "Kind": _tight(f"{mark.sign} {first['kind']}"), "Images": _images(first)}
        for name, key in main_groups(table).items():
            match = mine[(mine["protocol"] == key[0]) & (mine["network"] == key[1]) & (mine["split"] == key[2])]
            row[name] = percent(*match.iloc[0][["mean", "std", "students"]]) if len(match) else "–"
        row["Distilling"] = duration(first["distilling_seconds"])
        total = mine["evaluating_seconds"].dropna()
        row["Evaluating"] = duration(total.sum()) if len(total) else "–"
        rows.append(row)
    return pd.DataFrame(rows)


def ranked(rows: list[dict[str, Any]]) -> pd.DataFrame:
    """DD-Ranking's scores and the accuracies they are made of, one row per set and protocol, as people read them."""
    out = []
    for row in rows:
        mean = {(side["side"], side["augmented"]): f"{100 * side['mean']:.1f}" for side in row["sides"]}
        out.append(
            {
                "Set": row["name"],
                "Under": f"{row['protocol']}, {row['network']}",
                "LRS": f"{row['lrs']:.3f}",
                "ARS": f"{row['ars']:.3f}",
                "HLR": f"{100 * row['hlr']:.1f}",
                "IOR": f"{100 * row['ior']:+.1f}",
                "All real, hard": f"{100 * row['real_hard']:.1f}",
                "Set, hard": mean["syn-hard", True],
                "Own labels": f"{mean['syn-any', True]} ({mean['syn-any', False]} plain)",
                "Random real": f"{mean['random-any', True]} ({mean['random-any', False]} plain)",
            }
        )
    return pd.DataFrame(out)


def _images(row: pd.Series) -> str:
    if pd.isna(row["images"]) or pd.isna(row["classes"]):
        return "–"
    return f"{row['images']:.0f} " + _tight(f"({row['ipc']:.3g} × {row['classes']:.0f} classes)")


def same_group(table: pd.DataFrame, key: tuple[str, str, str]) -> pd.DataFrame:
    """The rows of a tidy table under one protocol, network and split."""
    return table[(table["protocol"] == key[0]) & (table["network"] == key[1]) & (table["split"] == key[2])]


def chart(table: pd.DataFrame, key: tuple[str, str, str], dark: bool = False) -> go.Figure:
    """Accuracy of each set under one protocol: the mean ± one standard deviation, and faintly each student."""
    ink = "#f0ece4" if dark else "#211e1a"
    same = same_group(table, key).sort_values("mean")
    figure = go.Figure()
    for mark in MARKS.values():
        some = same[same["kind"] == mark.name]
        if some.empty:
            continue
        single = [(100 * float(a), row.name_) for row in some.rename(columns={"name": "name_"}).itertuples()
                  for a in row.accuracies.split()]  # fmt: skip
        figure.add_scatter(
            x=[a for a, _ in single],
            y=[n for _, n in single],
            mode="markers",
            marker={"color": mark.colour, "symbol": mark.symbol, "size": 8, "opacity": 0.35},
            hovertemplate="%{x:.1f} %<extra>one student</extra>",
            showlegend=False,
        )
        figure.add_scatter(
            x=100 * some["mean"],
            y=some["name"],
            error_x={"array": 100 * some["std"].fillna(0), "thickness": 2, "width": 6},
            mode="markers",
            name=mark.name,
            marker={"color": mark.colour, "symbol": mark.symbol, "size": 14},
            customdata=some[["std", "students"]].assign(std=100 * some["std"].fillna(0)),
            hovertemplate="%{y}<br>%{x:.1f} ± %{customdata[0]:.1f} %, %{customdata[1]} students<extra></extra>",
        )
    figure.update_layout(
        height=130 + 58 * len(same),
        margin={"l": 8, "r": 16, "t": 8, "b": 8},
        legend={"orientation": "h", "y": 1.0, "yanchor": "bottom", "x": 0, "font": {"size": 14, "color": ink}},
        font={"size": 15, "color": ink},
        xaxis={
            "title": {
                "text": f"{'Test accuracy' if key[2] == 'test' else 'Accuracy'} (%), {group_name(*key)}",
                "font": {"size": 15, "color": ink},
            },
            "zeroline": False,
            "tickfont": {"size": 15, "color": ink},
        },
        yaxis={"categoryorder": "array", "categoryarray": list(same["name"]), "showticklabels": False},
    )
    for name in same["name"]:  # above its row, where a phone has room for it too
        figure.add_annotation(
            x=0, xref="paper", xanchor="left", y=name, yshift=17, text=html.escape(name), showarrow=False,
            font={"size": 15, "color": ink},
        )  # fmt: skip
    return figure
