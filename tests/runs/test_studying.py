"""Students as runs: what they learn from, what is kept, and what is refused."""

import json
import os
import threading
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from engine import data as datasets
from engine.accel import Accel
from engine.errors import Refused
from engine.runs import studying
from engine.runs.job import Job
from engine.runs.store import Store
from engine.runs.studying import judged, teacher
from engine.runs.validate import check
from engine.runs.worker import run_job
from engine.spec import build_spec
from engine.students.kept import load_student, load_students
from engine.students.protocols import TRAINING
from engine.synthetic import fit_zca
from tests.students.conftest import make_data, make_set

CPU = Accel(torch.device("cpu"))
DATA = replace(make_data(size=16, count=90), name="digits", title="Squares")


@pytest.fixture
def store(home, monkeypatch):
    monkeypatch.setattr(datasets, "load", lambda name, size=32, progress=None: DATA)
    return Store()


def train(store, **values):
    values = {"dataset": "digits", "network": "convnet", "width": 8, "device": "cpu", **values}
    spec = build_spec("student", **values)
    id = store.submit("student", spec, pid=os.getpid())
    run_job(store, store.run(id))
    return id


def publish(store, synthetic):
    """A finished run whose result is ``synthetic``."""
    id = store.submit("import", build_spec("import", path="x.pt"), pid=os.getpid())
    synthetic.save(store.folder(id) / "result")
    store.announce(id, "done", "Done.")
    return id


def test_all_images(store):
    id = train(store, source="full", epochs=40, name="Everything")
    run, facts = store.run(id), store.student(id)
    assert (run.status, run.title, run.progress) == ("done", "Everything", 1.0), run.message
    assert "student-convnet-full" in id and "right" in run.message
    assert (facts["name"], facts["protocol"], facts["seed"], facts["dataset"]) == ("Everything", "full", 0, "digits")
    assert facts["source"] == {
        "kind": "full",
        "text": "all 90 training images of Squares",
        "run": None,
        "images": 90,
        "ipc": None,
        "method": None,
    }
    assert facts["accuracy"] > 0.9 and facts["test_images"] == 45
    assert sum(map(sum, facts["confusion"])) == 45 and [sum(row) for row in facts["confusion"]] == [15, 15, 15]
    right = sum(facts["confusion"][c][c] for c in range(3))
    assert facts["accuracy"] == pytest.approx(right / 45)
    assert facts["per_class"] == pytest.approx([facts["confusion"][c][c] / 15 for c in range(3)])
    assert len(facts["mistakes"]) == 45 - right
    assert facts["spec"]["epochs"] == 40 and facts["parameters"] > 1000 and facts["seconds"] > 0


def test_the_kept_student_says_what_the_trained_one_did(store):
    student = load_student(store, train(store, network="resnet18-bn", epochs=1, limit=12), CPU)
    assert not student.module.training
    predicted = student.logits(DATA.test_images).argmax(1)
    assert float((predicted == DATA.test_labels).double().mean()) == pytest.approx(student.facts["accuracy"])
    again = load_student(store, student.id, CPU)
    assert torch.equal(again.logits(DATA.test_images), student.logits(DATA.test_images))
    assert student.facts["source"]["kind"] == "random" and student.facts["source"]["images"] == 12


@pytest.mark.parametrize("values", [{"source": "full"}, {"source": "random", "ipc": 3, "protocol": "quick"}])
def test_the_same_seed_gives_the_same_student(store, values):
    first, again, other = (load_student(store, train(store, epochs=2, seed=s, **values), CPU) for s in (1, 1, 2))
    assert torch.equal(first.module.head.weight, again.module.head.weight)
    assert not torch.equal(first.module.head.weight, other.module.head.weight)
    assert "seed 1" in first.name


