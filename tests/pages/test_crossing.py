"""The heat map of sets against networks, and the charts over methods, from tables with known contents."""

import re

import pytest

from engine.runs.store import Store
from engine.spec import build_spec
from pages.components import comparison, crossing, trends
from pages.components.marks import mark_of, origin
from tests.pages.test_comparison import evaluation


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path)


def finished(store, kind, evaluations=(), seconds=0.0, /, **values):
    id = store.submit(kind, build_spec(kind, dataset="digits", **values))
    layout = {"columns": 10, "rows": 1, "size": 32, "channels": 1, "classes": [str(d) for d in range(10)], "cells": []}
    store.append(id, [("layout", 0, layout)])
    store.update(id, seconds=seconds)
    for one in evaluations:
        store.add_evaluation(id, one)
    return id


def test_cells_hold_one_protocol_and_leave_gaps(store):
    distilled = finished(
        store, "distill", [evaluation("quick", [0.8, 0.9], "lenet"), evaluation("dc", [0.99], "mlp")], method="dm"
    )
    random = finished(
        store, "baseline", [evaluation("quick", [0.5], "mlp"), evaluation("quick", [0.1], "mlp", "held-out")]
    )
    table = comparison.tidy(store, [store.run(distilled), store.run(random)])
    cells = crossing.cells(table, "quick", ["mlp", "lenet"])
    found = {(row["run"], row["network"]): row["mean"] for _, row in cells.dropna(subset="mean").iterrows()}
    assert found == {(distilled, "lenet"): pytest.approx(0.85), (random, "mlp"): 0.5}
    assert len(cells) == 4


def test_the_heat_map_says_numbers_gaps_and_what_is_under_way(store):
    ids = [
        finished(store, "baseline", [evaluation("quick", [a], "mlp")], kind=k)
        for a, k in ((0.9, "ccs"), (0.5, "random"))
    ]
    busy = store.submit("evaluate", build_spec("evaluate", source=ids[0], network="convnet", width=64))
    cells = crossing.cells(
        comparison.tidy(store, [store.run(i) for i in ids]), "quick", ["mlp", "convnet-w64", "vgg11"]
    )
    under_way = crossing.under_way([store.run(busy)], "quick")
    assert set(under_way) == {(ids[0], "convnet-w64")}
    assert crossing.under_way([store.run(busy)], "dc") == {}
    for dark in (False, True):
        page = crossing.heat(cells, under_way, dark)
        assert re.findall(r"<td[^>]*>([^<]*)</td>", page) == ["90.0", "waits", "–", "50.0", "–", "–"]
        high, low = (int(c, 16) for c in re.findall(r"background:#(\w\w)\w{4};color", page))
        assert (high > low) == dark, "the better cell stands out: darker on paper, lighter on a dark page"


def test_names_cannot_smuggle_markup_into_the_heat_map(store):
    id = finished(store, "baseline")
    store.rename(id, "<script>alert(1)</script>")
    cells = crossing.cells(comparison.tidy(store, [store.run(id)]), "quick", ["mlp"])
    assert "<script" not in crossing.heat(cells, {}, False)


def test_time_is_told_from_what_others_took(store):
    ids = [finished(store, "baseline", [evaluation("quick", [0.5], "mlp", seconds=s)]) for s in (0.1, 0.4)]
    rows = [crossing.cells(comparison.tidy(store, [store.run(i)]), "quick", ["mlp", "vgg11"]) for i in ids]
    quick, slow = (crossing.seconds_for(r[r["mean"].isna()], "quick", 3, r[r["mean"].notna()]) for r in rows)
    assert slow == pytest.approx(4 * quick)
    missing = rows[0][rows[0]["mean"].isna()]
    assert crossing.seconds_for(missing, "quick", 6, missing) == pytest.approx(
        2 * crossing.seconds_for(missing, "quick", 3, missing)
    )


def test_a_table_of_many_networks_keeps_the_protocols_own_columns(store):
    several = ["mlp", "lenet", "vgg11", "alexnet", "resnet18", "convnet-d2"]
    id = finished(store, "baseline", [evaluation("quick", [0.5], n) for n in ("convnet", *several)])
    table = comparison.tidy(store, [store.run(id)])
    assert len(comparison.groups(table)) == 7 and list(comparison.main_groups(table)) == ["quick, convnet"]
    assert "quick, vgg11" not in comparison.wide(table).columns


def test_accuracy_over_images_per_class_averages_sets_of_a_method(store):
    for ipc, accuracies in ((1, [0.5, 0.7]), (1, [0.8, 0.8]), (10, [0.9, 0.94])):
        finished(store, "distill", [evaluation("quick", accuracies)], method="dm", ipc=ipc)
    finished(store, "distill", [evaluation("dc", [0.1])], method="dm", ipc=1)
    rows = trends.by_ipc(comparison.tidy(store, store.runs()), ("quick", "convnet", "test"))
    assert rows[["ipc", "sets"]].to_numpy().tolist() == [[1, 2], [10, 1]]
    assert rows["mean"].tolist() == pytest.approx([0.7, 0.92]) and rows["std"].tolist() == pytest.approx([0.1, 0.02])
    figure = trends.ipc_chart(rows, False)
    assert list(figure.data[0].y) == pytest.approx([70, 92]) and figure.layout.xaxis.type == "log"


def test_accuracy_over_time_is_that_of_the_run_while_it_distilled(store):
    run = finished(store, "distill", method="dm")
    for step, accuracy in ((0, 0.3), (40, 0.6)):
        event = {"accuracy": accuracy, "protocol": "quick", "split": "held-out", "seconds": step / 10, "step": step}
        store.append(run, [("accuracy", step, event)])
    runs = [store.run(run), store.run(finished(store, "baseline"))]
    rows = trends.by_time(store, runs, comparison.names(runs))
    assert rows[["seconds", "accuracy"]].to_numpy().tolist() == [[0, 0.3], [4, 0.6]]
    assert set(rows["protocol"]) == {"quick"} and set(rows["split"]) == {"held-out"}
    assert "held-out" in trends.time_chart(rows, True).layout.yaxis.title.text


def test_a_softened_set_is_drawn_as_what_its_images_are(store):
    random = finished(store, "baseline", kind="random")
    soft = store.submit("soften", build_spec("soften", source=random, teacher="someone"))
    assert mark_of(origin(store, store.run(soft))).name == "random real"
    row = comparison.tidy(store, [store.run(soft)]).iloc[0]
    assert row["kind"] == "random real" and row["made_by"] == "random, soft labels"
