"""The measurements of endurance in small: that they work, and that what they look for does not happen."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest

from engine.runs.validate import check
from tests.benchmarks import audience, kills

pytestmark = pytest.mark.slow


@pytest.fixture(autouse=True)
def elsewhere(home, monkeypatch):
    monkeypatch.delenv("LIMBECK_DATA", raising=False)


@pytest.mark.parametrize("method", kills.RUNS)
def test_no_run_to_be_killed_is_refused_before(method):
    check(kills.spec_of(method, 0, 1.0))


def test_killed_workers_and_a_killed_server_cost_a_run_nothing():
    arguments = ["--kills", "3", "--servers", "1", "--seeds", "1", "--methods", "dm", "--share", "0.5"]
    found = kills.measure(kills.arguments(arguments))
    assert found["problems"] == []
    assert (found["workers"], found["servers"]) == (3, 1) and found["resumed"] >= 1
    assert found["equal"] == found["runs"] >= 1 and found["files"] > 50


def test_some_who_watch_a_run_are_answered_and_none_is_lost():
    arguments = ["--sessions", "5", "--seconds", "20", "--quiet", "3", "--warm", "3", "--every", "3", "--browsers", "0"]
    with ThreadPoolExecutor(1) as own:  # a browser that was driven from this thread has left a loop in it
        found = own.submit(audience.measure, audience.arguments(arguments)).result()
    assert found["lost"] == found["streams_broken"] == 0, found["lost_why"]
    assert found["strayed"] == [] and found["parts"] > 10
    assert found["clicks"] >= 5 and found["p95"] < 20  # seconds, on a machine that tests beside it
    assert found["frames_fetched"] >= 5 and max(size for _, size in found["memory"]) < 600
