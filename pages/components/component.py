"""The components that browsers draw: a style and a script of ``assets`` each (torch-free)."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import streamlit as st

ASSETS = Path(__file__).parents[2] / "assets"


def component(name: str, html: str = "") -> Callable[..., Any]:
    """The component of ``<name>.css`` and ``<name>.js``, a plain ES module that may use ``element`` of element.js.

    Call what this returns on a page to mount it; ``html``: what it consists of before its script runs.
    """
    script = "".join((ASSETS / file).read_text() for file in ("element.js", f"{name}.js"))
    style = (ASSETS / f"{name}.css").read_text()
    return st.components.v2.component(f"limbeck_{name}", html=html or None, css=style, js=script)
