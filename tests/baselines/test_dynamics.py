"""Scores of single images against cases small enough to be worked out by hand, and what is selected by them."""

import dataclasses
import math

import pytest
import torch

from engine.accel import pick_accel
from engine.baselines import ccs, dynamics, el2n, forgetting, make_baseline
from engine.baselines.dynamics import Dynamics, measures, training_dynamics
from tests.students.conftest import make_data


@pytest.fixture(scope="module")
def accel():
    return pick_accel("cpu", compile=False)


@pytest.fixture
def data(home, monkeypatch):
    monkeypatch.setattr(dynamics, "MIN_STEPS", 12)
    monkeypatch.setattr(dynamics, "BATCH", 32)
    monkeypatch.setattr(dynamics, "WIDTH", 8)
    return make_data(size=16, count=150)


def seen(margins, errors=None):
    margins = torch.tensor(margins, dtype=torch.float32)
    return Dynamics(margins, torch.tensor(errors) if errors else torch.zeros_like(margins), {})


def test_margin_and_error_by_hand():
    p = torch.tensor([[0.7, 0.2, 0.1], [0.3, 0.5, 0.2]], dtype=torch.float64)
    margins, errors = measures(p.log() + 4, torch.tensor([0, 2]))
    assert margins.tolist() == pytest.approx([0.5, -0.3])
    assert errors.tolist() == pytest.approx([math.sqrt(0.09 + 0.04 + 0.01), math.sqrt(0.09 + 0.25 + 0.64)])


def test_an_event_is_right_then_wrong():
    #             never    always   once     twice         learned late
    margins = [[[-1, 1, 1, 1, -1], [-1, 1, -1, -1, -1], [-1, 1, -1, 1, -1], [-1, 1, -1, -1, 1]]]
    counts, never = forgetting.forgetting(torch.tensor(margins))
    assert counts.tolist() == [0, 0, 1, 2, 0]
    assert never.tolist() == [True, False, False, False, False]
    assert forgetting.ranked(counts, never).tolist() == [math.inf, 0, 1, 2, 0]


def test_an_answer_shared_with_another_class_by_hand_is_not_right():
    counts, never = forgetting.forgetting(torch.tensor([[[0.0, 1.0], [0.0, 0.0]]]))
    assert counts.tolist() == [0, 1] and never.tolist() == [True, False]


def test_events_of_all_networks_add_up_and_one_that_learned_it_is_enough():
    margins = torch.tensor([[[1, -1], [-1, -1]], [[1, -1], [-1, 1]]])
    counts, never = forgetting.forgetting(margins)
    assert counts.tolist() == [2, 0] and never.tolist() == [False, False]


def test_never_learned_images_get_their_share_of_the_places():
    scores = torch.tensor([math.inf] * 4 + [3.0, 2.0, 1.0, 0.0, 0.0, 0.0])
    limited = forgetting.limited(scores, scores.isinf(), 5, torch.Generator().manual_seed(0))
    assert limited[:4].tolist().count(math.inf) == 2  # 4 of 10, hence 2 of 5
    assert torch.equal(limited[4:], scores[4:])
    # Where there are not enough others, more of them are taken rather than too few images.
    all_but_one = torch.tensor([math.inf] * 3 + [1.0])
    limited = forgetting.limited(all_but_one, all_but_one.isinf(), 4, torch.Generator().manual_seed(0))
    assert limited.isfinite().sum() == 1


def test_el2n_is_the_mean_of_early_errors_over_networks():
    errors = [[[0.1 * epoch + image for image in range(2)] for epoch in range(7)], [[1.0, 1.0]] * 7]
    expected = [(0.4 + 1) / 2, (1.4 + 1) / 2]  # the fifth epoch, whatever came later
    assert el2n.el2n(seen([[[0.0]]], errors)).tolist() == pytest.approx(expected)


def test_aum_is_the_mean_margin():
    assert ccs.aum(seen([[[0.5, -1.0], [0.1, 0.0]], [[0.3, 1.0], [0.3, 0.0]]])).tolist() == pytest.approx([0.3, 0.0])


def test_places_that_a_small_stratum_cannot_fill_go_to_the_larger_ones():
    assert ccs.budgets([0, 1, 5, 20], 12) == [0, 1, 5, 6]
    assert ccs.budgets([4, 4, 4], 6) == [2, 2, 2]
    assert ccs.budgets([1, 2, 30], 33) == [1, 2, 30]
    for sizes, count in (([0, 0, 3, 7, 9], 11), ([2, 2, 2, 100], 50), ([1] * 10, 10)):
        places = ccs.budgets(sizes, count)
        assert sum(places) == count and all(p <= s for p, s in zip(places, sizes, strict=True))


def test_the_share_left_out_leaves_the_hardest_to_few_alone():
    assert [ccs.hardest(kept) for kept in (0.01, 0.1, 0.15, 0.2, 0.5)] == [0.3, 0.3, 0.2, 0.2, 0.1]


def test_ccs_leaves_the_hardest_out_and_takes_of_every_stratum():
    scores = torch.cat([torch.linspace(-1, -0.5, 30), torch.linspace(0, 1, 70)])
    picked = ccs.select(scores, 10, 0.3, 10, torch.Generator().manual_seed(0))
    assert len(picked.unique()) == 10 and int(picked.min()) >= 30
    strata = (scores[picked] * 10).long().clamp(max=9)
    assert sorted(strata.tolist()) == list(range(10))
    # All of them when all are asked for, and one when all are alike.
    assert sorted(ccs.select(scores, 100, 0.3, 50, torch.Generator()).tolist()) == list(range(100))
    assert len(ccs.select(torch.zeros(20), 1, 0.3, 1, torch.Generator())) == 1


def test_one_training_serves_all_three(data, accel, monkeypatch):
    trained, train = [], dynamics._train
    monkeypatch.setattr(dynamics, "_train", lambda *a: trained.append(1) or train(*a))
    for kind in ("ccs", "forgetting", "el2n"):
        heard = []
        make_baseline(kind, data, 2, seed=4, accel=accel, progress=heard.append)
    assert len(trained) == dynamics.NETWORKS
    make_baseline("ccs", data, 2, seed=5, accel=accel)
    assert len(trained) == 2 * dynamics.NETWORKS, "another seed is another training"


def test_mislabelled_images_are_hard(data, accel):
    """Of each class a tenth is labelled as the next: they err more, have lower margins, and CCS leaves them out."""
    labels = data.train_labels.clone()
    wrong = torch.cat([members[:4] for members in data.by_class])
    labels[wrong] = (labels[wrong] + 1) % 3
    noisy = dataclasses.replace(data, train_labels=labels)
    found = training_dynamics(noisy, 0, accel, lambda fraction: None)
    is_wrong = torch.isin(torch.cat(noisy.by_class), wrong)
    assert ccs.aum(found)[is_wrong].mean() < ccs.aum(found)[~is_wrong].mean() - 0.3
    assert el2n.el2n(found)[is_wrong].mean() > el2n.el2n(found)[~is_wrong].mean() + 0.2
    share = {k: _share(make_baseline(k, noisy, 3, accel=accel), wrong) for k in ("el2n", "ccs", "forgetting")}
    assert share["el2n"] > 0.8 and share["ccs"] == 0 and share["forgetting"] < 0.8
    assert _share(make_baseline("forgetting", noisy, 3, accel=accel, never_learned="first"), wrong) > 0.8


def _share(made, wrong):
    return sum(i in set(wrong.tolist()) for i in made.provenance["indices"]) / len(made.labels)
