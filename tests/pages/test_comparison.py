"""Tables and figure of a comparison, from a store with known contents."""

import math

import pytest

from engine.runs.store import Store
from engine.spec import build_spec
from pages.components import comparison


def evaluation(protocol, accuracies, network="convnet", split="test", seconds=2.0):
    mean = sum(accuracies) / len(accuracies)
    std = math.sqrt(sum((a - mean) ** 2 for a in accuracies) / len(accuracies))
    return {
        "protocol": protocol,
        "network": network,
        "split": split,
        "mean": mean,
        "std": std,
        "accuracies": accuracies,
        "seeds": list(range(len(accuracies))),
        "seconds": seconds,
    }


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path)


@pytest.fixture
def three(store):
    """A distilled set with two protocols, a random baseline with one, and k-means without any."""
    layout = {"columns": 10, "rows": 1, "size": 32, "channels": 1, "classes": [str(d) for d in range(10)], "cells": []}
    ids = [
        store.submit("distill", build_spec("distill", dataset="digits", method="dc", ipc=1)),
        store.submit("baseline", build_spec("baseline", dataset="digits", kind="random", ipc=1)),
        store.submit("baseline", build_spec("baseline", dataset="digits", kind="kmeans", ipc=1)),
    ]
    for id in ids:
        store.append(id, [("layout", 0, layout)])
    store.update(ids[0], seconds=61.0)
    store.add_evaluation(ids[0], evaluation("dc", [0.8, 0.9]))
    store.add_evaluation(ids[0], evaluation("quick", [0.7]))
    store.add_evaluation(ids[1], evaluation("quick", [0.5, 0.6]))
    return [store.run(id) for id in ids]


def test_protocols_and_networks_never_share_a_column(store, three):
    store.add_evaluation(three[1].id, evaluation("quick", [0.4], network="lenet"))
    store.add_evaluation(three[1].id, evaluation("quick", [0.3], split="held-out"))
    table = comparison.wide(comparison.tidy(store, three))
    assert list(table.columns) == [
        "Set", "Kind", "Images", "quick, convnet", "quick, lenet", "quick, convnet, held-out", "dc, convnet",
        "Distilling", "Evaluating",
    ]  # fmt: skip
    table = table.map(lambda text: text.replace("\N{NO-BREAK SPACE}", " "))
    distilled, random, kmeans = table.to_dict("records")
    assert distilled["dc, convnet"] == "85.0 ± 5.0 % (2 students)"
    assert distilled["quick, convnet"] == "70.0 % (1 student)"
    assert distilled["quick, lenet"] == "–"
    assert random["quick, convnet"] == "55.0 ± 5.0 % (2 students)"
    assert random["quick, lenet"] == "40.0 % (1 student)"
    assert random["quick, convnet, held-out"] == "30.0 % (1 student)"
    assert kmeans["quick, convnet"] == "–"
    assert distilled["Images"] == "10 (1 × 10 classes)"
    assert (distilled["Distilling"], distilled["Evaluating"]) == ("61 s", "4.0 s")
    assert [row["Kind"][0] for row in (distilled, random, kmeans)] == ["●", "■", "▲"]


def test_accuracies_on_another_dataset_are_left_out(store, three):
    store.add_evaluation(three[0].id, {**evaluation("frepo", [0.2]), "dataset": "mnist"})
    store.add_evaluation(three[0].id, {**evaluation("dsa", [0.8]), "dataset": "digits"})
    assert set(comparison.tidy(store, three)["protocol"].dropna()) == {"dc", "quick", "dsa"}


def test_tidy_has_one_row_per_set_protocol_network_split_with_fractions(store, three):
    store.add_evaluation(three[0].id, evaluation("dc", [0.91, 0.93, 0.95]))  # replaces the earlier one
    table = comparison.tidy(store, three)
    assert len(table) == 4  # dc and quick, quick, and the k-means set without any
    assert not table.duplicated(["run", "protocol", "network", "split"]).any()
    latest = table[(table["run"] == three[0].id) & (table["protocol"] == "dc")].iloc[0]
    assert latest["mean"] == pytest.approx(0.93)
    assert latest["accuracies"] == "0.91 0.93 0.95"
    assert latest["students"] == 3


def test_equal_titles_are_told_apart(store):
    runs = [store.run(store.submit("baseline", build_spec("baseline", dataset="digits"))) for _ in range(2)]
    assert len(set(comparison.names(runs).values())) == 2


def test_equal_titles_are_told_apart_by_what_differs(store):
    def named(*specs):
        runs = [store.run(store.submit("distill", build_spec("distill", dataset="digits", **s))) for s in specs]
        return list(comparison.names(runs).values())

    assert named({"init": "noise"}, {"seed": 1, "init": "real"}) == [
        "Distribution matching, 1 per class (initial images noise, seed 0)",
        "Distribution matching, 1 per class (initial images real, seed 1)",
    ]
    assert named({"lr_img": 0.5}, {"lr_img": 2.0, "students": 1})[1].endswith("(image learning rate 2)")
    assert named({"factor": 2}, {}) == [
        "Distribution matching, 1 per class of 2 × 2 pictures", "Distribution matching, 1 per class",
    ]  # fmt: skip


def test_chart_draws_each_kind_with_its_mark(store, three):
    table = comparison.tidy(store, three)
    figure = comparison.chart(table, comparison.groups(table)["quick, convnet"])
    means = {trace.name: trace for trace in figure.data if trace.name}
    assert set(means) == {"distilled", "random real"}
    assert (means["distilled"].marker.symbol, means["distilled"].marker.color) == ("circle", "#b4622d")
    assert (means["random real"].marker.symbol, means["random real"].marker.color) == ("square", "#7f7f7f")
    assert means["random real"].x[0] == pytest.approx(55)
    assert means["random real"].error_x.array[0] == pytest.approx(5)


@pytest.mark.parametrize(
    ("seconds", "text"), [(None, "–"), (0.04, "0.0 s"), (59.6, "60 s"), (600, "10 min"), (9000, "2.5 h")]
)
def test_duration(seconds, text):
    assert comparison.duration(seconds) == text
