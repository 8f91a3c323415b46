"""Soft labels and DD-Ranking as runs: what they keep, where it is found again, and how they end when stopped."""

import os
from dataclasses import replace

import pytest
import torch

from engine import data as datasets
from engine.accel import Accel
from engine.errors import Refused
from engine.runs import ranking, studying
from engine.runs.store import Store
from engine.runs.worker import run_job
from engine.spec import build_spec
from engine.students import ranking as scores
from engine.students.fit import as_student, fit
from engine.students.kept import load_student
from engine.synthetic import load_synthetic
from tests.students.conftest import make_data, make_set

CPU = Accel(torch.device("cpu"))
DATA = replace(make_data(size=16, count=120), name="digits", title="Squares")


@pytest.fixture
def store(home, monkeypatch):
    monkeypatch.setattr(datasets, "load", lambda name, size=32, progress=None: DATA)
    return Store()


@pytest.fixture
def source(store):
    """A finished run whose result are random real images."""
    id = store.submit("import", build_spec("import", path="x.pt"), title="Some squares", pid=os.getpid())
    make_set(DATA, 4).save(store.folder(id) / "result")
    store.announce(id, "done", "Done.")
    return id


def do(store, kind, **values):
    id = store.submit(kind, build_spec(kind, device="cpu", **values), pid=os.getpid())
    run_job(store, store.run(id))
    return id


def test_a_teachers_labels_are_a_set_of_their_own(store, source):
    teacher = do(store, "student", source="full", dataset="digits", network="mlp", epochs=3)
    id = do(store, "soften", source=source, teacher=teacher, temperature=2.0)
    run = store.run(id)
    assert run.status == "done" and run.dataset == "digits" and run.title == "Some squares, soft labels", run.message
    soft, hard = load_synthetic(store.result_folder(id)), load_synthetic(store.result_folder(source))
    logits = load_student(store, teacher, CPU).logits(soft.pixels())
    assert torch.allclose(soft.labels, (logits / 2).softmax(1), atol=1e-4)
    assert torch.equal(soft.images, hard.images) and hard.labels.ndim == 1 and soft.kind == hard.kind
    student = store.student(do(store, "student", source=id, network="mlp", epochs=1))
    assert "softly labelled" in student["source"]["text"]


def test_a_teacher_that_is_not_there_is_a_sentence(store, source):
    run = store.run(do(store, "soften", source=source, teacher="20990101-0000-nobody"))
    assert run.status == "failed" and "no trained student" in run.message


@pytest.fixture
def reference(monkeypatch):
    """A reference that is there already, and one learning rate."""
    module = fit(DATA.train_images, DATA.train_labels, DATA, "mlp", seed=0, steps=20, accel=CPU)
    student = as_student(module, DATA, "reference", accuracy=0.9)
    monkeypatch.setattr(ranking, "teacher", lambda *args, **network: student)
    monkeypatch.setattr(scores, "RATES", (0.05,))
    return student


@pytest.mark.slow
def test_scores_are_kept_with_the_run_and_with_the_set(store, source, reference):
    id = do(store, "rank", source=source, seeds=1)
    run = store.run(id)
    assert run.status == "done" and "Label-robust score 0." in run.message and run.progress == 1, run.message
    mine, its = (store.events(each, kinds=("ranking",)) for each in (id, source))
    assert mine[0].data == its[0].data and mine[0].data["real_hard"] == 0.9
    assert mine[0].data["protocol"] == "quick" and len(mine[0].data["sides"]) == 5


def test_scoring_can_be_stopped(store, source, reference):
    id = store.submit("rank", build_spec("rank", source=source, device="cpu"), pid=os.getpid())
    store.command(id, "stop")
    run_job(store, store.run(id))
    assert store.run(id).status == "stopped" and not store.events(source, kinds=("ranking",))


def test_giving_up_while_the_reference_is_trained_leaves_it_to_be_resumed(store, source, monkeypatch):
    id = store.submit("rank", build_spec("rank", source=source, device="cpu"), pid=os.getpid())
    train = studying.train_one

    def stopped_meanwhile(plan, seed):
        store.command(id, "stop")
        return train(plan, seed)

    monkeypatch.setattr(studying, "train_one", stopped_meanwhile)
    run_job(store, store.run(id))
    assert store.run(id).status == "stopped", store.run(id).message
    (student,) = store.runs(kinds=["student"])
    assert student.status == "interrupted"


def test_a_protocol_of_own_steps_is_refused(store, source, reference):
    run = store.run(do(store, "rank", source=source, protocol="dd"))
    assert run.status == "failed" and "own steps" in run.message
    with pytest.raises(Refused):
        build_spec("rank", source=source, weight=2)