def test_a_baseline(store):
    facts = store.student(train(store, source="average", ipc=4, epochs=3))
    assert facts["source"]["kind"] == "summarised" and facts["source"]["method"] == "average"
    assert (facts["source"]["images"], facts["source"]["ipc"], facts["protocol"]) == (12, 4, "dc")
    assert "convnet on digits, average images, 4 per class" in facts["name"]


def test_a_distilled_set_with_learned_labels_in_whitened_space(store):
    zca = fit_zca(DATA.normalise(DATA.train_images), ratio=10)
    plain = make_set(DATA, 10, protocol="frepo", kind="distilled", provenance={"spec": {"method": "frepo"}})
    labels = torch.nn.functional.one_hot(plain.labels, 3).float() - 1 / 3
    source = publish(store, replace(plain, images=zca.whiten(plain.images), labels=labels, zca=zca))
    id = train(store, source=source, dataset=None, epochs=60)
    facts = store.student(id)
    assert facts["source"]["run"] == source and facts["source"]["method"] == "frepo" and facts["protocol"] == "frepo"
    assert facts["accuracy"] > 0.6
    student = load_student(store, id, CPU)
    predicted = student.logits(DATA.test_images).argmax(1)
    assert float((predicted == DATA.test_labels).double().mean()) == pytest.approx(facts["accuracy"], abs=0.03)


def test_a_path_is_a_source_too(store, tmp_path):
    make_set(DATA, 2).save(tmp_path / "mine")
    facts = store.student(train(store, source=str(tmp_path / "mine"), dataset=None, epochs=1, network="edge-popup"))
    assert facts["source"]["text"] == "6 random real images, 2 per class" and facts["source"]["run"] is None
    assert facts["name"] == "edge-popup on mine, 50% kept"


def test_adversarial_training_is_kept_and_named(store):
    facts = store.student(train(store, source="random", ipc=2, epochs=2, epsilon=4, network="mlp"))
    assert facts["spec"]["epsilon"] == 4 and "PGD 4/255" in facts["name"]


def test_stylised_images_are_trained_on_and_originals_tested(store, monkeypatch):
    import sys
    import types

    asked = []

    def stylised(data, style, seed, accel, tell, teacher):
        asked.append((style, seed))
        tell(0.5)
        return 255 - data.train_images

    monkeypatch.setitem(sys.modules, "engine.data.stylise", types.SimpleNamespace(stylised=stylised))
    plain = store.student(train(store, epochs=25))
    facts = store.student(train(store, epochs=25, style="fourier"))
    assert asked == [("fourier", 0)] and facts["source"]["text"].endswith("stylised (fourier)")
    assert facts["accuracy"] < plain["accuracy"] and facts["test_images"] == plain["test_images"]


def test_the_style_of_a_teacher_s_features_borrows_a_teacher(store, monkeypatch):
    lender = load_student(store, train(store, epochs=1), CPU)
    monkeypatch.setattr(studying, "teacher", lambda *asked: lender)
    id = train(store, epochs=1, style="adain")
    assert store.run(id).status == "done", store.run(id).message
    assert store.student(id)["source"]["text"].endswith("stylised (adain)")


def test_what_does_not_fit_is_a_sentence(store):
    other = replace(make_data(size=8, count=60), name="digits")
    source = publish(store, make_set(other))
    for values, words in (
        ({"source": source}, "1×8×8"),
        ({"source": "/nowhere"}, "no run and no file"),
        ({"source": "random", "ipc": 500}, "smallest class"),
        ({"source": "full", "network": "convnet", "depth": 5}, "at least 32 pixels"),
    ):
        run = store.run(train(store, **values))
        assert run.status == "failed" and words in run.message, run.message
        assert store.student(run.id) is None


