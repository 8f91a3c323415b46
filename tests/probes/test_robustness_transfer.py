"""LEEP, NCE and H-score against their formulas, and what transfer reaches."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from engine.accel import pick_accel
from engine.data import load
from engine.errors import Refused
from engine.networks import make_network
from engine.probes.answerer import Work
from engine.probes.robustness import transfer
from engine.probes.robustness.common import adapt
from engine.probes.robustness.scores import h_score, leep, nce
from engine.probes.robustness.specs import TransferSpec
from engine.runs.store import Store
from engine.students.kept import load_student, save_student


@pytest.fixture
def work(home, tmp_path):
    return Work(Store(home), tmp_path / "answer", lambda fraction, sentence: None)


def keep(store, id, data, network="mlp", seed=0):
    build = {"name": network, "channels": data.channels, "size": data.size, "classes": len(data.classes)}
    facts = {
        "name": id, "dataset": data.name, "classes": list(data.classes), "channels": data.channels, "size": data.size,
        "mean": list(data.mean), "std": list(data.std), "network": network, "accuracy": 0.5,
        "source": {"kind": "full", "text": "all images"},
    }  # fmt: skip
    save_student(store.folder(f"student-{id}") / "student", make_network(**build, seed=seed), facts, build)
    return f"student-{id}"


def test_leep_by_hand():
    # Three images, two source classes. P(y=0,z) = (.9+.6)/3, (.1+.4)/3; P(y=1,z) = .2/3, .8/3.
    theta = np.array([[0.9, 0.1], [0.6, 0.4], [0.2, 0.8]])
    labels = np.array([0, 0, 1])
    p0 = (1.5 / 1.7, 0.5 / 1.3)  # P(y=0 | z)
    by_hand = [
        math.log(0.9 * p0[0] + 0.1 * p0[1]),
        math.log(0.6 * p0[0] + 0.4 * p0[1]),
        math.log(0.2 * (1 - p0[0]) + 0.8 * (1 - p0[1])),
    ]
    assert leep(theta, labels) == pytest.approx(sum(by_hand) / 3)
    assert leep(np.eye(3)[[0, 1, 2, 0]], np.array([2, 0, 1, 2])) == pytest.approx(0)  # another order of classes
    blind = np.full((4, 2), 0.5)  # says nothing: the entropy of the labels remains
    assert leep(blind, np.array([0, 0, 0, 1])) == pytest.approx(0.75 * math.log(0.75) + 0.25 * math.log(0.25))


def test_nce_by_hand():
    # z=0 for three images, of labels 0, 0, 1; z=1 for one of label 1: -H(Y|Z) = 3/4 (2/3 log 2/3 + 1/3 log 1/3).
    found = nce(np.array([0, 0, 0, 1]), np.array([0, 0, 1, 1]))
    assert found == pytest.approx(0.75 * (2 / 3 * math.log(2 / 3) + 1 / 3 * math.log(1 / 3)))
    assert nce(np.array([1, 0, 1]), np.array([0, 1, 0])) == pytest.approx(0)


def test_h_score_is_the_trace_of_the_formula():
    random = np.random.default_rng(0)
    labels = np.arange(60) % 3
    features = random.normal(size=(60, 5)) + 2 * np.eye(5)[labels]
    centred = features - features.mean(0)
    means = np.stack([centred[labels == y].mean(0) for y in range(3)])[labels]
    by_hand = np.trace(np.linalg.inv(centred.T @ centred / 60) @ (means.T @ means / 60))
    assert h_score(features, labels) == pytest.approx(by_hand)
    assert h_score(features @ random.normal(size=(5, 5)) + 3, labels) == pytest.approx(by_hand)  # affine invariance
    assert h_score(np.eye(2)[[0, 1, 0, 1]], np.array([0, 1, 0, 1])) == pytest.approx(1)  # tells two classes: K - 1
    one = np.array([[0.0], [1.0], [1.0], [2.0]])  # class means 0.5 and 1.5, variance 0.5: 0.25 / 0.5
    assert h_score(one, np.array([0, 0, 1, 1])) == pytest.approx(0.5)


def test_the_shrunk_h_score_tells_features_apart_where_the_published_one_cannot():
    random = np.random.default_rng(1)
    labels = np.arange(40) % 4
    noise = random.normal(size=(40, 200))
    telling = noise + 3 * np.eye(200)[labels]
    assert h_score(noise, labels) == pytest.approx(3) == h_score(telling, labels)
    assert h_score(telling, labels, shrink=True) > 1.5 * h_score(noise, labels, shrink=True)
    from sklearn.covariance import ledoit_wolf

    tall = random.normal(size=(50, 4)) + np.eye(4)[np.arange(50) % 4]
    labels, centred = np.arange(50) % 4, tall - tall.mean(0)
    covariance, a = ledoit_wolf(centred, assume_centered=True)
    means = np.stack([centred[labels == y].mean(0) for y in range(4)])[labels]
    by_hand = (1 - a) * np.trace(np.linalg.inv(covariance) @ (means.T @ means / 50))
    assert h_score(tall, labels, shrink=True) == pytest.approx(by_hand)


def test_images_are_fitted_to_the_student():
    colour = torch.randint(0, 256, (3, 3, 32, 32), dtype=torch.uint8)
    assert adapt(colour, 1, 28).shape == (3, 1, 28, 28)
    grey = torch.randint(0, 256, (3, 1, 16, 16), dtype=torch.uint8)
    wide = adapt(grey, 3, 32)
    assert wide.shape == (3, 3, 32, 32) and torch.equal(wide[:, 0], wide[:, 2]) and wide.dtype == torch.uint8
    assert torch.equal(adapt(grey, 1, 16), grey)


@pytest.mark.parametrize(
    "network",
    [
        "lenet",
        "edge-popup",
        pytest.param("resnet18-bn", marks=pytest.mark.slow),
        pytest.param("vit", marks=pytest.mark.slow),
    ],
)
def test_transfer_from_shapes_to_digits(work, network):
    shapes = load("shapes")
    short = network in ("resnet18-bn", "edge-popup", "vit")
    keep(work.store, "one", shapes, network)
    spec = TransferSpec(
        students="student-one", target="digits", images=64, tested=40, steps=2 if short else 40, rate=0.05
    )
    answer = transfer.answer(spec, work)
    row = answer.tables["students"][0]
    assert row["leep"] <= 0 and row["nce"] <= 0 and 0 <= row["h_score"] <= 9 + 1e-9
    assert row["h_score_shrunk"] <= row["h_score"] + 1e-9
    assert row["fixed"] > 0.25  # even random features tell digits apart better than chance
    assert [a["way"] for a in answer.tables["accuracy"]] == ["fixed", "tuned", "scratch"]
    if not short:
        assert row["tuned"] > 0.25 and answer.tables["correlations"] == []


@pytest.mark.parametrize("network", ["convnet", "edge-popup", "resnet18-bn", "vit"])
def test_random_weights_hold_nothing_of_what_was_learned(work, network):
    id = keep(work.store, "one", load("digits"), network)
    student = load_student(work.store, id, pick_accel("cpu", compile=False))
    with torch.no_grad():
        for tensor in student.module.state_dict().values():
            tensor.fill_(7)
    fresh, again = (transfer._fresh(student, 1).state_dict() for _ in range(2))
    assert not any((tensor == 7).any() for tensor in fresh.values())
    assert all(torch.equal(tensor, again[name]) for name, tensor in fresh.items())
    other = transfer._fresh(student, 2).state_dict()
    assert any(not torch.equal(tensor, other[name]) for name, tensor in fresh.items())


def test_scores_are_ranked_against_what_transfer_reaches(work):
    shapes = load("shapes")
    ids = [keep(work.store, f"s{i}", shapes, "mlp", seed=i) for i in range(3)]
    answer = transfer.answer(TransferSpec(students=",".join(ids), images=60, tested=60, steps=0), work)
    assert len(answer.tables["students"]) == 3 and answer.tables["students"][0]["tuned"] is None
    assert {(c["score"], c["way"]) for c in answer.tables["correlations"]} == {(s, "fixed") for s in transfer.SCORES}
    assert all(c["spearman"] is None or -1 <= c["spearman"] <= 1 for c in answer.tables["correlations"])


def test_a_student_is_not_transferred_to_its_own_dataset(work):
    keep(work.store, "one", load("digits"))
    with pytest.raises(Refused, match="another target"):
        transfer.answer(TransferSpec(students="student-one", target="digits"), work)
    with pytest.raises(Refused, match="no dataset"):
        transfer.answer(TransferSpec(students="student-one", target="dgits"), work)
