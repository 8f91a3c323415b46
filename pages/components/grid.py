"""Small images drawn large and crisp: one column per class, headed by its name (torch-free)."""

from __future__ import annotations

import base64
import hashlib
import html
from pathlib import Path

import streamlit as st


def data_url(path: Path | None = None, *, content: bytes = b"", mime: str = "image/webp") -> str:
    """An image as a URL that carries it."""
    content = path.read_bytes() if path else content
    return f"data:{mime};base64,{base64.b64encode(content).decode()}"


def class_grid(url: str, heads: list[str], *, alt: str, cell: int = 96, height: int = 560) -> None:
    """Draw a grid image whose columns are ``heads``, enlarged without smoothing.

    ``cell`` is the largest width of a column and ``height`` the largest height of the figure, in CSS pixels: a taller
    grid scrolls. Names that do not fit side by side stand upright, and many columns scroll sideways.
    """
    name = "grid-" + hashlib.sha1(repr((heads, cell, height)).encode()).hexdigest()[:8]
    count, longest = len(heads), max(len(h) for h in heads)
    upright = count * (longest * 7 + 6)  # CSS pixels below which names would touch each other
    least = 22 if longest > 2 else 16
    names = "".join(f'<span title="{html.escape(h)}">{html.escape(h)}</span>' for h in heads)
    st.html(
        f"""<style>
.{name} {{ container-type: inline-size; overflow: auto; max-height: {height}px; max-width: {count * cell}px; }}
.{name} .in {{ min-width: {count * least}px; }}
.{name} .heads {{ display: grid; grid-template-columns: repeat({count}, minmax(0, 1fr)); font-size: 13px;
  line-height: 1.3; text-align: center; padding-bottom: 2px; position: sticky; top: 0; align-items: end;
  background: var(--st-background-color, transparent); }}
.{name} .heads span {{ overflow: hidden; text-overflow: ellipsis; white-space: nowrap; }}
.{name} img {{ display: block; width: 100%; image-rendering: pixelated; }}
@container (max-width: {upright}px) {{
  .{name} .heads span {{ writing-mode: {"vertical-rl" if longest > 2 else "horizontal-tb"};
    {"transform: rotate(180deg); justify-self: center; max-height: 90px;" if longest > 2 else ""} }}
}}
</style>
<div class="{name}" tabindex="0" role="group" aria-label="{html.escape(alt)}"><div class="in">
<div class="heads" aria-hidden="true">{names}</div>
<img src="{url}" alt="{html.escape(alt)}"></div></div>"""
    )