@pytest.mark.parametrize(
    ("values", "words"),
    (
        ({"source": "full"}, "needs a dataset"),
        ({"source": "random"}, "needs a dataset"),
        ({"source": "x.zip", "style": "adain"}, "stylised"),
        ({"source": "random", "dataset": "digits", "limit": 20}, "limit"),
        ({"dataset": "digits", "name": "two\nlines"}, "one line"),
        ({"dataset": "nonesuch"}, "nonesuch"),
    ),
)
def test_specs_that_make_no_sense_are_refused(values, words):
    with pytest.raises(Refused, match=words):
        check(build_spec("student", **values))


def test_stopping_keeps_nothing_and_leaving_says_that_it_starts_over(store):
    spec = build_spec("student", dataset="digits", width=8, device="cpu", epochs=10_000)
    for stop in (True, False):
        leaving = threading.Event()
        id = store.submit("student", spec, pid=os.getpid())
        threading.Timer(0.5, leaving.set if not stop else lambda id=id: store.command(id, "stop")).start()
        run_job(store, store.run(id), leaving=leaving)
        run = store.run(id)
        assert run.status == ("stopped" if stop else "interrupted") and store.student(id) is None
    assert "starts it over" in run.message


def test_a_resumed_student_is_the_uninterrupted_one(store):
    spec = build_spec("student", dataset="digits", width=8, device="cpu", epochs=5)
    whole = train(store, epochs=5)
    id = store.submit("student", spec, pid=os.getpid())
    leaving = threading.Event()
    leaving.set()
    run_job(store, store.run(id), leaving=leaving)
    store.command(id, "resume")
    run_job(store, store.claim(os.getpid()))
    ours, theirs = (load_student(store, i, CPU).module.head.weight for i in (id, whole))
    assert torch.equal(ours, theirs)


# ---- what the test says ----


def test_confusion_and_mistakes_of_a_small_case():
    logits = torch.tensor([[5.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 3.0, 0.0], [9.0, 0.0, 0.0]])
    found = judged(logits, torch.tensor([0, 1, 0, 1]))
    assert found["accuracy"] == 0.5 and found["confusion"] == [[1, 1, 0], [1, 1, 0], [0, 0, 0]]
    assert found["per_class"] == [0.5, 0.5, None]
    assert [(m["index"], m["true"], m["predicted"]) for m in found["mistakes"]] == [(3, 1, 0), (2, 0, 1)]
    assert found["mistakes"][0]["confidence"] > found["mistakes"][1]["confidence"]


# ---- files from elsewhere ----


@pytest.fixture
def kept(store):
    return train(store, source="random", ipc=1, epochs=1, network="mlp")


@pytest.mark.parametrize(
    "change",
    (
        {"build": {"name": "convnet", "channels": 1, "size": 16, "classes": 3, "width": 10**9}},
        {"build": {"name": "convnet", "channels": 1, "size": 10**6, "classes": 3}},
        {"build": {"name": "os.system", "channels": 1, "size": 16, "classes": 3}},
        {"build": {"name": "mlp", "channels": 1, "size": 16, "classes": 3, "extra": 1}},
        {"build": {"name": "lenet", "channels": 1, "size": 16, "classes": 3}},
        {"build": None},
        {"classes": ["a"]},
        {"std": [0.0]},
        {"mean": "x"},
        {"zca_base": 1.0},
    ),
)
def test_hostile_facts_are_refused(store, kept, change):
    path = store.folder(kept) / "student" / "student.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    with pytest.raises(Refused, match="train it again"):
        load_student(store, kept, CPU)


@pytest.mark.parametrize("content", (b"", b"{", b"[1]", b"\xff\xfe", b"[" * 100_000))
def test_facts_that_are_none_are_no_student(store, kept, content):
    (store.folder(kept) / "student" / "student.json").write_bytes(content)
    assert store.student(kept) is None
    with pytest.raises(Refused, match="no trained student"):
        load_student(store, kept, CPU)


