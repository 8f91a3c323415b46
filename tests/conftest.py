"""What every test may ask for."""

import runpy

import pytest


@pytest.fixture
def home(tmp_path, monkeypatch):
    """A fresh ``LIMBECK_HOME``."""
    monkeypatch.setenv("LIMBECK_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


@pytest.fixture
def whole_app(monkeypatch):
    """Has AppTest run app.py around each page, as the server does; by itself it runs the files of a folder named pages
    alone."""
    monkeypatch.setattr(
        "streamlit.runtime.scriptrunner.script_runner._mpa_v1", lambda path: runpy.run_path(path, run_name="__main__")
    )


def pytest_sessionfinish():
    """An interpreter that ends while a thread compiles may crash on the way out."""
    import threading

    for thread in threading.enumerate():
        if thread.name == "limbeck-compiles":
            thread.join(120)
