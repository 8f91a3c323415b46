"""The presenter's key: who has it, how long a browser counts as the presenter's, how such a server is started."""

from __future__ import annotations

import socket
import stat

import pytest

from engine import cli, seminar
from engine.errors import Refused

KEY = "a-key-for-tests"


@pytest.fixture(autouse=True)
def no_key(monkeypatch):
    monkeypatch.delenv(seminar.VARIABLE, raising=False)


@pytest.fixture
def free() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def test_a_key_is_made_once_and_for_its_owner_alone(tmp_path):
    key = seminar.kept_key(tmp_path)
    path = tmp_path / seminar.FILE
    assert len(key) >= 32 and stat.S_IMODE(path.stat().st_mode) == 0o600
    path.chmod(0o644)
    assert seminar.kept_key(tmp_path) == key and stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [p.name for p in tmp_path.iterdir()] == [seminar.FILE]


@pytest.mark.parametrize("content", [b"short\n", b"", b"two words of a key\n", b"\xff\xfe" * 20])
def test_a_key_file_that_holds_no_key_is_refused(tmp_path, content):
    (tmp_path / seminar.FILE).write_bytes(content)
    with pytest.raises(Refused, match="key"):
        seminar.kept_key(tmp_path)


def test_only_the_key_is_the_key():
    assert seminar.right_key(KEY, KEY)
    assert not any(seminar.right_key(KEY, wrong) for wrong in ("", KEY[:-1], KEY + "x", KEY.upper(), "é\ud800"))
    assert not seminar.right_key("", ""), "without a key nobody proves to be anyone"


def test_a_browser_stays_the_presenters_for_a_day_and_no_token_can_be_made_without_the_key():
    token = seminar.make_token(KEY, now=1000.0)
    assert seminar.right_token(KEY, token, now=1000.0 + seminar.LIFE - 1)
    assert not seminar.right_token(KEY, token, now=1000.0 + seminar.LIFE + 1)
    until, _, signature = token.partition(".")
    forged = [
        f"{int(until) + 99999}.{signature}",
        f"{until}.{signature[:-1]}x",
        f"{until}.",
        until,
        "",
        "x.y",
        "²." + "a",
    ]
    assert not any(seminar.right_token(KEY, bad, now=1000.0) for bad in forged)
    assert not seminar.right_token("another-key-here", token, now=1000.0)
    assert not seminar.right_token("", seminar.make_token(""), now=1000.0)
    assert KEY not in token and KEY not in seminar.cookie_name(KEY)


def test_what_is_started_and_what_the_presenter_is_told(home, free):
    command, environment, told = seminar.prepare("127.0.0.1", free, None)
    key = seminar.kept_key(home)
    assert f"--server.address=127.0.0.1 --server.port={free}" in " ".join(command)
    assert environment[seminar.VARIABLE] == key and key not in " ".join(command), "other people see command lines"
    assert f"http://localhost:{free}/?key={key}" in told[0] and key not in " ".join(told[1:])
    assert "--address 0.0.0.0" in told[2]
    _, environment, told = seminar.prepare("0.0.0.0", free, "given&by+hand/")
    assert environment[seminar.VARIABLE] == "given&by+hand/" and "?key=given%26by%2Bhand%2F " in told[0]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--key", "short"], "10 to 200 characters"),
        (["--port", "x"], "whole number"),
        (["--port", "99999"], "1 to 65535"),
        (["--address", "not an address"], "Nothing can listen"),
        (["--address", "203.0.113.7"], "Nothing can listen"),
    ],
)
def test_a_server_that_cannot_be_is_refused_with_a_sentence(home, monkeypatch, capsys, arguments, says):
    monkeypatch.setattr(seminar.os, "execve", lambda *_: pytest.fail("it was started"))
    assert cli.main(["seminar", *arguments]) == 2
    assert says in capsys.readouterr().err


def test_a_port_that_is_taken_is_refused(home, free):
    with socket.socket() as other:
        other.bind(("127.0.0.1", free))
        other.listen()
        with pytest.raises(Refused, match=f"port {free}"):
            seminar.prepare("127.0.0.1", free, None)