def test_hostile_weights_are_refused(store, kept):
    path = store.folder(kept) / "student" / "student.safetensors"
    tensors = {name: tensor.clone() for name, tensor in load_file(path).items()}
    for content in (b"", b"\x80\x04pickle", b"\xff" * 64):
        path.unlink()  # it may be mapped into memory
        path.write_bytes(content)
        with pytest.raises(Refused, match="train it again"):
            load_student(store, kept, CPU)
    for bad in (torch.full((3, 128), float("nan")), torch.zeros(3, 5)):
        path.unlink()
        save_file({**tensors, "network.head.weight": bad}, path)
        with pytest.raises(Refused, match="train it again"):
            load_student(store, kept, CPU)


def test_ids_are_checked(store, kept):
    for id in ("../" + kept, "nix", "", kept + "/.."):
        with pytest.raises(Refused):
            load_student(store, id, CPU)
    with pytest.raises(Refused, match="1 to 20"):
        load_students(store, " , ", CPU)
    assert [s.id for s in load_students(store, f"{kept}, {kept}", CPU)] == [kept]


# ---- teachers ----


@pytest.fixture
def hasty(monkeypatch):
    """Every training takes two steps."""
    short = replace(TRAINING["full"], steps=((1, 2),))
    monkeypatch.setattr("engine.students.train.protocol_for", lambda *_: short)


def test_a_teacher_is_trained_once(store, hasty):
    heard = []
    first = teacher(store, "digits", 32, CPU, lambda fraction, what: heard.append(what))
    assert first.facts["source"]["kind"] == "full" and any("Teacher network" in what for what in heard)
    heard.clear()
    assert teacher(store, "digits", 32, CPU, lambda *_: heard.append(1)).id == first.id and not heard
    assert len(store.runs(kinds=["student"])) == 1


def test_a_teacher_somebody_gives_up_is_taken_up_again(store, hasty):

    class Enough(Exception):
        pass

    def give_up(*_):
        raise Enough

    with pytest.raises(Enough):
        teacher(store, "digits", 32, CPU, give_up)
    (run,) = store.runs(kinds=["student"])
    assert run.status == "interrupted" and run.pid is None
    assert teacher(store, "digits", 32, CPU, lambda *_: None).id == run.id


def test_a_student_of_another_kind_is_no_teacher(store, hasty):
    other = train(store, source="full", width=8)
    named = train(store, source="full", width=128, name="Mine")
    found = teacher(store, "digits", 32, CPU, lambda *_: None)
    assert found.id == named and found.id != other


def test_jobs_tell_who_listens(store):
    id = store.submit("student", build_spec("student", dataset="digits", width=8, device="cpu", epochs=2), pid=1)
    heard = []
    studying.study(Job(store, store.run(id)), lambda fraction, what: heard.append((fraction, what)))
    assert heard[-1][1] == "Testing" and heard[-1][0] == pytest.approx(1.0)
    assert any("under the full protocol" in what for _, what in heard)


def test_the_mistaken_images_are_kept_in_their_order(store):
    id = train(store, source="random", ipc=1, epochs=1, network="mlp")
    mistakes = store.student(id)["mistakes"]
    assert mistakes, "after one epoch on three images something is wrong"
    with Image.open(store.folder(id) / "student" / "mistakes.webp") as sheet:
        assert sheet.size == (16 * len(mistakes), 16)
        last = torch.from_numpy(np.array(sheet.convert("L")))[:, -16:]
    assert torch.equal(last, DATA.test_images[mistakes[-1]["index"], 0])


def test_a_student_is_renamed_with_its_run(store, kept):
    before = load_student(store, kept, CPU)
    store.rename(kept, "  Nine ")
    after = load_student(store, kept, CPU)
    assert store.run(kept).title == after.name == "Nine"
    assert {**after.facts, "name": before.name} == before.facts
    for name in ("", "two\nlines", 201 * "x"):
        with pytest.raises(Refused, match="one line"):
            store.rename(kept, name)
    with pytest.raises(Refused, match="no run"):
        store.rename("20261121-0000-nothing-here", "Nine")
