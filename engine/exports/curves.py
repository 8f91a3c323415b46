"""Curves as SVG that stands in a page and follows its colours (torch-free)."""

from __future__ import annotations

import html
import math
from collections.abc import Sequence
from dataclasses import dataclass

WIDE, HIGH = 440, 250  # of the drawing, in units that are CSS pixels where there is room
LEFT, RIGHT, TOP, BOTTOM = 58, 14, 14, 40
POINTS = 400  # of a curve that are drawn

Point = tuple[float, float]


@dataclass(frozen=True)
class Line:
    """A value to compare with, drawn across: its name, its height, the CSS class that colours it."""

    name: str
    value: float
    style: str


def curve(
    points: Sequence[Point],
    *,
    title: str,
    across: str,
    up: str,
    unit: str = "",
    lines: Sequence[Line] = (),
    marked: bool = False,
) -> str:
    """An SVG of ``points`` (x, y) joined by a line; a logarithmic axis where y is positive and spans a factor of 30.

    ``title``: what a screen reader says. ``across``, ``up``: the names of the axes. ``unit`` follows the numbers of
    the upright one. ``marked``: every point has a dot. Colours come from the page: ``currentColor``, and the classes
    ``line``, ``faint`` and those of ``lines``. Empty for no points.
    """
    if not points and not lines:
        return ""
    points = _thin(points)
    values = [y for _, y in points] + [line.value for line in lines]
    logarithmic = min(values) > 0 and max(values) > 30 * min(values)
    low, high = _range(values, logarithmic)
    far = max([x for x, _ in points], default=1.0) or 1.0

    def at(x: float, y: float) -> tuple[float, float]:
        share = math.log(y / low) / math.log(high / low) if logarithmic else (y - low) / (high - low)
        return LEFT + x / far * (WIDE - LEFT - RIGHT), HIGH - BOTTOM - share * (HIGH - TOP - BOTTOM)

    parts = [f'<svg class="curve" viewBox="0 0 {WIDE} {HIGH}" role="img" aria-label="{html.escape(title)}">']
    ticks = _powers(low, high) if logarithmic else _ticks(low, high, 4)
    for tick in ticks:
        _, y = at(0, tick)
        parts.append(f'<path class="faint" d="M{LEFT} {y:.1f}H{WIDE - RIGHT}"/>')
        parts.append(
            f'<text x="{LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{_number(tick)}{html.escape(unit)}</text>'
        )
    for tick in _ticks(0, far, 5):
        x, _ = at(tick, low)
        parts.append(f'<text x="{x:.1f}" y="{HIGH - BOTTOM + 17}" text-anchor="middle">{_number(tick)}</text>')
    middle = (LEFT + WIDE - RIGHT) / 2
    parts.append(f'<text x="{middle}" y="{HIGH - 6}" text-anchor="middle">{html.escape(across)}</text>')
    parts.append(f'<text class="up" x="4" y="{TOP - 3}">{html.escape(up)}</text>')
    parts.append(f'<path class="axis" d="M{LEFT} {TOP}V{HIGH - BOTTOM}H{WIDE - RIGHT}"/>')
    for line in lines:
        _, y = at(0, line.value)
        parts.append(f'<path class="across {line.style}" d="M{LEFT} {y:.1f}H{WIDE - RIGHT}"/>')
        parts.append(
            f'<text class="{line.style}" x="{WIDE - RIGHT}" y="{y - 5:.1f}" text-anchor="end">'
            f"{html.escape(line.name)}</text>"
        )
    drawn = [at(x, y) for x, y in points]
    parts.append(f'<polyline class="line" points="{" ".join(f"{x:.1f},{y:.1f}" for x, y in drawn)}"/>')
    if marked:
        parts += [f'<circle class="dot" cx="{x:.1f}" cy="{y:.1f}" r="4"/>' for x, y in drawn]
    return "".join([*parts, "</svg>"])


def _thin(points: Sequence[Point]) -> list[Point]:
    """Every k-th point, and the last."""
    every = -(-len(points) // POINTS) or 1
    return [*points[::every], *(points[-1:] if (len(points) - 1) % every else [])]


def _range(values: Sequence[float], logarithmic: bool) -> tuple[float, float]:
    """Where the upright axis begins and ends: a little beyond the values."""
    low, high = min(values), max(values)
    if logarithmic:
        return low / 1.2, high * 1.2
    room = 0.08 * (high - low) or abs(high) * 0.1 or 1.0
    return (low - room if low - room >= 0 or low < 0 else 0.0), high + room


def _ticks(low: float, high: float, about: int) -> list[float]:
    """Round numbers between two: multiples of 1, 2 or 5 times a power of ten."""
    rough = (high - low) / about
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(f * power for f in (1, 2, 5, 10) if f * power >= rough * 0.999)
    return [round(i * step, 12) for i in range(math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9) + 1)]


def _powers(low: float, high: float) -> list[float]:
    """Powers of ten between two numbers, at most five of them."""
    found = [10.0**i for i in range(math.ceil(math.log10(low)), math.floor(math.log10(high)) + 1)]
    return found[:: -(-len(found) // 5) or 1]


def _number(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 1000 and value == round(value) else f"{value:g}"
