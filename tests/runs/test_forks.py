"""Forks: what they begin from, that they outlive their parents, what is refused, and who belongs to whom."""

from __future__ import annotations

import io
import threading
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from engine import cli, forks
from engine.errors import Refused
from engine.runs import checkpoint
from engine.spec import RunSpec, build_spec
from tests.runs import fakes
from tests.runs.fakes import claim_and_run, images, start, until


@pytest.fixture
def store(walks):
    return walks


def distilled(store, **values):
    id = store.submit("distill", build_spec("distill", **{"students": 0, "steps": 60, **values}))
    claim_and_run(store)
    return id


def forked(store, parent, at=None, **values):
    id = forks.submit(store, forks.plan(forks.point(store, parent, at), values))
    claim_and_run(store)
    assert store.run(id).status == "done", store.run(id).message
    return id


def middle(store, id):
    """A step in the middle of a run of which there is a frame."""
    steps = store.frames(id)
    return steps[len(steps) // 2]


def picture(store, id, step):
    return np.asarray(Image.open(io.BytesIO(store.frame_path(id, step).read_bytes())))


def test_a_fork_at_a_checkpoint_without_changes_repeats_what_the_parent_would_have_done(store):
    parent, whole = distilled(store, seed=3), distilled(store, seed=3, steps=100)
    fork = forked(store, parent, steps=100)
    assert store.run(fork).spec["fork"]["source"] == "state" and store.run(fork).spec["fork"]["step"] == 60
    assert torch.equal(images(store, fork), images(store, whole))
    assert store.frames(fork)[0] == 60 and store.frames(fork)[-1] == 100
    assert np.array_equal(picture(store, fork, 60), picture(store, parent, 60))
    assert store.run(fork).seconds > store.run(parent).seconds, "the parent's time counts"


def test_a_fork_in_the_middle_begins_with_the_images_of_that_frame_bit_by_bit(store):
    parent = distilled(store)
    at = middle(store, parent)
    fork = forked(store, parent, at, seed=5)
    assert store.run(fork).spec["fork"]["source"] == "tensors" and store.run(fork).spec["fork"]["changed"] == ["seed"]
    assert store.frames(fork)[0] == at and store.run(fork).step == 60
    first, was = (load_file(store.tensors_path(id, at))["images"] for id in (fork, parent))
    assert torch.equal(first, was) and was.abs().sum() > 0
    begun = store.events(fork, kinds=("frame",))[0]
    assert begun.step == at and begun.data["seconds"] > 0
    accuracy = store.events(fork, kinds=("accuracy",))[:1]
    assert [e.step for e in accuracy] in ([], [at]), "the first accuracy is that of the images it began with"


def test_without_tensors_a_fork_begins_with_the_picture_and_says_so(store, monkeypatch):
    monkeypatch.setattr(forks, "DATASETS", {"digits": SimpleNamespace(size=28)})  # as the fakes have them
    parent = distilled(store, ipc=2)
    at = middle(store, parent)
    store.tensors_path(parent, at).unlink()
    made = forks.plan(forks.point(store, parent, at), {"seed": 5})
    assert made.spec.fork.source == "frame" and "8 bits" in made.sentence
    fork = forks.submit(store, made)
    monkeypatch.undo()
    fakes.install(monkeypatch)
    monkeypatch.setenv("LIMBECK_HOME", str(store.home))
    with pytest.raises(Refused, match="28 pixels, but those of Digits have 16"):
        forks.plan(forks.point(store, parent, at), {"seed": 5})
    claim_and_run(store)
    assert np.array_equal(picture(store, fork, at), picture(store, parent, at)), "every image in its place"
    assert not torch.equal(load_file(store.tensors_path(fork, at))["images"], torch.zeros(20, 1, 28, 28))


def test_a_run_that_ends_while_its_checkpoints_are_looked_through_still_has_its_last(store, monkeypatch):
    folder = store.home / "runs" / "20260101-0000-a-run-x"
    (folder / "checkpoint").mkdir(parents=True)
    (folder / "checkpoint" / "000007.pt").write_bytes(b"weights")
    look = Path.glob

    def looked_and_then_ended(path, pattern):
        found = list(look(path, pattern))
        if (folder / "checkpoint").exists():
            checkpoint.retire(folder / "checkpoint", folder / forks.LAST, forks.LARGEST)
        return found

    monkeypatch.setattr(Path, "glob", looked_and_then_ended)
    monkeypatch.setattr(checkpoint, "_all", lambda folder: sorted(look(folder, "[0-9]*.pt")))
    found = forks._checkpoints(store, "20260101-0000-a-run-x")
    assert found[7].read_bytes() == b"weights"


def test_a_fork_outlives_its_parent(store):
    parent = distilled(store)
    fork = forks.submit(store, forks.plan(forks.point(store, parent, middle(store, parent)), {"seed": 5}))
    store.delete(parent)
    claim_and_run(store)
    assert store.run(fork).status == "done"
    first = forks.family(store, fork)
    assert (first.id, first.run) == (parent, None) and [m.id for m in first.forks] == [fork]


def test_an_interrupted_fork_goes_on_as_if_nothing_had_happened(store, monkeypatch):
    parent = distilled(store)
    at = middle(store, parent)
    whole = forked(store, parent, at, seed=5, steps=200)
    broken = forks.submit(store, forks.plan(forks.point(store, parent, at), {"seed": 5, "steps": 200}))
    leaving = threading.Event()
    thread = start(store, leaving=leaving)
    until(lambda: store.run(broken).step > at + 5)
    leaving.set()
    thread.join(10)
    assert store.run(broken).status == "interrupted" and store.run(broken).step < 200
    store.command(broken, "resume")
    claim_and_run(store)
    assert store.run(broken).status == "done" and torch.equal(images(store, broken), images(store, whole))


def test_a_fork_that_diverged_is_run_again_from_where_it_began(store, monkeypatch):
    parent = distilled(store)
    at = middle(store, parent)
    fork = forks.submit(store, forks.plan(forks.point(store, parent, at), {"lr_img": 0.5}))
    monkeypatch.setattr(fakes.RandomWalk, "diverges_at", 3)
    claim_and_run(store)
    assert store.run(fork).status == "stopped" and store.run(fork).step == at, "back to what it began from"
    monkeypatch.setattr(fakes.RandomWalk, "diverges_at", None)
    store.delete(parent)
    again = forks.again(store, fork, {"lr_img": 0.25})
    claim_and_run(store)
    assert store.run(again).status == "done" and store.frames(again)[0] == at
    assert forks.changed_words(store.run(again)) == "Image learning rate: 0.25"


def test_another_method_brings_its_own_parameters(store):
    parent = distilled(store, lr_img=7.0, batch_real=99)
    made = forks.plan(forks.point(store, parent, 0), {"method": "frepo"})
    own = made.spec.parameters
    assert made.spec.method == "frepo" and own == type(own)() and made.spec.fork.changed == ("method",)
    assert RunSpec.model_validate(made.spec.model_dump(mode="json")) == made.spec


REFUSED = [
    ({"ipc": 2}, "keeps images per class"),
    ({"dataset": "shapes"}, "keeps dataset"),
    ({"init": "noise"}, "not with initial ones"),
    ({"factor": 2}, "keeps pictures in an image"),
    ({"steps": 60}, "begins at step 60"),
    ({"steps": None, "minutes": 0.05, "lr_img": 9e9}, "lr_img"),
    ({"steps": 90, "method": "dc", "distill_steps": 3}, "no parameter “distill_steps”"),
    ({"steps": 90, "method": "datadam", "network": "mlp"}, "two convolutional layers"),
    ({"steps": 90, "method": "rat", "protocol": "dd"}, "learned step sizes"),
]


@pytest.mark.parametrize(("values", "says"), REFUSED)
def test_what_does_not_fit_is_refused_with_a_sentence(store, values, says):
    parent = distilled(store)
    with pytest.raises(Refused, match=says):
        forks.plan(forks.point(store, parent), values)
    assert len(store.runs()) == 1


def test_only_distillation_with_images_can_be_forked(store):
    queued = store.submit("distill", build_spec("distill", steps=9))
    with pytest.raises(Refused, match="no images yet"):
        forks.point(store, queued)
    baseline = store.submit("baseline", build_spec("baseline", students=0))
    with pytest.raises(Refused, match="Only distillation"):
        forks.point(store, baseline)
    with pytest.raises(Refused, match="no run"):
        forks.point(store, "no-such-run-here")


def test_a_family_is_a_tree_that_the_command_line_prints(store, capsys):
    parent = distilled(store)
    one = forked(store, parent, 0, seed=1)
    two = forked(store, parent, 0, method="dc", lr_img=0.3)
    grandchild = forked(store, one, middle(store, one), seed=2)
    for member in (parent, one, two, grandchild):
        found = [(depth, m.id) for depth, m in forks.members(forks.family(store, member))]
        assert found == [(0, parent), (1, one), (2, grandchild), (1, two)]
    assert cli.main(["runs", "tree", grandchild]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.count("    ") for line in lines] == [0, 1, 2, 1]
    assert "Method: Gradient matching, Image learning rate: 0.3" in lines[3]
    assert "quick protocol, held-out" in lines[0]


def test_the_command_line_forks_and_refuses(store, capsys):
    parent = distilled(store)
    assert cli.main(["fork", parent, "--at", "0", "--seed", "4", "--json"]) == 0
    (fork,) = store.forks(parent)
    assert fork.spec["fork"]["changed"] == ["seed"] and fork.status == "done" and fork.spec["steps"] == 60
    assert cli.main(["fork", parent, "--minutes", "0.05", "--json"]) == 0
    assert store.forks(parent)[1].spec["steps"] is None, "who names minutes means minutes"
    capsys.readouterr()
    for arguments, says in (
        ((parent, "--at", "x"), "whole number"),
        ((parent, "--ipc", "3"), "keeps images per class"),
        ((parent,), "begins at step 60"),
        (("nothing-like-it",), "no run"),
    ):
        assert cli.main(["fork", *arguments]) == 2
        assert says in capsys.readouterr().err
    from engine import words

    line = words.command("distill", fork.spec)
    assert line == f"python -m engine fork {parent} --at 0 --seed 4"
