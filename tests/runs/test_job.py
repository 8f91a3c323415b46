"""What a run goes through in a worker's hands, with a distiller that only walks at random: seconds are enough."""

import json
import os
import threading
import time

import pytest
import torch
from PIL import Image

from engine import students
from engine.accel import at_most
from engine.runs import distil, evaluating, job, live
from engine.spec import build_spec
from engine.synthetic import load_synthetic
from tests.runs import fakes
from tests.runs.fakes import claim_and_run, images, start, until


@pytest.fixture
def store(walks):
    return walks


def submit(store, **values):
    return store.submit("distill", build_spec("distill", **values))


def test_a_run_from_queued_to_done(store):
    id = submit(store, steps=100, ipc=2, students=2)
    claim_and_run(store)
    run = store.run(id)
    assert (run.status, run.step, run.progress, run.pid) == ("done", 100, 1.0, None)
    assert 0.4 < run.seconds < 20 and run.finished > run.started
    events = store.events(id)
    kinds = [e.kind for e in events]
    assert kinds.index("layout") < kinds.index("frame") < kinds.index("metric")
    assert [e.data["status"] for e in events if e.kind == "status"][0] == "queued"
    assert store.frames(id)[0] == 0 and store.frames(id)[-1] == 100
    metrics = [e.data for e in events if e.kind == "metric"]
    assert all(m["loss"] > 0 and m["rate"] > 0 and m["eta"] >= 0 and m["images_seen"] for m in metrics)
    result = load_synthetic(store.result_folder(id))
    assert len(result.images) == 20 and result.provenance["spec"]["steps"] == 100 and result.provenance["steps"] == 100
    assert [e["accuracies"] for e in store.evaluations([id])] == [[0.5, 0.5]]
    assert store.evaluations([id])[0]["protocol"] == "dsa" and store.evaluations([id])[0]["split"] == "test"
    assert not (store.folder(id) / "checkpoint").exists()


@pytest.mark.parametrize(
    ("method", "network", "threads"), [("dd", "lenet", 1), ("dd", "convnet", 2), ("dc", "lenet", 2)]
)
def test_small_networks_are_unrolled_by_one_thread(store, monkeypatch, method, network, threads):
    seen, step = [], fakes.RandomWalk.step
    monkeypatch.setattr(fakes.RandomWalk, "step", lambda self: (seen.append(torch.get_num_threads()), step(self))[1])
    monkeypatch.setattr("engine.accel.fast_bf16_cpu", lambda: True)
    monkeypatch.delenv("LIMBECK_BF16")
    with at_most(1):  # so that this process gets back what it had
        torch.set_num_threads(2)
        id = submit(store, method=method, network=network, steps=3)
        claim_and_run(store)
        assert torch.get_num_threads() == 2, "what comes next has them all"
    assert set(seen) == {threads}
    (layout,) = store.events(id, kinds=("layout",))
    assert layout.data["machine"].endswith("1 thread" if threads == 1 else "2 threads")
    assert ("fp32" if threads == 1 else "bf16") in layout.data["machine"]


def test_images_that_a_method_goes_back_to_are_the_last_frame_and_the_result(store, monkeypatch):
    def conclude(self):
        self.images.zero_().add_(0.25)
        return "The best ones."

    monkeypatch.setattr(fakes.RandomWalk, "conclude", conclude)
    monkeypatch.setattr(fakes.RandomWalk, "pace", 0.2)  # so that every step has its frame, the last one too
    monkeypatch.setattr(distil, "FRAME_EVERY", 0.0)
    id = submit(store, steps=4, students=0)
    claim_and_run(store)
    assert bool((load_synthetic(store.result_folder(id)).images == 0.25).all())
    frame = Image.open(store.frame_path(id, store.frames(id)[-1]))
    assert store.frames(id)[-1] == 4 and len(frame.getcolors()) == 1
    assert [e.step for e in store.events(id, kinds=("frame",))].count(4) == 1
    assert store.run(id).message.endswith("The best ones.")


def test_metrics_and_frames_come_at_a_bearable_rate(store):
    id = submit(store, minutes=0.05, students=0)
    claim_and_run(store)
    run = store.run(id)
    assert run.status == "done" and 3.0 <= run.seconds < 3.5
    took = run.finished - run.started
    assert len(store.events(id, kinds=("metric",))) <= 5 * took + 2  # the first step and the last are always there
    at = [e.at for e in store.events(id, kinds=("frame",))]
    assert max(b - a for a, b in zip(at, at[1:], strict=False)) < 1.0


def test_accuracy_begins_with_the_initial_images_and_takes_a_share_of_the_time(store):
    id = submit(store, steps=600, students=0)
    claim_and_run(store)
    curve = [e.data for e in store.events(id, kinds=("accuracy",))]
    assert curve[0]["step"] == 0 and len(curve) >= 2 and {c["split"] for c in curve} == {"held-out"}
    references = [e.data for e in store.events(id, kinds=("reference",))]
    assert [r["kind"] for r in references] == ["random", "selected"]
    assert all(r["protocol"] == "quick" and r["split"] == "held-out" for r in references)


