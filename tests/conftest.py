"""What every test may ask for."""

import os

import pytest

# Runs of a few seconds gain nothing from compiled steps, and what is compiled beside them delays every test after
# them. The tests of compilation ask for it by name.
os.environ["LIMBECK_COMPILE"] = "0"
# Every machine computes the same; the tests of bf16 ask for it by name.
os.environ["LIMBECK_BF16"] = "0"


@pytest.fixture
def home(tmp_path, monkeypatch):
    """A fresh ``LIMBECK_HOME``."""
    monkeypatch.setenv("LIMBECK_HOME", str(tmp_path / "home"))
    return tmp_path / "home"
