"""An error that nobody foresaw: people see a sentence and an id, the log has the rest."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from engine.faults import LOG, LOG_LIMIT, record

ROOT = Path(__file__).parents[2]
BROKEN_PAGE = """
import sys
from starlette.testclient import TestClient
from streamlit.proto.BackMsg_pb2 import BackMsg
from streamlit.proto.ForwardMsg_pb2 import ForwardMsg
import app
from engine.runs.executor import LocalExecutor
from pages.components import form

def fail(*_):
    raise LookupError("a secret of the server")

LocalExecutor.start = lambda self: None
form.form = app.film = fail
with TestClient(app.app, raise_server_exceptions=False) as client:
    page = client.get("/")
    print("policy:", page.headers["content-security-policy"])
    print("route:", client.get("/api/runs/some-run/frames").text)
    with client.websocket_connect("/_stcore/stream", subprotocols=["streamlit"]) as browser:
        asked = BackMsg()
        asked.rerun_script.query_string, asked.rerun_script.page_name = "ipc=7", "distil"
        browser.send_bytes(asked.SerializeToString())
        while True:
            message = ForwardMsg()
            message.ParseFromString(browser.receive_bytes())
            print("page:", message)
            if message.WhichOneof("type") == "script_finished":
                break
"""


@pytest.fixture(scope="module")
def broken(tmp_path_factory):
    """What a browser gets from an app whose form and whose route fail, and the log."""
    home = tmp_path_factory.mktemp("home")
    environment = {**os.environ, "LIMBECK_HOME": str(home), "PYTHONPATH": str(ROOT)}
    code = [sys.executable, "-c", BROKEN_PAGE]
    done = subprocess.run(code, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout, (home / LOG).read_text()


def test_a_page_that_fails_shows_an_id_and_nothing_of_python(broken) -> None:
    shown, log = broken
    id = re.search(r"Something went wrong inside \(error ([0-9a-f]{6})\)\. Reload the page", shown)[1]
    for word in ("Traceback", "LookupError", "a secret of the server", str(ROOT / "pages")):
        assert word not in shown
    entry = log[log.index(id) :]
    assert "'ipc': '7'" in entry.splitlines()[0] and "LookupError: a secret of the server" in entry


def test_a_route_that_fails_answers_with_an_id(broken) -> None:
    shown, log = broken
    sentence = re.search(r"route: (.*)", shown)[1]
    id = re.search(
        r"Something went wrong inside; errors.log of this server says where, under ([0-9a-f]{6})\.", sentence
    )[1]
    assert "GET" in log[log.index(id) :].splitlines()[0]


def test_a_browser_takes_pictures_from_the_server_alone(broken) -> None:
    """A file's name is shown in a sentence, and Markdown in it could ask for a picture from anywhere."""
    policy = re.search(r"policy: (.*)", broken[0])[1]
    assert "img-src 'self' data: blob:" in policy and "http" not in policy


def test_streamlit_is_told_to_show_nothing_of_an_error() -> None:
    assert re.search(r'^showErrorDetails = "none"', (ROOT / ".streamlit" / "config.toml").read_text(), re.MULTILINE)


def test_the_log_starts_afresh_when_it_is_long_and_a_long_error_is_cut(home) -> None:
    first = record(ValueError("x" * 10_000_000), "a\nb")
    assert first in (home / LOG).read_text() and (home / LOG).stat().st_size < 200_000
    (home / LOG).write_bytes(b"x" * (LOG_LIMIT + 1))
    second = record(ValueError("\udcff"), "again")
    assert second != first and second in (home / LOG).read_text() and (home / LOG).stat().st_size < 1000


def test_where_nothing_can_be_written_there_is_an_id_all_the_same(monkeypatch) -> None:
    monkeypatch.setenv("LIMBECK_HOME", "/dev/null")
    assert re.fullmatch("[0-9a-f]{6}", record(ValueError("x"), "y"))
