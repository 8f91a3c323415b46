"""DD-Ranking's scores from their definitions, and what is measured for them."""

import math
from dataclasses import replace

import pytest
import torch

from engine.errors import Refused
from engine.students import ranking
from engine.students.fit import as_student, fit
from engine.students.ranking import (
    augmentation_robust_score,
    hard_label_recovery,
    improvement_over_random,
    label_robust_score,
    random_like,
    rank_slices,
    scaled,
)
from engine.synthetic import fit_zca
from tests.students.conftest import make_data, make_set


def test_scores_by_hand():
    assert scaled(1) == pytest.approx(1) and scaled(-1) == pytest.approx(0)
    assert scaled(0) == pytest.approx(0.2689, abs=1e-4)
    hlr, ior = hard_label_recovery(0.9, 0.6), improvement_over_random(0.7, 0.5)
    alpha = 0.25 * 0.2 - 0.75 * 0.3
    assert label_robust_score(hlr, ior, 0.25) == pytest.approx((math.exp(alpha) - 1 / math.e) / (math.e - 1 / math.e))
    beta = 0.8 * (0.7 - 0.5) + 0.2 * (0.4 - 0.45)
    score = augmentation_robust_score(0.7, 0.5, 0.4, 0.45, 0.8)
    assert score == pytest.approx((math.exp(beta) - 1 / math.e) / (math.e - 1 / math.e))
    assert 0 <= label_robust_score(1, -1) < label_robust_score(0, 1) <= 1


@pytest.fixture
def reference(data, cpu):
    module = fit(data.train_images, data.train_labels, data, "convnet", seed=0, steps=40, accel=cpu, width=8)
    return as_student(module, data, "reference", accuracy=0.95)


def finished(work):
    told = []
    while True:
        try:
            told.append(next(work))
        except StopIteration as end:
            return end.value, told


@pytest.mark.slow
def test_rank_measures_what_the_scores_need(cpu, monkeypatch):
    monkeypatch.setattr(ranking, "RATES", (0.05, 1e-7))
    data = make_data(count=300)
    module = fit(data.train_images, data.train_labels, data, "convnet", seed=0, steps=40, accel=cpu, width=8)
    reference = as_student(module, data, "reference", accuracy=0.95)
    shifted = torch.roll(torch.nn.functional.one_hot(make_set(data, 4).labels, 3).float(), 1, 1)
    # Every label says another class: with them students learn nonsense, and no more with hard ones.
    nonsense, told = finished(rank_slices(make_set(data, 4, labels=shifted), data, reference, seeds=2, accel=cpu))
    good, _ = finished(rank_slices(make_set(data, 4), data, reference, seeds=2, accel=cpu))
    assert nonsense["lrs"] < good["lrs"] and nonsense["ars"] < good["ars"]
    fractions = [fraction for fraction, _ in told]
    assert fractions == sorted(fractions) and fractions[-1] == pytest.approx(1, abs=0.05)
    mean = {(s["side"], s["augmented"]): s["mean"] for s in good["sides"]}
    assert good["hlr"] == pytest.approx(0.95 - mean["syn-hard", True])
    assert good["lrs"] == pytest.approx(
        label_robust_score(good["hlr"], mean["syn-any", True] - mean["random-any", True])
    )
    assert all(0 <= value <= 1 for value in mean.values()), "fractions, not percent"
    assert {s["rate"] for s in good["sides"]} == {0.05}, "the rate that learns nothing is never chosen"
    assert all(len(s["accuracies"]) == 2 for s in good["sides"]) and good["split"] == "test"


def test_rates_are_chosen_on_held_out_images_alone(data, cpu, reference, monkeypatch):
    """Whatever the test images are, the same rates come out."""
    seen = []
    plain = ranking.evaluate_slices

    def watched(*args, **kwargs):
        seen.append((kwargs["split"], kwargs["seed"]))
        return plain(*args, **kwargs)

    monkeypatch.setattr(ranking, "evaluate_slices", watched)
    monkeypatch.setattr(ranking, "RATES", (0.05,))
    monkeypatch.setattr(ranking, "SIDES", (("syn-hard", True), ("syn-any", True), ("random-any", True)))
    work = rank_slices(make_set(data), data, reference, seeds=1, accel=cpu)
    with pytest.raises(KeyError):  # the sides without augmentation are missing, after all others were measured
        finished(work)
    assert seen == [("held-out", ranking.APART), ("test", 0)] * 3


def test_random_images_match_the_set(data, reference):
    zca = fit_zca(data.normalise(data.train_images), ratio=10)
    synthetic = make_set(data, 3)
    uneven = replace(synthetic, labels=torch.tensor([0, 0, 0, 0, 1, 1, 2, 2, 2]), zca=zca)
    made = random_like(uneven, data, 0, reference)
    assert made.labels.bincount().tolist() == [4, 2, 3] and made.zca is zca
    real = zca.whiten(data.normalise(data.train_images[data.distil_indices]))
    assert all(float((real - image).flatten(1).norm(dim=1).min()) < 1e-3 for image in made.images)
    assert not torch.equal(made.images, random_like(uneven, data, 1, reference).images)
    soft = replace(synthetic, labels=torch.full((9, 3), 1 / 3))
    labels = random_like(soft, data, 0, reference).labels
    assert labels.shape == (9, 3) and torch.allclose(labels.sum(1), torch.ones(9))


def test_refusals(data, reference):
    with pytest.raises(Refused, match="own steps"):
        next(rank_slices(make_set(data), data, reference, "dd"))
    many = make_set(data, 20)
    everything = replace(many, images=many.images[:1].repeat(50, 1, 1, 1), labels=torch.zeros(50, dtype=torch.long))
    with pytest.raises(Refused, match="50 images of class class 0.*only 36"):
        random_like(everything, data, 0, reference)
