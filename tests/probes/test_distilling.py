"""Questions about a distillation: what one step does, and where the images lie among real ones."""

from __future__ import annotations

import os

import numpy as np
import pytest
import torch
from PIL import Image

from engine.methods import METHODS
from engine.probes.answerer import work_out
from engine.probes.desk import Desk
from engine.probes.distilling.common import frame_images
from engine.probes.distilling.specs import FeatureMapSpec, SlowStepSpec
from engine.runs.store import Store
from engine.runs.worker import run_job
from engine.spec import build_spec
from engine.synthetic import load_synthetic

SMALL = {"dataset": "digits", "width": 8, "students": 0, "batch_real": 16}
PREPARED = {"mtt": {"experts": 1, "max_start": 1, "expert_epochs": 1, "syn_steps": 2}, "rat": {"total": 3, "window": 2}}


@pytest.fixture
def store(home) -> Store:
    return Store(home)


def distilled(store: Store, method: str, ipc: int = 1, steps: int = 3) -> str:
    values = {**SMALL, **PREPARED.get(method, {}), "method": method, "ipc": ipc, "steps": steps}
    id = store.submit("distill", build_spec("distill", **values), pid=os.getpid())
    run_job(store, store.run(id), shares=False)
    assert store.run(id).status == "done", store.run(id).message
    return id


def asked(store: Store, probe: str, spec):
    desk = Desk(store.home)
    return work_out(desk, store, desk.ask(probe, spec)), desk


def test_a_frame_is_read_back_as_the_images_class_after_class(store):
    id = distilled(store, "dm", ipc=2)
    images = frame_images(store, id, store.frames(id)[-1], 2)
    made = load_synthetic(store.result_folder(id))
    assert torch.equal(images, made.to_display()) and images.shape == (20, 1, 16, 16)


@pytest.mark.slow
@pytest.mark.parametrize("method", METHODS)
def test_a_step_of_every_method_can_be_taken_apart(store, method):
    id = distilled(store, method)
    answer, desk = asked(store, "slow-step", SlowStepSpec(run=id, step=0))
    assert not isinstance(answer, str), answer
    assert answer.facts["step"] == 0 and np.isfinite(answer.facts["loss"]) and answer.facts["moved"] > 0
    assert {row["class"] for row in answer.tables["classes"]} == set("0123456789")
    digest = desk.ask("slow-step", SlowStepSpec(run=id, step=0))
    pictures = {n: np.asarray(Image.open(desk.file(digest, f))) for n, f in answer.images.items()}
    assert pictures["before"].shape == pictures["gradient"].shape == pictures["moved"].shape
    assert len(np.unique(pictures["moved"].reshape(-1, 3), axis=0)) > 2  # Adam moves all pixels equally far at first
    if method != "mtt":  # whose experts have seen them before
        assert answer.facts["real"] > 0 and (pictures["real"] < 250).any()


def test_the_map_holds_the_real_images_and_each_moment_of_the_synthetic_ones(store):
    id = distilled(store, "dm", steps=6)
    answer, _ = asked(store, "feature-map", FeatureMapSpec(run=id, frames=3, images=5))
    points = answer.tables["points"]
    real = [p for p in points if p["kind"] == "real"]
    assert len(real) == 50 and answer.facts["network"] == "a random ConvNet" and 0 < answer.facts["share"] <= 1
    moments = sorted({p["step"] for p in points if p["kind"] == "synthetic"})
    assert moments[0] == 0 and moments[-1] == 6 and len(points) - 50 == 10 * len(moments)
    assert np.mean([[p["x"], p["y"]] for p in real], 0) == pytest.approx([0, 0], abs=1e-6)


def test_what_is_no_distillation_is_a_sentence(store):
    for probe, spec in (("slow-step", SlowStepSpec(run="nothing")), ("feature-map", FeatureMapSpec(run="nothing"))):
        answer, _ = asked(store, probe, spec)
        assert answer.startswith("There is no distillation “nothing” here")
