"""What each image of a set is worth: against games whose values are known, and with an image that is planted."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

from engine.baselines import make_baseline
from engine.data import load
from engine.probes.answerer import work_out
from engine.probes.desk import Desk
from engine.probes.whatif.specs import ValuationSpec
from engine.probes.whatif.valuation import leave_one_out, shapley
from engine.runs.store import Store


class Game(SimpleNamespace):
    """A game of two classes with as many judging images of each: ``worth`` gives the value of a part."""

    def __call__(self, part):
        return torch.tensor([[self.worth(frozenset(part))] * 2], dtype=torch.float64)


def game(worth) -> Game:
    return Game(worth=worth, truth=torch.tensor([0, 1]), expected=0)


def orders(count: int, **given) -> ValuationSpec:
    return ValuationSpec(source="x", way="shapley", permutations=count, **given)


def test_in_a_game_that_adds_up_everybody_is_worth_what_they_bring():
    bring = [0.1, 0.0, 0.3]
    added = game(lambda part: sum(bring[i] for i in part))
    assert leave_one_out(added, 3).overall.tolist() == pytest.approx(bring)
    assert shapley(added, 3, orders(2, tolerance=0)).overall.tolist() == pytest.approx(bring)


def test_of_two_that_do_alike_leaving_one_out_sees_nothing_and_shapley_shares():
    either = game(lambda part: 0.6 * bool(part & {0, 1}))
    assert leave_one_out(either, 3).overall.tolist() == [0, 0, 0]
    found = shapley(either, 3, orders(400, tolerance=0)).overall
    assert found[2] == 0 and found[:2].tolist() == pytest.approx([0.3, 0.3], abs=0.06)


def test_shapley_values_add_up_to_what_the_whole_is_worth():
    gloves = game(lambda part: 0.9 * bool(0 in part and part & {1, 2}))  # Shapley 1953's kind: 2/3, 1/6, 1/6
    found = shapley(gloves, 3, orders(500, tolerance=0))
    assert float(found.overall.sum()) == pytest.approx(0.9)
    assert found.overall.tolist() == pytest.approx([0.6, 0.15, 0.15], abs=0.05)


def test_an_order_ends_where_nothing_is_left_to_gain():
    seen = []
    first = game(lambda part: seen.append(part) or (0.9 if part else 0.1))
    found = shapley(first, 4, orders(5, tolerance=0.05))
    assert {len(part) for part in seen} == {0, 1, 4} and found.parts == 6


@pytest.mark.parametrize("trial", range(3))
def test_a_planted_wrong_label_is_the_worst_image(home, tmp_path, trial):
    data = load("digits")
    honest = make_baseline("kmeans-real", data, 2, seed=trial)
    planted = (7 * trial + 3) % len(honest.images)
    labels = honest.labels.clone()
    labels[planted] = (labels[planted] + 5) % 10
    source = replace(honest, labels=labels).save(tmp_path / "set")
    desk, store = Desk(home), Store(home)
    spec = ValuationSpec(source=str(source), seeds=2, images=300, seed=trial)
    answer = work_out(desk, store, desk.ask("valuation", spec))
    assert answer.facts["worst"] == planted
    assert len(answer.tables["classes"]) == 200 and answer.facts["parts"] == 21


def test_a_set_too_large_is_refused(home, tmp_path):
    source = make_baseline("random", load("digits"), 10).save(tmp_path / "set")
    desk, store = Desk(home), Store(home)
    sentence = work_out(desk, store, desk.ask("valuation", ValuationSpec(source=str(source), way="shapley")))
    assert "100 images" in sentence and "2 to 50" in sentence
