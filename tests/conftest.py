"""What every test may ask for."""

import pytest


@pytest.fixture
def home(tmp_path, monkeypatch):
    """A fresh ``LIMBECK_HOME``."""
    monkeypatch.setenv("LIMBECK_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


def pytest_sessionfinish():
    """An interpreter that ends while a thread compiles may crash on the way out."""
    import threading

    for thread in threading.enumerate():
        if thread.name == "limbeck-compiles":
            thread.join(120)
