"""Applications: the maths against plain versions, and each experiment once, small, on the built-in data."""

from __future__ import annotations

import copy
import dataclasses
import os
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from scipy import stats
from torch import nn

from engine.accel import pick_accel
from engine.baselines import make_baseline
from engine.data import load
from engine.probes.answerer import work_out
from engine.probes.applications.common import contrast, descend, percent, points, summarise
from engine.probes.applications.continual import forgetting, part_of, together
from engine.probes.applications.data_free import Generator, balanced, concentration, dirichlet, retained, softened
from engine.probes.applications.membership import auc, split, true_positives
from engine.probes.applications.ownership import chance, margins
from engine.probes.applications.poisoning import MEASURES, measured
from engine.probes.applications.specs import (
    AdaptationSpec,
    ContinualSpec,
    DataFreeSpec,
    MembershipSpec,
    OwnershipSpec,
    PoisoningSpec,
    SearchSpec,
)
from engine.probes.desk import Desk
from engine.runs.store import Store
from engine.spec import build_spec
from engine.students.fit import fit
from engine.students.kept import save_student


def asked(home, probe, spec):
    desk = Desk(home)
    return work_out(desk, Store(home), desk.ask(probe, spec))


def answered(home, probe, spec):
    found = asked(home, probe, spec)
    assert not isinstance(found, str), found
    return found


def means(answer):
    return {(row["way"], row["measure"]): row["mean"] for row in answer.tables["summary"]}


@pytest.fixture
def chosen(home, tmp_path):
    """The path of a set of five real digits of each class."""
    folder = tmp_path / "set"
    make_baseline("random", load("digits"), 5, seed=3).save(folder)
    return str(folder)


# ---- summaries ------------------------------------------------------------------------------------------------------


def test_summaries_have_t_intervals_that_end_where_shares_end():
    rows = [{"repeat": i, "way": "a", "share": v, "lost": -v} for i, v in enumerate((0.8, 0.9, 1.0))]
    share, lost = summarise(rows, ("share", "lost"), signed=("lost",))
    half = float(stats.t.ppf(0.975, 2)) * 0.1 / 3**0.5
    assert share["mean"] == pytest.approx(0.9) and share["low"] == pytest.approx(0.9 - half) and share["high"] == 1
    assert lost["low"] == -1 and lost["high"] == pytest.approx(-0.9 + half)
    alone = summarise(rows[:1], ("share",))[0]
    assert alone["low"] is None and percent(alone) == "80.0 %"


def test_contrasts_are_paired_by_repeat():
    a, b = (0.5, 0.9, 0.7), (0.4, 0.8, 0.5)
    rows = [{"repeat": i, "way": w, "x": v} for w, values in (("b", b[::-1]), ("a", a)) for i, v in
            (enumerate(values) if w == "a" else ((2 - j, u) for j, u in enumerate(values)))]  # fmt: skip
    found = contrast(rows, "x", "a", "b")
    assert found["difference"] == pytest.approx((0.1 + 0.1 + 0.2) / 3)
    low, high = stats.ttest_rel(a, b).confidence_interval(0.95)
    assert (found["low"], found["high"]) == (pytest.approx(low), pytest.approx(high))
    assert points(found) == f"+13.3 points (95 %: {100 * low:+.1f} to {100 * high:+.1f})"


# ---- continual learning ---------------------------------------------------------------------------------------------


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


def test_memories_are_put_together_in_the_order_of_their_arrival():
    whole = load("digits")
    kept = [make_baseline("random", part_of(whole, group), 2, seed=0) for group in ([7, 2], [4, 0, 9])]
    memory = together(kept, whole, [7, 2, 4, 0, 9])
    assert memory.classes == ("7", "2", "4", "0", "9")
    assert memory.hard_labels.tolist() == [0, 0, 1, 1, 2, 2, 3, 3, 4, 4]
    assert torch.equal(memory.images[4:], kept[1].images)


