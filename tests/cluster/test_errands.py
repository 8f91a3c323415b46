"""What a node does and what comes back from it, without a cluster: head and node are two homes in one process."""

import os
import shutil
import threading
import time
from types import SimpleNamespace

import pytest
import torch

from engine.cluster import address, parcel
from engine.cluster.driver import Driver, Gone
from engine.cluster.node import Changes, Node
from engine.cluster.parcel import Parcel
from engine.cluster.questions import QuestionErrand
from engine.cluster.runs import RunErrand
from engine.errors import Refused
from engine.probes.desk import Desk
from engine.runs.process import birth
from engine.runs.store import Store
from engine.spec import build_spec
from engine.synthetic import load_synthetic
from tests.runs import fakes


@pytest.fixture
def head(tmp_path):
    return Store(tmp_path / "head")


@pytest.fixture
def node(tmp_path, monkeypatch):
    """Makes nodes, each on a disk of its own."""
    fakes.install(monkeypatch)
    monkeypatch.setattr(fakes.RandomWalk, "pace", 0.003)
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path / "inductor"))
    monkeypatch.setenv("LIMBECK_THREADS", "1")
    monkeypatch.setattr("engine.runs.worker.settle", lambda niceness: None)
    made = []

    def make():
        monkeypatch.setenv("LIMBECK_HOME", str(tmp_path / f"node{len(made)}"))
        made.append(Node(1))
        return made[-1]

    return make


def walk(store, **values):
    return store.submit("distill", build_spec("distill", dataset="digits", students=0, deterministic=True, **values))


def taken(store, id):
    run = store.claim(os.getpid())
    assert run is not None and run.id == id
    return RunErrand(store, run, 1, 0)


def carried(errand, node, until=None, seconds=30):
    """Ask after an errand until it ends, or until something is so."""
    deadline = time.monotonic() + seconds
    while True:
        changes = node.changes()
        errand.apply(changes)
        if changes.ended or (until and until()):
            return changes
        assert time.monotonic() < deadline, "it did not end"
        for command in errand.commands():
            node.command(command)
        time.sleep(0.05)


def told(store, id):
    """Kinds, steps and what is not a time of a run's events."""
    clocks = ("seconds", "rate", "eta")
    return [
        (e.kind, e.step, {k: v for k, v in e.data.items() if k not in clocks})
        for e in store.events(id)
        if e.kind in ("layout", "status")
    ]


def test_a_run_on_a_node_leaves_what_a_worker_s_leaves(head, node, tmp_path):
    id = walk(head, steps=60)
    errand = taken(head, id)
    other = node()
    other.begin(errand.parcel())
    assert carried(errand, other).ended
    run = head.run(id)
    assert (run.status, run.step, run.progress) == ("done", 60, 1.0) and head.owner(id) == (None, "")
    alone = Store(tmp_path / "alone")
    same = walk(alone, steps=60)
    os.environ["LIMBECK_HOME"] = str(alone.home)
    fakes.claim_and_run(alone)
    mine, theirs = load_synthetic(alone.result_folder(same)), load_synthetic(head.result_folder(id))
    assert torch.equal(mine.images, theirs.images)
    assert [e[0] for e in told(head, id)][:3] == [e[0] for e in told(alone, same)][:3]
    frames = [e.step for e in head.events(id, kinds=("frame",))]
    assert frames[0] == 0 and frames[-1] == 60 and frames == head.frames(id)
    assert not (head.folder(id) / "checkpoint").exists()
    home = other.errand.home
    other.end()
    assert not home.exists() and (tmp_path / "node0" / "cache").is_dir()


def test_a_lost_node_costs_what_came_after_the_last_checkpoint_that_arrived(head, node):
    whole, id = walk(head, steps=900), walk(head, steps=900)
    errand = taken(head, whole)
    first = node()
    first.begin(errand.parcel())
    carried(errand, first)
    first.end()
    errand = taken(head, id)
    first.begin(errand.parcel())
    carried(errand, first, lambda: head.run(id).step > 0 and len(list(head.folder(id).glob("checkpoint/*.pt"))) > 1)
    reached = max(int(p.stem) for p in head.folder(id).glob("checkpoint/*.pt"))
    assert 0 < reached < 900
    first.command("leave")  # it is gone: nothing of it is heard any more
    errand.lost(1)
    assert "going on from step" in head.run(id).message
    second = node()
    second.begin(errand.parcel())
    carried(errand, second)
    assert head.run(id).status == "done"
    resumed = [e.step for e in head.events(id, kinds=("status",)) if e.data.get("resumed")]
    assert resumed == [reached]
    images = [load_synthetic(head.result_folder(r)).images for r in (whole, id)]
    assert torch.equal(*images)
    steps = [e.step for e in head.events(id, kinds=("frame",))]
    assert steps == sorted(set(steps)) == head.frames(id)


def test_commands_reach_the_node(head, node):
    id = walk(head, minutes=10)
    errand = taken(head, id)
    other = node()
    other.begin(errand.parcel())
    carried(errand, other, lambda: head.run(id).step > 0)
    head.command(id, "pause")
    carried(errand, other, lambda: head.run(id).status == "paused")
    head.command(id, "resume")
    carried(errand, other, lambda: head.run(id).status == "running")
    head.command(id, "stop")
    assert carried(errand, other).ended
    assert head.run(id).status == "stopped" and head.result_folder(id)


