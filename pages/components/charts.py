"""The live curves of a run, as ECharts options (torch-free)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import pandas as pd

from engine.runs.store import Event
from pages.components.marks import MARKS
from pages.components.pieces import is_big

GRID = {"left": 2, "right": 18, "top": 8, "bottom": 6, "containLabel": True}
POINTS = 400  # of a loss curve that are drawn


def thin(points: Sequence[Any], most: int = POINTS) -> list[Any]:
    """Every k-th point, and the last."""
    every = -(-len(points) // most) or 1
    return [*points[::every], *(points[-1:] if (len(points) - 1) % every else [])]


def accuracy(events: Sequence[Event], references: Sequence[Event], dark: bool) -> dict[str, Any]:
    """Accuracy in percent against distilling seconds, with the references as lines across."""
    mark = MARKS["distilled"]
    points = [[e.data["seconds"], round(100 * e.data["accuracy"], 2)] for e in events]
    lines: list[dict[str, Any]] = []
    for event in references:
        other = MARKS[event.data["kind"]]
        value = round(100 * event.data["accuracy"], 1)
        above = not points or value > points[-1][1]  # the curve is left free
        near = any(abs(line["yAxis"] - value) < 6 for line in lines)
        lines.append(
            {
                "yAxis": value,
                "lineStyle": {"color": other.colour, "type": "dashed", "width": 2},
                "label": {
                    "formatter": f"{{mark|{other.sign}}} {event.data['label']} {value:g} %",
                    "rich": {"mark": {"color": other.colour}},
                    "position": f"inside{'Start' if near else 'End'}{'Top' if above else 'Bottom'}",
                    **_label(dark),
                },
            }
        )
    values = [p[1] for p in points] + [line["yAxis"] for line in lines]
    return {
        "animation": False,
        "grid": GRID,
        "tooltip": {"trigger": "axis", "valueFormatter": "%.1f %%"},
        "xAxis": _axis(dark),
        "yAxis": {
            "type": "value",
            "min": max(0, 10 * math.floor((min(values, default=0) - 3) / 10)),
            "max": min(100, 10 * math.ceil((max(values, default=97) + 3) / 10)),
            "axisLabel": {"formatter": "{value} %", **_label(dark)},
        },
        "series": [
            {
                "name": "Distilled",
                "type": "line",
                "data": points,
                "symbol": "circle",
                "symbolSize": 9,
                "lineStyle": {"width": 4 if is_big() else 2.5, "color": mark.colour},
                "itemStyle": {"color": mark.colour},
                "markLine": {"silent": True, "animation": False, "symbol": ["none", "none"], "data": lines},
            }
        ],
    }


def measurements(events: Sequence[Event], references: Sequence[Event]) -> pd.DataFrame:
    """The numbers of the accuracy curve and of the lines across it, which hold at every second."""
    rows = [{"what": "distilled", "step": e.step, **e.data} for e in events]
    rows += [{"what": e.data["label"], **{k: v for k, v in e.data.items() if k != "label"}} for e in references]
    return pd.DataFrame(rows)


def losses(events: Sequence[Event]) -> pd.DataFrame:
    """Every number that was noted beside the loss, by step."""
    return pd.DataFrame([{"step": e.step, **e.data} for e in events])


def loss(events: Sequence[Event], dark: bool) -> dict[str, Any]:
    """Loss against distilling seconds."""
    points = [[e.data["seconds"], e.data["loss"]] for e in thin(events) if e.data.get("loss") is not None]
    positive = bool(points) and min(p[1] for p in points) > 0
    wide = positive and max(p[1] for p in points) > 30 * min(p[1] for p in points)
    return {
        "animation": False,
        "grid": GRID,
        "tooltip": {"trigger": "axis", "valueFormatter": "%.4g"},
        "xAxis": _axis(dark),
        "yAxis": {"type": "log" if wide else "value", "scale": True, "splitNumber": 3, "axisLabel": _label(dark)},
        "series": [
            {
                "name": "Loss",
                "type": "line",
                "data": points,
                "showSymbol": False,
                "lineStyle": {"width": 3 if is_big() else 1.5, "color": MARKS["distilled"].colour},
                "itemStyle": {"color": MARKS["distilled"].colour},
            }
        ],
    }


def _axis(dark: bool) -> dict[str, Any]:
    """Distilling seconds."""
    label = {"formatter": "{value} s", "hideOverlap": True, **_label(dark)}
    return {"type": "value", "min": 0, "axisLabel": label, "splitLine": {"show": False}}


def _label(dark: bool) -> dict[str, Any]:
    """Text on a chart, dark enough for a projector."""
    if is_big():
        return {"fontSize": 17, "color": "#ffffff" if dark else "#000000"}
    return {"fontSize": 13, "color": "#e8e2d8" if dark else "#3a352e"}