@pytest.mark.parametrize(
    ("probe", "spec"),
    [
        ("continual", ContinualSpec(ipc=50)),
        ("poisoning", PoisoningSpec(ipc=50)),
        ("adaptation", AdaptationSpec(source="shapes", ipc=50)),
    ],
)
def test_more_images_than_a_class_has_are_refused(home, monkeypatch, probe, spec):
    data = load("digits")
    few = dataclasses.replace(data, train_images=data.train_images[:300], train_labels=data.train_labels[:300])
    monkeypatch.setattr(f"engine.probes.applications.{probe}.load", lambda name: few)
    monkeypatch.setattr(f"engine.probes.applications.{probe}.source_dataset", lambda *_: few, raising=False)
    assert "choose at most as many" in asked(home, probe, spec)


def test_all_classes_cannot_arrive_together(home):
    assert "fewer than 10" in asked(home, "continual", ContinualSpec(dataset="digits", per_step=10))


# ---- poisoning and adaptation ---------------------------------------------------------------------------------------


def test_descent_is_the_plain_rule():
    network = nn.Linear(4, 3).double()
    images, labels = torch.randn(4, 4, dtype=torch.float64), torch.tensor([0, 1, 2, 0])
    slow = copy.deepcopy(network)
    for rate in (0.3, 0.1):
        slow.zero_grad()
        F.cross_entropy(slow(images), labels).backward()
        with torch.no_grad():
            for parameter in slow.parameters():
                parameter -= rate * parameter.grad
    fast = descend(network, images, labels, [0.3, 0.1])
    assert torch.allclose(fast.weight, slow.weight) and torch.allclose(fast.bias, slow.bias)


def test_success_and_the_accuracy_of_all_others_are_counted_apart():
    """A network that calls every image of class 0 a 2, half of class 1 a 1 and all of class 2 a 2."""
    answers = torch.tensor([2, 2, 2, 2, 1, 0, 2, 2])
    labels = torch.tensor([0, 0, 0, 0, 1, 1, 2, 2])
    network = nn.Sequential(nn.Flatten(), nn.Identity())
    network.register_parameter("there", nn.Parameter(torch.zeros(1)))
    data = SimpleNamespace(normalise=lambda x: F.one_hot(x[:, 0].long(), 3).float())
    spec = SimpleNamespace(attacked=0, target=2)
    assert measured(network, data, spec, answers[:, None], labels) == {"misread": 1.0, "others": 0.75}


def test_a_class_is_not_attacked_as_itself(home):
    assert "choose others" in asked(home, "poisoning", PoisoningSpec(dataset="digits", attacked=3, target=3))
    assert "0 to 9" in asked(home, "poisoning", PoisoningSpec(dataset="digits", attacked=3, target=10))


def test_a_dataset_is_not_adapted_to_itself(home):
    assert "same dataset" in asked(home, "adaptation", AdaptationSpec(source="digits", dataset="digits"))


# ---- search ---------------------------------------------------------------------------------------------------------


def test_a_set_that_is_not_there_is_refused(home):
    for probe, spec in (("search", SearchSpec), ("ownership", OwnershipSpec)):
        assert "There is no run and no file" in asked(home, probe, spec(source="nowhere"))


# ---- data-free ------------------------------------------------------------------------------------------------------


def a_teacher(home):
    """A student of all digits, kept as a worker leaves it."""
    store, data = Store(home), load("digits")
    spec = build_spec("student", dataset="digits", source="full", network="convnet")
    run = store.submit("student", spec, pid=os.getpid())
    accel = pick_accel("cpu", compile=False)
    module = fit(data.train_images, data.train_labels, data, "convnet", seed=0, steps=60, accel=accel, width=16)
    facts = {
        "name": "Teacher", "dataset": "digits", "classes": list(data.classes), "channels": 1, "size": data.size,
        "mean": list(data.mean), "std": list(data.std), "network": "convnet", "accuracy": 0.9,
        "spec": spec.model_dump(mode="json"),
    }  # fmt: skip
    build = {"name": "convnet", "channels": 1, "size": data.size, "classes": 10, "width": 16}
    save_student(store.folder(run) / "student", module, facts, build)
    store.announce(run, "done", "Done.")
    return run


def teacher_of(weights):
    last = nn.Linear(weights.shape[1], weights.shape[0], bias=False)
    last.weight.data = weights
    return SimpleNamespace(module=nn.Sequential(nn.Linear(2, 2), last), name="T", classes=tuple(range(len(weights))))


