"""A run whose method prepares before its first step: what people see meanwhile."""

import os
import threading
import time

import pytest

from engine.distill import StepReport
from engine.runs import live
from engine.runs.store import Store
from engine.runs.worker import run_job
from engine.spec import build_spec
from tests.runs import fakes


class Preparing(fakes.RandomWalk):
    """Walks at random after 150 slices of preparation."""

    def setup(self, spec, data, accel) -> None:
        super().setup(spec, data, accel)
        self.prepared = 0

    def step(self) -> StepReport:
        if self.prepared < 150:
            self.prepared += 1
            time.sleep(self.pace)
            return StepReport(0, None, note=f"Recording expert 1 of 2, {self.prepared / 150:.0%}")
        return super().step()


@pytest.fixture
def store(tmp_path, monkeypatch):
    monkeypatch.setenv("LIMBECK_HOME", str(tmp_path))
    fakes.install(monkeypatch)
    monkeypatch.setattr("engine.distill.make_distiller", lambda method: Preparing())
    monkeypatch.setattr(live, "SHARE", 0.5)
    return Store(tmp_path)


def test_the_images_and_what_is_being_prepared_are_shown_from_the_start(store):
    id = store.submit("distill", build_spec("distill", steps=60, students=0))
    thread = threading.Thread(target=lambda: run_job(store, store.claim(os.getpid())), daemon=True)
    thread.start()
    seen = {}
    while thread.is_alive():
        run = store.run(id)
        seen.setdefault(run.message, (run.step, store.frames(id), store.events(id, kinds=("metric",))))
        time.sleep(0.02)
    notes = [message for message in seen if message.startswith("Recording expert 1 of 2, ")]
    assert len(notes) >= 2 and seen[notes[0]] == (0, [0], [])
    assert store.run(id).status == "done" and store.run(id).step == 60
    events = store.events(id)
    said = [e.data["message"] for e in events if e.kind == "status"]
    assert said.count("Distilling.") == 2  # at the beginning, and when there is no more to prepare
    assert all(e.data["loss"] > 0 for e in events if e.kind == "metric")
    steps = [e.data["step"] for e in events if e.kind == "accuracy"]
    assert steps.count(0) == 1  # images that have not changed are not measured again