def test_sets_for_steps_of_their_own_are_measured_by_them_and_without_references(store):
    id = submit(store, method="dd", steps=300, students=0)
    claim_and_run(store)
    curve = [e.data for e in store.events(id, kinds=("accuracy",))]
    assert curve and {c["protocol"] for c in curve} == {"dd"}
    assert store.events(id, kinds=("reference",)) == []


def test_references_are_computed_once(store, monkeypatch):
    first = submit(store, steps=300, students=0)
    claim_and_run(store)
    told = [e.data for e in store.events(first, kinds=("reference",))]
    assert len(told) == 2
    monkeypatch.setattr(live.baselines, "make_baseline", None)
    second = submit(store, steps=5, students=0)
    claim_and_run(store)
    assert [e.data for e in store.events(second, kinds=("reference",))] == told
    other = submit(store, steps=5, ipc=2, students=0)
    claim_and_run(store)
    assert store.events(other, kinds=("reference",)) == [], "another IPC has other references"


def test_a_live_accuracy_that_fails_does_not_end_the_run(store, monkeypatch):
    monkeypatch.setattr(students, "evaluate_slices", lambda *a, **k: 1 / 0)
    id = submit(store, steps=50, students=0)
    claim_and_run(store)
    assert store.run(id).status == "done"
    assert "ZeroDivisionError" in (store.folder(id) / "log.txt").read_text()


def test_pause_and_resume_and_stop(store):
    id = submit(store, minutes=5)
    thread = start(store)
    until(lambda: store.run(id).step > 5)
    store.command(id, "pause")
    until(lambda: store.run(id).status == "paused")
    step = store.run(id).step
    time.sleep(0.3)
    assert store.run(id).step == step
    store.command(id, "resume")
    until(lambda: store.run(id).step > step)
    store.command(id, "stop")
    thread.join(10)
    run = store.run(id)
    assert run.status == "stopped" and f"step {run.step}" in run.message
    assert store.frames(id)[-1] == run.step and store.result_folder(id) and store.evaluations([id]) == []


def test_a_paused_run_makes_room_for_the_queue_and_comes_back(store):
    id = submit(store, steps=80, deterministic=True, students=0)
    first = start(store)
    until(lambda: store.run(id).step > 5)
    store.command(id, "pause")
    until(lambda: store.run(id).status == "paused")
    other = submit(store, steps=80, deterministic=True, students=0)
    first.join(10)
    assert store.run(id).status == "paused" and store.run(id).pid is None
    claim_and_run(store)
    assert store.run(other).status == "done"
    store.command(id, "resume")
    claim_and_run(store)
    assert store.run(id).status == "done"
    assert torch.equal(images(store, id), images(store, other))


def test_a_run_on_the_command_line_keeps_its_place_while_paused(store):
    id = submit(store, minutes=5)
    thread = start(store, shares=False)
    until(lambda: store.run(id).step > 2)
    store.command(id, "pause")
    until(lambda: store.run(id).status == "paused")
    waiting = submit(store, steps=3)
    time.sleep(0.3)
    assert store.run(id).pid == os.getpid() and store.run(waiting).status == "queued"
    store.command(id, "stop")
    thread.join(10)
    assert store.run(id).status == "stopped"


def test_a_given_up_run_that_is_stopped_keeps_what_it_made(store):
    id = submit(store, minutes=5)
    thread = start(store)
    until(lambda: store.run(id).step > 5)
    store.command(id, "pause")
    until(lambda: store.run(id).status == "paused")
    submit(store, steps=2, students=0)
    thread.join(10)
    store.command(id, "stop")
    claim_and_run(store)
    claim_and_run(store)
    assert store.run(id).status == "stopped" and store.result_folder(id)


def test_ending_the_process_saves_and_resuming_gives_the_same_images(store):
    spec = {"steps": 120, "seed": 3, "deterministic": True, "students": 0}
    whole = submit(store, **spec)
    claim_and_run(store)
    parts = submit(store, **spec)
    for _ in range(2):
        leaving = threading.Event()
        thread = start(store, leaving=leaving)
        before = store.run(parts).step
        until(lambda: store.run(parts).step > before + 10)  # noqa: B023
        leaving.set()
        thread.join(10)
        run = store.run(parts)
        assert run.status == "interrupted" and run.step < 120
        torch.rand(5)  # what another run does to the global generator in between
        store.command(parts, "resume")
    claim_and_run(store)
    assert store.run(parts).status == "done" and store.run(parts).step == 120
    assert torch.equal(images(store, parts), images(store, whole))
    assert store.run(parts).seconds == pytest.approx(store.run(whole).seconds, rel=0.5)
    assert "Resumed at step" in " ".join(e.data["message"] for e in store.events(parts, kinds=("status",)))