def test_an_evaluation_takes_its_set_along_and_comes_back_to_it(head, node):
    source = walk(head, steps=5)
    errand = taken(head, source)
    other = node()
    other.begin(errand.parcel())
    carried(errand, other)
    id = head.submit("evaluate", build_spec("evaluate", source=source, seeds=2))
    errand = taken(head, id)
    other.begin(errand.parcel())
    carried(errand, other)
    assert head.run(id).status == "done", head.run(id).message
    (found,) = head.evaluations([source])
    assert found["accuracies"] == [0.5, 0.5]
    assert len(head.events(source, kinds=("evaluation",))) == 1


def test_a_folder_that_goes_away_while_it_is_looked_through_is_no_fault(tmp_path):
    (tmp_path / "spec.json").write_text("{}")
    ends = threading.Event()

    def write_and_remove():
        while not ends.is_set():
            (tmp_path / "checkpoint").mkdir()
            (tmp_path / "checkpoint" / "000001.pt").write_bytes(b"weights")
            shutil.rmtree(tmp_path / "checkpoint")

    writer = threading.Thread(target=write_and_remove)
    writer.start()
    try:
        for _ in range(3000):
            files, _ = parcel.changed(tmp_path, {})
            assert files.pop("spec.json") == b"{}" and set(files) <= {"checkpoint/000001.pt"}
    finally:
        ends.set()
        writer.join()


def test_a_run_that_somebody_else_took_over_is_given_up(head, node):
    id = walk(head, minutes=10)
    errand = taken(head, id)
    head.announce(id, "interrupted", "The worker went away.")
    with pytest.raises(Gone):
        errand.commands()
    errand.apply(Changes(events=[("status", 0, {"status": "done", "message": "Done."})], ended=True))
    assert head.run(id).status == "interrupted"


def test_a_question_is_answered_on_a_node(head, node, monkeypatch):
    from engine.probes import answerer
    from engine.probes.desk import Answer
    from engine.probes.specs import PROBES

    desk = Desk(head.home)
    probe = next(iter(PROBES.values()))

    class Module:
        @staticmethod
        def answer(spec, work):
            work.tell(0.5, "half of it.")
            return Answer({"rows": [{"a": 1}]}, {}, {"one": work.picture("one", torch.zeros(4, 4, dtype=torch.uint8))})

    monkeypatch.setattr(answerer, "import_module", lambda name: Module)
    digest = desk.ask(next(iter(PROBES)), probe.spec.model_construct())
    monkeypatch.setattr(answerer, "build_spec", lambda kind, **values: None)
    errand = QuestionErrand(desk, head, digest)
    assert desk.look(digest).status == "working" and desk.waiting() == []
    other = node()
    other.begin(errand.parcel())
    carried(errand, other)
    state = desk.look(digest)
    assert state.status == "done" and state.answer.tables == {"rows": [{"a": 1}]}
    assert desk.file(digest, "one.png").is_file()


def test_what_a_run_reads_travels_and_what_it_does_not_stays(head, tmp_path, monkeypatch):
    (head.home / "uploads").mkdir()
    (head.home / "uploads" / "a.pt").write_bytes(b"set")
    (head.home / "secret.txt").write_text("no")
    id = head.submit("import", build_spec("import", path=str(head.home / "uploads" / "a.pt")))
    sent = RunErrand(head, head.claim(os.getpid()), 1, 0).parcel()
    assert sent.files["uploads/a.pt"] == b"set" and not [n for n in sent.files if "secret" in n]
    there = sent.unpack(tmp_path / "there")
    assert there.run(id).spec["path"] == str(tmp_path / "there" / "uploads" / "a.pt")
    monkeypatch.setattr(parcel, "LIMIT", 2)
    with pytest.raises(Refused, match="too much to send to a node"):
        Parcel("run", id).add_files(head.home, head.home / "uploads")


def test_what_a_killed_actor_left_is_cleared_away(node, tmp_path):
    left = tmp_path / "node0" / "errands" / "999999999-123-abcd"
    left.mkdir(parents=True)
    mine = tmp_path / "node0" / "errands" / f"{os.getpid()}-{birth(os.getpid())}-abcd"
    mine.mkdir()
    node()
    assert not left.exists() and mine.exists()


@pytest.mark.parametrize("name", ["../x", "/etc/x", "a/../../x", ""])
def test_no_file_leaves_the_folder(tmp_path, name):
    with pytest.raises(ValueError, match="leaves its folder"):
        parcel.write(tmp_path, {name: b""}, ())


@pytest.mark.parametrize("given", ["somewhere", "http://a:1", "a:b", "ray://", "a:1;b"])
def test_an_address_that_is_none_is_a_sentence(monkeypatch, given):
    monkeypatch.setenv("LIMBECK_RAY", given)
    with pytest.raises(Refused, match="no address of a Ray cluster"):
        address()


def test_what_the_cluster_has_no_room_for_stays_in_the_queue(monkeypatch):
    """Two nodes of 16 cores and one GPU: of ten runs that need a GPU, two wait at Ray's door and not sixteen."""
    queue = [
        SimpleNamespace(parcel=lambda: None, cpus=2, gpus=1, waits=lambda: None, beat=lambda: None) for _ in range(10)
    ]
    driver = Driver(lambda: queue.pop() if queue else None)
    began = SimpleNamespace(begin=SimpleNamespace(remote=lambda parcel: object()))
    monkeypatch.setattr(driver, "_nodes", lambda: [{"CPU": 0}, {"CPU": 16, "GPU": 1}, {"CPU": 16, "GPU": 1}])
    monkeypatch.setattr(driver, "_actor", lambda cpus, gpus: began)
    monkeypatch.setattr("ray.wait", lambda asked, **_: ([], asked))
    driver.round()
    assert len(queue) == 8
    for away in driver.away:  # both have found a place
        away.placed, away.errand.commands = True, list
    driver.round()
    assert len(queue) == 6
