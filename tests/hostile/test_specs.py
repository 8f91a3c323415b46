"""Specs, command lines and routes: each is refused in a sentence, before there is a run."""

from __future__ import annotations

import functools

import pytest
from starlette.applications import Starlette
from starlette.testclient import TestClient

import engine.probes.attribution.maps
import engine.probes.bias.study
import engine.runs.worker  # noqa: F401  (takes seconds, which no input shall be blamed for)
from engine import cli
from engine.errors import Refused
from engine.probes.specs import PROBES
from engine.runs.store import Store
from engine.runs.validate import check
from engine.spec import build_spec
from tests.hostile.case import Case, bounded, is_sentence, name_of
from tests.hostile.specs import CHECKS, COMMANDS, ROUTES, SPECS


@pytest.mark.parametrize("case", SPECS, ids=name_of)
def test_a_spec(case: Case) -> None:
    kind, values = case.make()
    with bounded(), pytest.raises(Refused) as refused:
        build_spec(PROBES[kind].spec if kind in PROBES else kind, **values)
    case.refused(refused.value)


@pytest.mark.parametrize("case", CHECKS, ids=name_of)
def test_a_spec_that_nothing_fits(inside, case: Case) -> None:
    kind, values = case.make()
    with bounded(), pytest.raises(Refused) as refused:
        check(build_spec(kind, **values))
    case.refused(refused.value)


@pytest.fixture(scope="module")
def one_parser():
    """Making it takes longer than any of these commands."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cli, "_parser", functools.cache(cli._parser))
        yield


@pytest.mark.parametrize("case", COMMANDS, ids=name_of)
def test_a_command_line(inside, capsys, one_parser, case: Case) -> None:
    home = inside.parents[1] / "home"
    with bounded():
        status = cli.main(case.make())
    captured = capsys.readouterr()
    assert status == 2 and captured.out == "" and captured.err.count("\n") == 1, captured
    case.refused(Refused(captured.err.strip()))
    assert not (home / "errors.log").exists()
    assert not (home / "store.sqlite").exists() or Store(home).runs() == []


@pytest.mark.parametrize("given", ["/dev/null", "/dev/null/x", "~nobody-of-that-name/x", "/proc/x", "x" * 300])
def test_a_home_that_cannot_be(inside, capsys, monkeypatch, given: str) -> None:
    monkeypatch.setenv("LIMBECK_HOME", given)
    assert cli.main(["runs", "list"]) == 2
    captured = capsys.readouterr()
    assert "LIMBECK_HOME" in captured.err and is_sentence(captured.err.strip()) and captured.out == ""


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    """The routes, and a run that is at work."""
    import app

    home = tmp_path_factory.mktemp("home")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LIMBECK_HOME", str(home))
        run = Store(home).submit("distill", build_spec("distill"))
        yield TestClient(Starlette(routes=app.ROUTES)), run


@pytest.mark.parametrize("case", ROUTES, ids=name_of)
def test_a_route(served, case: Case) -> None:
    client, run = served
    path, headers = case.make()
    with bounded():
        answer = client.get(path.replace("RUN", run), headers=headers)
    assert answer.status_code in (400, 404)
    if answer.text != "Not Found":  # where no route has such an address at all
        case.refused(Refused(answer.text))