def test_evaluation_does_not_alter_the_images(store, monkeypatch):
    with_it = submit(store, steps=60, seed=1, deterministic=True, students=0)
    claim_and_run(store)
    assert store.events(with_it, kinds=("accuracy",))
    monkeypatch.setattr(live.Live, "work", lambda *a: None)
    without = submit(store, steps=60, seed=1, deterministic=True, students=0)
    claim_and_run(store)
    assert not store.events(without, kinds=("accuracy",))
    assert torch.equal(images(store, with_it), images(store, without))


def test_divergence_goes_back_to_the_last_good_state_and_offers_half_the_rate(store, monkeypatch):
    monkeypatch.setattr(fakes.RandomWalk, "diverges_at", 30)
    id = submit(store, steps=100, lr_img=8.0)
    claim_and_run(store)
    run = store.run(id)
    assert run.status == "stopped" and "diverged" in run.message and "4" in run.message
    assert store.events(id)[-1].data["halved"] == {"lr_img": 4.0}
    assert store.frames(id)[-1] == run.step < 30
    assert torch.isfinite(images(store, id)).all()
    assert store.evaluations([id]) == []
    build_spec("distill", **{**run.spec, **store.events(id)[-1].data["halved"]})


def test_images_that_explode_are_divergence_too(store, monkeypatch):
    monkeypatch.setattr(fakes.RandomWalk, "explodes", True)
    id = submit(store, minutes=1)
    claim_and_run(store)
    assert "diverged" in store.run(id).message and images(store, id).abs().max() < 20


def test_half_of_the_smallest_rate_is_still_a_rate(store, monkeypatch):
    monkeypatch.setattr(fakes.RandomWalk, "diverges_at", 1)
    id = submit(store, steps=100, lr_img=1e-4)
    claim_and_run(store)
    assert store.events(id)[-1].data["halved"] == {"lr_img": 1e-4}


def test_stopping_while_the_data_is_read_leaves_nothing(store, monkeypatch):
    def load(name, size, progress):
        while True:
            time.sleep(0.01)
            progress(0.5, "Decoding.")

    monkeypatch.setattr(job.datasets, "load", load)
    id = submit(store, steps=5)
    thread = start(store)
    until(lambda: store.run(id).message == "Decoding 50%")
    store.command(id, "stop")
    thread.join(10)
    assert store.run(id).status == "stopped" and store.result_folder(id) is None


def test_a_mistake_is_one_sentence_and_the_log_has_the_traceback(store, monkeypatch):
    monkeypatch.setattr(fakes.RandomWalk, "raises_at", 4)
    id = submit(store, steps=100)
    claim_and_run(store)
    run = store.run(id)
    assert run.status == "failed" and "IndexError" in run.message and "Traceback" not in run.message
    assert "a mistake in the method" in (store.folder(id) / "log.txt").read_text()
    monkeypatch.setattr(fakes.RandomWalk, "raises_at", None)
    store.command(id, "resume")
    claim_and_run(store)
    assert store.run(id).status == "done"


def test_evaluation_may_be_stopped_and_the_images_stay(store, monkeypatch):
    def endless(*_, **options):
        while True:
            time.sleep(0.01)
            yield 0.5

    id = submit(store, steps=5)
    monkeypatch.setattr(evaluating.students, "evaluate_slices", endless)
    thread = start(store)
    until(lambda: "Evaluating" in store.run(id).message)
    assert store.run(id).status == "running"
    store.command(id, "stop")
    thread.join(10)
    assert store.run(id).status == "stopped" and store.result_folder(id) and store.evaluations([id]) == []


def test_a_baseline_has_one_frame_a_result_and_an_accuracy(store):
    id = store.submit("baseline", build_spec("baseline", kind="random", ipc=3, students=2))
    claim_and_run(store)
    run = store.run(id)
    assert run.status == "done" and store.frames(id) == [0]
    assert len(images(store, id)) == 30 and len(store.evaluations([id])) == 1
    with pytest.raises(ValueError, match="is done"):
        store.command(id, "pause")


def test_an_evaluation_is_kept_with_the_run_it_is_about(store):
    source = submit(store, steps=5, students=0)
    claim_and_run(store)
    id = store.submit("evaluate", build_spec("evaluate", source=source, protocol="dc", seeds=2))
    assert store.run(id).dataset == "digits"
    claim_and_run(store)
    assert store.run(id).status == "done"
    assert [(e["protocol"], e["seeds"]) for e in store.evaluations([source])] == [("dc", [0, 1])]


def test_an_evaluation_of_nothing_fails_with_a_sentence(store, tmp_path):
    waiting = submit(store, steps=5)
    store.command(waiting, "stop")
    for source, words in ((waiting, "no result yet"), (str(tmp_path / "nothing"), "no file")):
        id = store.submit("evaluate", build_spec("evaluate", source=source))
        claim_and_run(store)
        assert store.run(id).status == "failed" and words in store.run(id).message


def test_everything_a_run_leaves_is_json(store):
    id = submit(store, steps=20)
    claim_and_run(store)
    for name in ("spec.json", "result/synthetic.json"):
        json.loads((store.folder(id) / name).read_text())
