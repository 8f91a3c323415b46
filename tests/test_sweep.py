"""Sweeps: what they vary, what they refuse, what they cost, and that nothing is done twice."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from scipy import stats

from engine import cli, sweep
from engine.errors import Refused
from engine.intervals import student_t
from engine.runs import process
from engine.runs.store import Store
from engine.spec import build_spec
from tests.runs import fakes
from tests.runs.fakes import claim_and_run

ROOT = Path(__file__).parents[1]
SMALL = {"dataset": "digits", "steps": 5, "students": 0}


@pytest.fixture
def store(tmp_path, monkeypatch):
    monkeypatch.setenv("LIMBECK_HOME", str(tmp_path))
    monkeypatch.setattr(fakes.RandomWalk, "pace", 0.001)
    fakes.install(monkeypatch)
    return Store(tmp_path)


def plan(*over, **values):
    return sweep.make_plan({**SMALL, **values}, sweep.parse_over(over))


# ---- what is varied -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("ipc=1,10", [1, 10]),
        ("seed=0..2", [0, 1, 2]),
        ("width=8..32..8, 48", [8, 16, 24, 32, 48]),
        ("lr-img=0.5,1,1", [0.5, 1.0]),
        ("method=dm, dc", ["dm", "dc"]),
        ("zca=true,no", [True, False]),
    ],
)
def test_values_are_lists_and_ranges(text, values):
    ((_, found),) = sweep.parse_over([text]).items()
    assert found == values and all(type(a) is type(b) for a, b in zip(found, values, strict=True))


@pytest.mark.parametrize(
    ("over", "says"),
    [
        ((), "at least one"),
        (("ipc",), "nothing to vary"),
        (("ipc=",), "nothing to vary"),
        (("nonsense=1",), "no setting “nonsense”"),
        (("step=1",), "Did you mean steps"),
        (("ipc=one",), "must be a whole number"),
        (("lr_img=nan",), "must be a number"),
        (("zca=perhaps",), "true or false"),
        (("seed=5..1",), "must rise"),
        (("seed=0..999999999",), "at most 100"),
        (("seed=0..60", "seed=1"), "twice"),
        ((f"width={','.join(map(str, range(101)))}",), "more than 100"),
    ],
)
def test_what_is_no_list_is_refused_with_a_sentence(over, says):
    with pytest.raises(Refused, match=says):
        sweep.parse_over(over)


def test_every_combination_is_a_cell_and_the_last_setting_varies_fastest(home):
    cells = sweep.expand(plan("ipc=1,10", "method=dm,frepo", "seed=0..2"))
    assert [c.place for c in cells] == list(range(12))
    assert [(c.spec.ipc, c.spec.method, c.spec.seed) for c in cells[:4]] == [
        (1, "dm", 0), (1, "dm", 1), (1, "dm", 2), (1, "frepo", 0),
    ]  # fmt: skip
    assert {c.spec.steps for c in cells} == {5} and {c.spec.minutes for c in cells} == {None}
    assert cells[0].label == "images per class 1, method Distribution matching, seed 0"


def test_parameters_of_one_method_leave_the_others_their_defaults(home):
    over = sweep.parse_over(["method=dm,frepo"])
    cells = sweep.expand(sweep.make_plan({**SMALL, "lr_img": 7.0, "variant": "plain"}, over, "dm"))
    assert cells[0].spec.parameters.lr_img == 7.0 and cells[0].spec.parameters.variant == "plain"
    assert cells[1].spec.parameters == type(cells[1].spec.parameters)()
    with pytest.raises(Refused, match="method=frepo: There is no parameter “variant”"):
        sweep.expand(sweep.make_plan({**SMALL, "variant": "plain"}, over))


def test_impossible_cells_are_named_and_too_many_are_refused(home):
    with pytest.raises(Refused, match="One cell cannot be run. network=mlp, method=datadam: Attention matching needs"):
        sweep.expand(plan("network=convnet,mlp", "method=dm,datadam"))
    with pytest.raises(
        Refused, match=r"2 of 4 cells cannot be run. ipc=1000, seed=0: Images per class .* from 1 to 100"
    ):
        sweep.expand(plan("ipc=1,1000", "seed=0,1"))
    with pytest.raises(Refused, match=r"400 cells \(20 × 20\); at most 200"):
        sweep.expand(plan("seed=1..20", "ipc=1..20"))


# ---- what it costs --------------------------------------------------------------------------------------------------


def test_the_cost_counts_minutes_paces_and_what_is_done(store):
    ten = [sweep.expand(plan("seed=0..9", steps=None, minutes=m)) for m in (1.0, 2.0)]
    assert sweep.cost(store, ten[1]).seconds - sweep.cost(store, ten[0]).seconds == pytest.approx(600)
    slow = store.submit("distill", build_spec("distill", **{**SMALL, "steps": 20}))
    store.update(slow, step=20, seconds=200.0)
    store.announce(slow, "done", "Done.")
    cells = sweep.expand(plan("seed=0..9", steps=30))
    assert 3000 < sweep.cost(store, cells).seconds < 3100, "ten seconds a step, as before"
    done = store.submit("distill", cells[0].spec)
    store.announce(done, "done", "Done.")
    cost = sweep.cost(store, cells)
    assert (cost.runs, cost.done) == (9, 1) and "9 runs" in cost.sentence() and "1 cell is done" in cost.sentence()


# ---- doing ----------------------------------------------------------------------------------------------------------


def test_a_sweep_asked_for_again_does_only_what_is_left(store):
    wanted = plan("ipc=1,2", "seed=0,1")
    id = sweep.start(store, wanted, "Mine")
    runs = sweep.load(store, id).runs
    assert len(runs) == 4 and {r.status for r in runs.values()} == {"queued"}
    claim_and_run(store)
    broken = store.claim(os.getpid())  # and its worker dies
    store.announce(broken.id, "interrupted", "The worker went away.")
    store.command(runs[3].id, "stop")
    assert sweep.start(store, wanted) == id
    again = sweep.load(Store(store.home), id)
    assert again.name == "Mine"
    assert [again.runs[i].id == runs[i].id for i in range(4)] == [True, True, True, False]
    assert [again.runs[i].status for i in range(4)] == ["done", "queued", "queued", "queued"]
    assert len(store.runs()) == 5, "the one that was stopped is made anew, and nothing else"


def test_runs_that_are_here_already_stand_for_their_cells(store):
    first = store.submit("distill", build_spec("distill", **SMALL, seed=1))
    claim_and_run(store)
    id = sweep.start(store, plan("seed=0..2"))
    assert sweep.load(store, id).runs[1].id == first and store.swept(first) == [id]
    assert len(store.runs()) == 3
    other = sweep.start(store, plan("seed=1..3"))
    assert other != id and len(store.runs()) == 4, "what waits in one sweep does for another"
    store.delete(first)
    assert 1 not in sweep.load(store, id).runs
    sweep.start(store, plan("seed=0..2"))
    assert sweep.load(store, id).runs[1].id != first


def test_all_of_a_sweep_is_cancelled(store):
    id = sweep.start(store, plan("seed=0..2"))
    claim_and_run(store)
    assert sweep.cancel(store, id) == 2
    assert [r.status for r in sweep.load(store, id).runs.values()] == ["done", "stopped", "stopped"]
    assert store.claim(os.getpid()) is None
    with pytest.raises(Refused, match="no such sweep"):
        sweep.load(store, "sweep-none")


def test_a_cell_that_cannot_be_keeps_all_from_being_queued(store):
    with pytest.raises(Refused):
        sweep.start(store, plan("ipc=1,1000"))
    assert store.runs() == [] and store.sweeps() == []


# ---- what it shows --------------------------------------------------------------------------------------------------


def test_numbers_of_two_protocols_are_never_put_together(store):
    id = sweep.start(store, plan("ipc=1,2", "seed=0..2", students=2))
    for _ in range(6):
        claim_and_run(store)
    found = sweep.load(store, id)
    other = {"protocol": "dc", "network": "mlp", "split": "test", "mean": 0.9, "std": 0.0, "accuracies": [0.9]}
    store.add_evaluation(found.runs[0].id, other)
    live = {"protocol": "quick", "accuracy": 0.5}  # runs this short may have none of their own
    store.append(found.runs[0].id, [("accuracy", 5, live)])
    rows = sweep.measured(store, found)
    kinds = sweep.measures(rows)
    assert [(k.split, k.protocol, k.network) for k in kinds] == [
        ("test", "dsa", "convnet"), ("test", "dc", "mlp"), ("held-out", "quick", ""),
    ]  # fmt: skip
    mine = [r for r in rows if (r["split"], r["protocol"]) == ("test", "dsa")]
    for row, accuracy in zip(mine, (0.1, 0.2, 0.3, 0.5, 0.6, 0.7), strict=True):
        row["accuracy"] = accuracy
    one, two = sweep.trend(mine, ["ipc", "seed"], "ipc")
    assert (one["ipc"], two["ipc"], one["n"]) == (1, 2, 3) and one["mean"] == pytest.approx(0.2)
    low, high = stats.t.interval(0.95, 2, loc=0.2, scale=0.1 / 3**0.5)
    assert (one["low"], one["high"]) == (pytest.approx(low), pytest.approx(high))
    assert [r["mean"] for r in sweep.trend(mine, ["ipc", "seed"])] == pytest.approx([0.2, 0.6])
    by_seed = sweep.trend(mine, ["ipc", "seed"], "seed")
    assert len(by_seed) == 6 and by_seed[0]["low"] is None, "one number says nothing about its spread"


def test_the_t_interval_is_that_of_the_textbook():
    mean, low, high = student_t([1.0, 2.0, 3.0, 4.0])
    assert (mean, round(low, 3), round(high, 3)) == (2.5, 0.446, 4.554)
    assert student_t([1.0]) == (1.0, None, None)


# ---- the command line -----------------------------------------------------------------------------------------------


def test_the_command_line_sweeps_estimates_refuses_and_goes_on(store, capsys):
    flags = ["--dataset", "digits", "--steps", "5", "--students", "1"]
    over = ["--over", "ipc=1,2", "--over", "seed=0,1"]
    assert cli.main(["sweep", *flags, *over, "--estimate"]) == 0
    assert "4 runs" in capsys.readouterr().out and store.runs() == []
    assert cli.main(["sweep", *flags, *over, "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert len({row["run"] for row in told["cells"]}) == 4 and {r["status"] for r in told["cells"]} == {"done"}
    assert {r["accuracy"] for r in told["cells"] if r["split"] == "test"} == {0.5}
    assert cli.main(["sweep", *flags, *over]) == 0
    said = capsys.readouterr()
    assert "Nothing is left to do" in said.err and len(store.runs()) == 4 and "ipc" in said.out
    sweep.start(store, sweep.make_plan({"dataset": "digits", "steps": 4}, {"seed": [7, 8]}))
    assert cli.main(["sweep", "--dataset", "digits", "--steps", "4", "--over", "seed=7..8"]) == 0
    assert {run.status for run in store.runs()} == {"done"}, "what no worker will do is done here"
    assert cli.main(["sweep", *flags, "--over", "ipc=1,999"]) == 2
    assert "ipc=999" in capsys.readouterr().err


# ---- with a server that is killed -----------------------------------------------------------------------------------

SERVER = """
import sys, time
from engine.runs.executor import LocalExecutor
from engine.runs.store import Store
LocalExecutor(Store(sys.argv[1])).start()
time.sleep(600)
"""


@pytest.mark.slow
def test_a_sweep_whose_server_is_killed_goes_on_when_it_is_asked_for_again(tmp_path):
    store = Store(tmp_path)
    values = {"dataset": "digits", "method": "dm", "width": 8, "depth": 2, "batch_real": 16, "students": 0}
    asked = sweep.make_plan({**values, "steps": 400, "deterministic": True}, {"seed": [0, 1, 2]})

    def serve():
        return subprocess.Popen([sys.executable, "-c", SERVER, str(tmp_path)], cwd=ROOT, start_new_session=True)

    def cells():
        return [run for _, run in sorted(store.cells(id).items())]

    server = serve()
    try:
        id = sweep.start(store, asked)
        fakes.until(lambda: cells()[0].status == "done" and cells()[1].step > 20, 120)
        first, killed, _ = cells()
        server.kill()
        fakes.until(lambda: not process.birth(killed.pid), 30)  # the worker ends with its server
        server.wait()
        server = serve()
        fakes.until(lambda: cells()[1].status == "interrupted", 60)
        assert sweep.start(store, asked) == id
        fakes.until(lambda: {run.status for run in cells()} == {"done"}, 120)
        assert [run.step for run in cells()] == [400] * 3
        assert [cells()[0], cells()[1].id, len(store.runs())] == [first, killed.id, 3], "nothing was made twice"
        untouched = store.submit("distill", build_spec("distill", **values, steps=400, deterministic=True, seed=1))
        fakes.until(lambda: store.run(untouched).status == "done", 120)
        assert torch.equal(fakes.images(store, untouched), fakes.images(store, killed.id))
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(server.pid, signal.SIGKILL)
