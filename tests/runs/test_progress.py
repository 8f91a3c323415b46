"""What share of its budget a method hears is used, before each step."""

import os

import pytest

from engine.runs.store import Store
from engine.runs.worker import run_job
from engine.spec import build_spec
from tests.runs import fakes


def heard(tmp_path, monkeypatch, **budget):
    monkeypatch.setenv("LIMBECK_HOME", str(tmp_path))
    fakes.install(monkeypatch)
    shares, step = [], fakes.RandomWalk.step

    def listening(self):
        shares.append(self.progress)
        return step(self)

    monkeypatch.setattr(fakes.RandomWalk, "step", listening)
    store = Store(tmp_path)
    store.submit("distill", build_spec("distill", students=0, **budget))
    run_job(store, store.claim(os.getpid()))
    return shares


def test_with_a_budget_of_steps_it_is_their_share(tmp_path, monkeypatch):
    assert heard(tmp_path, monkeypatch, steps=8) == pytest.approx([n / 8 for n in range(8)])


def test_with_a_budget_of_minutes_it_rises_towards_one(tmp_path, monkeypatch):
    shares = heard(tmp_path, monkeypatch, minutes=0.05)
    assert shares == sorted(shares) and shares[0] < 0.2 and 0.9 < shares[-1] < 1
