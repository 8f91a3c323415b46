"""What every test may ask for."""

import pytest


@pytest.fixture
def home(tmp_path, monkeypatch):
    """A fresh ``LIMBECK_HOME``."""
    monkeypatch.setenv("LIMBECK_HOME", str(tmp_path / "home"))
    return tmp_path / "home"