def test_the_concentration_is_the_similarity_of_the_last_layers_weights():
    weights = torch.tensor([[1.0, 0.0], [3.0, 4.0], [0.0, -2.0]])
    found = concentration(teacher_of(weights), 0)
    cosines = torch.tensor([1.0, 0.6, 0.0])
    assert torch.allclose(
        found, (cosines - cosines.min()) / (cosines.max() - cosines.min()) + torch.tensor([0, 0, 0.01])
    )


def test_targets_are_probabilities_half_of_them_peaked():
    targets = dirichlet(torch.tensor([1.0, 0.5, 0.2]), 400, 0)
    assert torch.allclose(targets.sum(1), torch.ones(400), atol=1e-5) and bool((targets >= 0).all())
    assert targets.mean(0).tolist() == pytest.approx([1 / 1.7, 0.5 / 1.7, 0.2 / 1.7], abs=0.07)
    assert float(targets[200:].max(1).values.mean()) > float(targets[:200].max(1).values.mean()) + 0.1


def test_arbitrary_sets_are_balanced_over_what_the_teacher_sees():
    said = torch.tensor([0] * 50 + [1] * 3 + [2] * 20)
    chosen = balanced(said, 3, 5, torch.Generator().manual_seed(0))
    assert len(chosen) == len(set(chosen.tolist())) == 15
    assert said[chosen].bincount().tolist()[1] == 3 and int((said[chosen] == 2).sum()) >= 5


def test_softened_is_the_cross_entropy_of_both_at_the_temperature():
    ours, theirs = torch.randn(2, 6, 4, dtype=torch.float64).unbind()
    p, q = (theirs / 5).exp(), (ours / 5).exp()
    p, q = p / p.sum(1, keepdim=True), q / q.sum(1, keepdim=True)
    assert float(softened(ours, theirs, 5.0)) == pytest.approx(float(-25 * (p * q.log()).sum(1).mean()), rel=1e-12)


def test_what_is_retained_is_judged_one_step_ahead():
    """Against a numeric gradient of (w - a (w x - t) x) on an old image, for a network that is one number."""

    def disagreement(weights, x, goal):
        return 0.5 * (weights["w"] * x - goal).square().sum()

    def plain(w, a=0.05):
        ahead = w - a * (w * 2.0 - 1.0) * 2.0
        return 0.5 * (ahead * 3.0 - 2.0) ** 2

    w = torch.tensor(0.7, dtype=torch.float64, requires_grad=True)
    new, old = (tuple(torch.tensor(v, dtype=torch.float64) for v in pair) for pair in ((2.0, 1.0), (3.0, 2.0)))
    found = retained(disagreement, {"w": w}, new, old)
    found.backward()
    assert float(found.detach()) == pytest.approx(plain(0.7))
    assert float(w.grad) == pytest.approx((plain(0.7 + 1e-6) - plain(0.7 - 1e-6)) / 2e-6, rel=1e-6)


@pytest.mark.parametrize(("channels", "size"), [(1, 16), (3, 30)])
def test_the_generator_makes_images_of_the_right_shape(channels, size):
    made = Generator(channels, size)(torch.randn(4, 64))
    assert made.shape == (4, channels, size, size) and bool((made >= 0).all()) and bool((made <= 1).all())


# ---- membership and ownership ---------------------------------------------------------------------------------------


def test_the_area_is_the_chance_that_a_member_has_the_lower_loss():
    member, other = torch.tensor([0.1, 0.5, 0.9]), torch.tensor([0.5, 0.7, 2.0, 3.0])
    pairs = [(m < o) + 0.5 * (m == o) for m in member.tolist() for o in other.tolist()]
    assert auc(member, other) == pytest.approx(sum(pairs) / len(pairs))
    assert true_positives(member, other, 0.0) == pytest.approx(1 / 3)
    assert true_positives(member, other, 0.25) == pytest.approx(2 / 3)


def test_members_and_others_share_no_image():
    data = load("digits")
    inside, (others, labels) = split(data, 30, 0)
    assert len(inside.train_labels) == len(labels) == 300 and labels.bincount().tolist() == [30] * 10
    assert inside.train_labels.bincount().tolist() == [30] * 10
    held = {data.train_images[i].numpy().tobytes() for i in data.held_out}
    assert not held & {image.numpy().tobytes() for image in (*inside.train_images, *others)}


