"""What each image of a set is worth: against games whose values are known, and with an image that is planted."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from engine.baselines import make_baseline
from engine.data import load
from engine.probes.answerer import work_out
from engine.probes.desk import Desk
from engine.probes.whatif.specs import ValuationSpec, marked
from engine.probes.whatif.valuation import leave_one_out, shapley
from engine.runs.store import Store


class Game:
    """A game of two classes that count alike: ``value`` gives what a part is worth to each seed."""

    def __init__(self, value, seeds: int = 1):
        self.value, self.seeds, self.expected, self.asked = value, seeds, 0, []

    def worth(self, part):
        self.asked.append(frozenset(part))
        return torch.tensor([[self.value(frozenset(part), s)] * 2 for s in range(self.seeds)], dtype=torch.float64)

    def overall(self, by_class):
        return by_class.mean(-1)


def game(value) -> Game:
    return Game(lambda part, _: value(part))


def orders(count: int, **given) -> ValuationSpec:
    return ValuationSpec(source="x", kind="shapley", orders=count, **given)


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
    gloves = game(lambda part: 0.9 * bool(0 in part and part & {1, 2}))  # the glove game: shares 2/3, 1/6, 1/6
    found = shapley(gloves, 3, orders(500, tolerance=0))
    assert float(found.overall.sum()) == pytest.approx(0.9)
    assert found.overall.tolist() == pytest.approx([0.6, 0.15, 0.15], abs=0.05)


def test_an_order_ends_where_nothing_is_left_to_gain():
    first = game(lambda part: 0.9 if part else 0.1)
    found = shapley(first, 4, orders(5, tolerance=0.05))
    assert {len(part) for part in first.asked} == {0, 1, 4}
    assert found.parts == len({part for part in first.asked if part})


def test_no_order_ends_before_its_first_image():
    """The whole is worth as little as nothing, because one image takes what the other brings."""
    against = game(lambda part: 0.5 + 0.4 * (0 in part) - 0.4 * (1 in part))
    assert shapley(against, 2, orders(3, tolerance=0.05)).overall.tolist() == pytest.approx([0.4, -0.4])


def test_what_seeds_disagree_about_is_the_error():
    """Image 0 is worth 0.2 to one seed and 0.4 to the other; image 1 is worth 0.1 to both."""
    swaying = Game(lambda part, seed: (0.2 + 0.2 * seed) * (0 in part) + 0.1 * (1 in part), seeds=2)
    for found in (leave_one_out(swaying, 2), shapley(swaying, 2, orders(4, tolerance=0))):
        assert found.overall.tolist() == pytest.approx([0.3, 0.1])
        assert found.error.tolist() == pytest.approx([0.1, 0.0], abs=1e-12)
    one = leave_one_out(game(lambda part: len(part) / 10), 2)
    assert torch.isnan(one.error).all(), "one student tells nothing about chance"


def planted(tmp_path, trial: int, ipc: int) -> tuple[str, int]:
    """A set of ``ipc`` digits a class, one of which bears a wrong label."""
    honest = make_baseline("kmeans", load("digits"), ipc, seed=trial)
    wrong, labels = (7 * trial + 3) % len(honest.images), honest.labels.clone()
    labels[wrong] = (labels[wrong] + 5) % 10
    return str(replace(honest, labels=labels).save(tmp_path / "set")), wrong


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "ipc"), [("leave-one-out", 1), ("shapley", 2)])
def test_a_planted_wrong_label_is_the_worst_image(home, tmp_path, kind, ipc):
    source, wrong = planted(tmp_path, 1, ipc)
    desk, store = Desk(home), Store(home)
    few = {"seeds": 2, "orders": 6} if kind == "leave-one-out" else {"seeds": 1, "orders": 6, "tolerance": 0.05}
    spec = ValuationSpec(source=source, kind=kind, images=300, **few)
    answer = work_out(desk, store, desk.ask("valuation", spec))
    rows = {row["image"]: row for row in answer.tables["values"]}
    assert answer.facts["worst"] == wrong and rows[wrong]["rank"] == 1 and rows[wrong]["value"] < 0
    assert len(answer.tables["classes"]) == 100 * ipc and "held-out" in answer.notes[0]
    if kind == "leave-one-out":
        assert answer.facts["parts"] == 11 and answer.facts["students"] == 22


def test_a_set_too_large_is_refused(home, tmp_path):
    source = make_baseline("random", load("digits"), 10).save(tmp_path / "set")
    desk, store = Desk(home), Store(home)
    sentence = work_out(desk, store, desk.ask("valuation", ValuationSpec(source=str(source), kind="shapley")))
    assert "100 images" in sentence and "2 to 50" in sentence and "leave-one-out" in sentence


def test_a_set_that_was_written_anew_is_another_question(home, tmp_path):
    digits, store = load("digits"), Store(home)
    spec = ValuationSpec(source=str(make_baseline("random", digits, 1).save(tmp_path / "set")))
    before = marked(spec, store)
    assert marked(spec, store) == before != spec
    make_baseline("random", digits, 2).save(tmp_path / "set")
    assert marked(spec, store) != before
    assert marked(ValuationSpec(source="nosuch"), store).mark == ""
