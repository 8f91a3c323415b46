"""Forks of real distillations of digits: other methods, other spaces, and bit by bit where nothing changes."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from engine.data import load
from engine.distill.images import whitening
from engine.runs.store import Store
from engine.spec import build_spec
from engine.synthetic import load_synthetic
from tests.runs.fakes import claim_and_run, images
from tests.runs.test_forks import forked, middle, picture

SMALL = {"dataset": "digits", "width": 8, "depth": 2, "students": 0, "steps": 30, "deterministic": True}
pytestmark = pytest.mark.slow


@pytest.fixture
def store(tmp_path, monkeypatch):
    monkeypatch.setenv("LIMBECK_HOME", str(tmp_path))
    monkeypatch.delenv("LIMBECK_DATA", raising=False)
    monkeypatch.setenv("LIMBECK_COMPILE", "0")
    return Store(tmp_path)


def distilled(store, method="dm", **values):
    id = store.submit("distill", build_spec("distill", method=method, batch_real=16, **{**SMALL, **values}))
    claim_and_run(store)
    assert store.run(id).status == "done", store.run(id).message
    return id


def test_another_method_goes_on_with_the_images(store):
    parent = distilled(store)
    at = middle(store, parent)
    fork = forked(store, parent, at, method="dc", steps=at + 8)
    assert np.array_equal(picture(store, fork, at), picture(store, parent, at))
    made = load_synthetic(store.result_folder(fork))
    assert made.provenance["spec"]["method"] == "dc" and made.provenance["steps"] == at + 8
    assert not np.array_equal(picture(store, fork, at + 8), picture(store, fork, at))


def test_a_fork_without_changes_is_exact_and_one_with_another_rate_is_not(store):
    parent, whole = distilled(store, seed=4), distilled(store, seed=4, steps=45)
    same, other = forked(store, parent, steps=45), forked(store, parent, steps=45, lr_img=0.25)
    assert {store.run(id).spec["fork"]["source"] for id in (same, other)} == {"state"}
    assert torch.equal(images(store, same), images(store, whole))
    assert not torch.equal(images(store, other), images(store, whole)), "the new rate holds, not the state's"


def test_learned_labels_are_handed_on(store):
    parent = distilled(store, "frepo", lr_img=0.01, pool=2)
    fork = forked(store, parent, seed=3, steps=31)
    learned, again = (load_synthetic(store.result_folder(id)).labels for id in (parent, fork))
    assert store.run(fork).spec["fork"]["source"] == "tensors" and learned.is_floating_point()
    assert 0 < (learned - again).abs().max() < 0.05, "one step from those that were learned"
    hard = forked(store, parent, method="dm", steps=31)
    assert load_synthetic(store.result_folder(hard)).labels.tolist() == list(range(10))


def test_a_method_that_whitens_otherwise_begins_from_the_picture(store):
    parent = distilled(store, zca=True, steps=6)
    small = {"experts": 1, "epochs": 1, "max_start": 1, "expert_epochs": 1, "expert_images": 256, "syn_steps": 2}
    fork = forked(store, parent, method="mtt", steps=7, **small)
    assert store.run(fork).spec["fork"]["source"] == "frame" and store.run(fork).spec["zca"]
    assert np.array_equal(picture(store, fork, 6), picture(store, parent, 6))
    again = forked(store, parent, method="frepo", pool=2, steps=7)
    assert store.run(again).spec["fork"]["source"] == "tensors"


def test_whitening_may_be_switched_on_and_off_and_the_picture_stays(store):
    plain = distilled(store, steps=6)
    white = forked(store, plain, zca=True, lr_img=1e-4, steps=7)
    zca = whitening(load("digits"), "dm")
    first = load_synthetic(store.result_folder(plain)).images
    assert torch.allclose(zca.unwhiten(images(store, white)), first, atol=0.05)
    back = forked(store, white, zca=False, lr_img=1e-4, steps=8)
    assert torch.allclose(images(store, back), first, atol=0.05)