def test_margins_are_to_the_best_other_class():
    logits = torch.tensor([[3.0, 1.0, 2.0], [0.0, 5.0, 7.0]])
    assert margins(logits, torch.tensor([0, 1])).tolist() == [1.0, -2.0]


def test_the_chance_of_one_more_reference_is_that_of_a_prediction_interval():
    references = [0.1, 0.3, 0.2, 0.25, 0.15]
    mean, spread = sum(references) / 5, float(torch.tensor(references, dtype=torch.float64).std())
    edge = mean + float(stats.t.ppf(0.975, 4)) * spread * (1 + 1 / 5) ** 0.5  # of the 95 % prediction interval
    assert chance(edge, references) == pytest.approx(0.025)
    assert chance(mean, references) == pytest.approx(0.5)


# ---- each experiment once, small ------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_distilled_memory_keeps_more_than_a_random_one(home):
    spec = ContinualSpec(dataset="digits", ipc=2, per_step=5, repeats=2, steps=60)
    found = means(answered(home, "continual", spec))
    assert found["distilled", "accuracy"] > found["random", "accuracy"] + 0.02
    assert all(0 <= found[way, "forgetting"] < 0.5 for way in ("distilled", "herding", "random"))


@pytest.mark.slow
def test_one_step_on_distilled_images_makes_new_networks_misread_a_class_and_no_other(home):
    spec = PoisoningSpec(dataset="digits", steps=200, networks=3, source_steps=150, pool=12)
    found = means(answered(home, "poisoning", spec))
    assert found["before", "misread"] < 0.1 and found["before", "others"] > 0.85
    assert found["distilled", "misread"] > 0.6 and found["distilled", "others"] > 0.7
    assert found["distilled", "misread"] + found["distilled", "others"] > sum(found["real", m] for m in MEASURES)


@pytest.mark.slow
def test_a_few_steps_on_distilled_images_carry_networks_to_another_dataset(home):
    spec = AdaptationSpec(source="shapes", dataset="digits", steps=100, networks=3, source_steps=150, pool=8)
    found = means(answered(home, "adaptation", spec))
    assert found["before", "accuracy"] < 0.25
    assert found["distilled", "accuracy"] > found["before", "accuracy"] + 0.2
    assert found["distilled", "accuracy"] > found["random", "accuracy"]


@pytest.mark.slow
def test_a_set_ranks_networks_in_a_fraction_of_the_time(home, chosen):
    found = answered(home, "search", SearchSpec(source=chosen, steps=150, tested=300))
    assert len(found.tables["networks"]) == 8
    assert all(row["full"] > 0.5 for row in found.tables["networks"])
    assert {row["way"] for row in found.tables["ranks"]} == {"set", "random"}
    assert all(-1 <= row["rho"] <= 1 and row["lost"] >= 0 for row in found.tables["ranks"])


@pytest.mark.slow
def test_students_learn_from_a_teacher_without_its_data(home, chosen):
    spec = DataFreeSpec(
        teacher=a_teacher(home), source=chosen, images=10, students=1, steps=40, learning=100, rounds=30
    )
    found = means(answered(home, "data-free", spec))
    for way in ("impressions", "other", "generator"):
        assert found[way, "accuracy"] > 0.3, way
    assert found["real", "accuracy"] > 0.6 and found["set", "accuracy"] > 0.5


@pytest.mark.slow
def test_a_distilled_set_gives_fewer_members_away_than_the_images_themselves(home):
    found = means(
        answered(home, "membership", MembershipSpec(dataset="digits", members=30, repeats=1, steps=50, training=150))
    )
    assert found["seen", "auc"] > 0.65
    assert found["distilled", "auc"] < found["seen", "auc"] - 0.05
    assert found["full", "accuracy"] > found["random", "accuracy"]


@pytest.mark.slow
def test_students_of_a_set_are_told_from_networks_that_never_saw_it(home, chosen):
    found = answered(home, "ownership", OwnershipSpec(source=chosen, trials=2, references=6)).tables["networks"]
    own, references = ([r for r in found if r["way"] == way] for way in ("own", "reference"))
    assert min(r["statistic"] for r in own) > max(r["statistic"] for r in references)
    assert all(r["trained_from_it"] for r in own) and not any(r["trained_from_it"] for r in references)
