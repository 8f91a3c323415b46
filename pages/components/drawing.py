"""The drawing of a method: what is computed from the real images, what from the synthetic ones, and what moves."""

from __future__ import annotations

import html

import streamlit as st

from engine.methods import MethodInfo


def draw(info: MethodInfo) -> None:
    """Two lanes through a network, and the comparison at their end that moves the synthetic images."""
    sentence = (
        f"Real images go through {info.network} and give: {info.real}. Synthetic images give: {info.synthetic}. "
        f"The two are compared ({info.compared}), and what comes out moves the {info.moved} of the synthetic images."
    )
    box = {name: html.escape(getattr(info, name)) for name in ("network", "real", "synthetic", "compared", "moved")}
    st.html(
        f'<div class="method" role="img" aria-label="{html.escape(sentence)}">'
        '<div class="of-real images">real images</div>'
        f'<div class="network">{box["network"]}</div>'
        f'<div class="of-real found">{box["real"]}</div>'
        f'<div class="compared">↕ {box["compared"]}</div>'
        '<div class="of-synthetic images">synthetic images</div>'
        f'<div class="of-synthetic found">{box["synthetic"]}</div>'
        f'<div class="moved">moves the {box["moved"]}</div>'
        "</div>"
    )
