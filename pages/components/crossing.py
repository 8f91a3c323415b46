"""Sets against networks: the table of a cross-architecture evaluation, and its heat map (torch-free, no Streamlit)."""

from __future__ import annotations

import html
from collections.abc import Iterable

import pandas as pd

from engine.estimate import evaluation_seconds
from engine.runs.store import Run
from engine.spec import EvaluationSpec
from engine.students.architecture import architecture_of, parse
from pages.components.comparison import percent
from pages.components.reports import DARK, PALE

COLUMNS = ("run", "name", "network", "protocol", "mean", "std", "students", "seconds", "images", "dataset")


def cells(table: pd.DataFrame, protocol: str, networks: list[str]) -> pd.DataFrame:
    """One row per set and network, those without an accuracy included: fractions of the test images.

    ``table``: the tidy table of a comparison.
    """
    rows = []
    for run, mine in table.groupby("run", sort=False):
        first = mine.iloc[0]
        there = mine[(mine["protocol"] == protocol) & (mine["split"] == "test")].set_index("network")
        for network in networks:
            one = there.loc[network] if network in there.index else None
            rows.append(
                {
                    "run": run,
                    "name": first["name"],
                    "network": network,
                    "protocol": protocol,
                    "mean": None if one is None else one["mean"],
                    "std": None if one is None else one["std"],
                    "students": None if one is None else one["students"],
                    "seconds": None if one is None else one["evaluating_seconds"],
                    "images": first["images"],
                    "dataset": first["dataset"],
                }
            )
    return pd.DataFrame(rows, columns=list(COLUMNS))


def under_way(active: Iterable[Run], protocol: str) -> dict[tuple[str, str], Run]:
    """The evaluations that are queued or running under ``protocol``, by set and network."""
    found = {}
    for run in active:
        if run.kind == "evaluate" and run.spec["protocol"] == protocol:
            network = architecture_of(EvaluationSpec.model_validate(run.spec))
            if network is not None:
                found[run.spec["source"], network.label] = run
    return found


def seconds_for(rows: pd.DataFrame, protocol: str, students: int, known: pd.DataFrame) -> float:
    """How long the students of ``rows`` will take, from what those of ``known`` took on this machine."""

    def guess(row: pd.Series, count: int) -> float:
        images = 100 if pd.isna(row["images"]) else int(row["images"])
        return evaluation_seconds(parse(row["network"]), protocol, row["dataset"], images, count)

    measured = known[known["seconds"].notna()]
    expected = sum(guess(row, int(row["students"])) for _, row in measured.iterrows())
    factor = min(max(measured["seconds"].sum() / expected, 0.1), 10.0) if expected else 1.0
    return factor * sum(guess(row, students) for _, row in rows.iterrows())


def heat(table: pd.DataFrame, busy: dict[tuple[str, str], Run], dark: bool) -> str:
    """The heat map as an HTML table that scrolls sideways where it has to: the darker (on a dark page, the lighter) a
    cell, the higher its accuracy, whose number stands in it."""
    networks = list(dict.fromkeys(table["network"]))
    low, high = table["mean"].min(), table["mean"].max()
    edge, ground = ("#57503f", "#1b1814") if dark else ("#cfc8ba", "#fdfcf9")
    cell = f"border:1px solid {edge};padding:.35rem .5rem;text-align:center;white-space:nowrap;"
    head = "".join(
        f'<th scope="col" style="{cell}font-weight:600;white-space:normal">{html.escape(n)}</th>' for n in networks
    )
    rows = []
    for run, mine in table.groupby("run", sort=False):
        # The name stays in view while the networks scroll by.
        name = f"{cell}position:sticky;left:0;background:{ground};text-align:left;white-space:normal;min-width:7rem;"
        line = f'<th scope="row" style="{name}font-weight:500">{html.escape(mine.iloc[0]["name"])}</th>'
        for _, row in mine.iterrows():
            if pd.notna(row["mean"]):
                share = 0.5 if high == low else (row["mean"] - low) / (high - low)
                back, ink = _shade(share, dark)
                said = html.escape(f"{row['network']}: {percent(row['mean'], row['std'], int(row['students']))}")
                line += f'<td style="{cell}background:{back};color:{ink}" title="{said}">{100 * row["mean"]:.1f}</td>'
            else:
                run_there = busy.get((run, row["network"]))
                words = {"running": f"{run_there.progress:.0%}", "paused": "paused"} if run_there else {}
                line += f'<td style="{cell}">{words.get(run_there.status, "waits") if run_there else "–"}</td>'
        rows.append(f"<tr>{line}</tr>")
    corner = f'<th style="{cell}position:sticky;left:0;background:{ground}"></th>'
    return (
        '<div style="overflow-x:auto" tabindex="0" role="region" aria-label="Accuracy by set and network">'
        '<table style="border-collapse:collapse;font-size:.95rem;font-variant-numeric:tabular-nums">'
        f"<thead><tr>{corner}{head}</tr></thead><tbody>{''.join(rows)}</tbody></table></div>"
    )


def _shade(share: float, dark: bool) -> tuple[str, str]:
    """Background and text colour of a share of the range, 0 to 1."""
    scale = DARK if dark else PALE
    share = 0.08 + 0.8 * share  # the lowest is to be told from an empty cell
    at = min(int(share * (len(scale) - 1)), len(scale) - 2)
    low, high = (_rgb(scale[i][1]) for i in (at, at + 1))
    part = share * (len(scale) - 1) - at
    mixed = [round(a + part * (b - a)) for a, b in zip(low, high, strict=True)]
    light = 0.299 * mixed[0] + 0.587 * mixed[1] + 0.114 * mixed[2]
    return "#" + "".join(f"{v:02x}" for v in mixed), "#161310" if light > 125 else "#fdfcf9"


def _rgb(colour: str) -> list[int]:
    return [int(colour[i : i + 2], 16) for i in (1, 3, 5)]
