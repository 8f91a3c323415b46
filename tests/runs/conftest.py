"""What runs are tested beside: nothing."""

import threading

import pytest

from engine.runs.store import Store
from tests.runs import fakes


@pytest.fixture(autouse=True)
def nothing_compiles_any_more():
    """A program that an earlier test left compiling would draw from torch's generator while a run is compared."""
    for thread in threading.enumerate():
        if thread.name == "limbeck-compiles":
            thread.join(120)


@pytest.fixture
def walks(tmp_path, monkeypatch):
    """A store whose distillations only walk at random, and fast."""
    monkeypatch.setenv("LIMBECK_HOME", str(tmp_path))
    monkeypatch.setattr(fakes.RandomWalk, "pace", 0.005)
    fakes.install(monkeypatch)
    return Store(tmp_path)
