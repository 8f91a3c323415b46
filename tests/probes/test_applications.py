"""Applications: continual learning, poisoning and adaptation, small, on the built-in data."""

from __future__ import annotations

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from engine.data import load
from engine.probes.answerer import work_out
from engine.probes.applications.continual import forgetting, part_of
from engine.probes.applications.specs import AdaptationSpec, ContinualSpec, PoisoningSpec
from engine.probes.applications.steps import descend
from engine.probes.desk import Desk
from engine.runs.store import Store


def asked(home, probe, spec):
    desk = Desk(home)
    return work_out(desk, Store(home), desk.ask(probe, spec))


def test_forgetting_is_what_is_lost_of_each_groups_best():
    over_time = {1: [0.9], 2: [0.95, 0.8], 3: [0.7, 0.6, 0.99]}
    rows = [
        {"step": step, "group": group + 1, "accuracy": value}
        for step, values in over_time.items()
        for group, value in enumerate(values)
    ]
    assert forgetting(rows) == pytest.approx(((0.95 - 0.7) + (0.8 - 0.6)) / 2)
    assert forgetting(rows[:1]) == 0


def test_a_part_of_a_dataset_numbers_its_classes_in_the_order_of_arrival():
    whole = load("digits")
    part = part_of(whole, [7, 2])
    assert part.classes == ("7", "2") and part.mean == whole.mean
    assert len(part.train_labels) == int(((whole.train_labels == 7) | (whole.train_labels == 2)).sum())
    assert torch.equal(part.test_images[part.test_labels == 0], whole.test_images[whole.test_labels == 7])


def test_descent_is_the_plain_rule():
    network = nn.Linear(4, 3).double()
    images, labels = torch.randn(4, 4, dtype=torch.float64), torch.tensor([0, 1, 2, 0])
    slow = copy.deepcopy(network)
    for t, rate in enumerate([0.3, 0.1]):
        slow.zero_grad()
        F.cross_entropy(slow(images[t::2]), labels[t::2]).backward()
        with torch.no_grad():
            for parameter in slow.parameters():
                parameter -= rate * parameter.grad
    fast = descend(network, images, labels, [0.3, 0.1], turns=2)
    assert torch.allclose(fast.weight, slow.weight) and torch.allclose(fast.bias, slow.bias)


@pytest.mark.slow
def test_a_memory_is_compared_while_classes_arrive(home):
    spec = ContinualSpec(dataset="digits", ipc=2, per_step=5, steps=20, repeats=2, width=16)
    answer = asked(home, "continual", spec)
    assert not isinstance(answer, str), answer
    course = answer.tables["course"]
    assert len(course) == 2 * 3 * 2 and {row["classes"] for row in course} == {5, 10}
    first = [r["accuracy"] for r in course if r["step"] == 1]
    last = [r["accuracy"] for r in course if r["step"] == 2]
    assert min(first) > 0.4 and sum(first) > sum(last) and min(last) > 0.25
    assert {row["memory"] for row in answer.tables["summary"]} == {"distilled", "herding", "random"}


def test_more_images_than_a_class_has_are_refused(home):
    assert "at most" in asked(home, "continual", ContinualSpec(dataset="shapes", ipc=50, per_step=10))


@pytest.mark.slow
def test_one_step_makes_networks_that_were_never_seen_misread_a_class(home):
    spec = PoisoningSpec(dataset="digits", attacked=3, target=8, ipc=5, steps=60, networks=2, pool=3, source_steps=150)
    answer = asked(home, "poisoning", spec)
    assert not isinstance(answer, str), answer
    means = {(row["images"], row["measure"]): row["mean"] for row in answer.tables["summary"]}
    assert means["before", "misread"] < 0.1
    assert means["distilled", "misread"] > means["before", "misread"] + 0.3
    assert means["distilled", "misread"] > means["real", "misread"]
    assert "choose others" in asked(home, "poisoning", PoisoningSpec(dataset="digits", attacked=3, target=3))


@pytest.mark.slow
def test_distilled_images_adapt_networks_better_than_random_ones(home):
    spec = AdaptationSpec(
        source="shapes", dataset="digits", ipc=1, descents=5, steps=60, networks=2, pool=2, source_steps=50
    )
    answer = asked(home, "adaptation", spec)
    assert not isinstance(answer, str), answer
    means = {row["way"]: row["mean"] for row in answer.tables["summary"]}
    assert means["before"] < 0.3 and means["distilled"] > means["random"] > means["before"]
    assert "same dataset" in asked(home, "adaptation", AdaptationSpec(source="digits", dataset="digits"))
