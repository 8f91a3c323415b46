"""What every page reads from and gives work to (torch-free)."""

from __future__ import annotations

from pathlib import Path

import streamlit as st
from engine.data.catalogue import DATASETS

from engine.home import limbeck_home
from engine.runs.executor import LocalExecutor
from engine.runs.store import Store


@st.cache_resource
def _store(home: str) -> Store:
    return Store(Path(home))


def store() -> Store:
    """The store of this server's home folder."""
    return _store(str(limbeck_home()))


def executor() -> LocalExecutor:
    """What queues and cancels runs; the workers themselves are the app's."""
    return LocalExecutor(store())


def dataset_title(name: str) -> str:
    """A dataset as people call it."""
    if name in DATASETS:
        return DATASETS[name].title
    return f"Your images: {Path(name.removeprefix('folder:')).stem}" if name.startswith("folder:") else name
