"""What tests of runs share."""

import pytest

from engine.runs.store import Store
from tests.runs import fakes


@pytest.fixture
def walks(tmp_path, monkeypatch):
    """A store whose distillations only walk at random, and fast."""
    monkeypatch.setenv("LIMBECK_HOME", str(tmp_path))
    monkeypatch.setattr(fakes.RandomWalk, "pace", 0.005)
    fakes.install(monkeypatch)
    return Store(tmp_path)
