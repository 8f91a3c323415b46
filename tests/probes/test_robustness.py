"""Corruptions, attacks, shortcuts, subgroups, fooling: against what is known of tiny cases."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from engine.accel import pick_accel
from engine.data import load
from engine.data.moons import load_moons, make_moons
from engine.errors import Refused
from engine.networks import make_network
from engine.probes.answerer import Work
from engine.probes.robustness import fooling, perturbed, shortcut, subgroups
from engine.probes.robustness.attacks import fgsm, logits, pgd, smallest_radius
from engine.probes.robustness.common import spearman, t_interval
from engine.probes.robustness.corruptions import CORRUPTIONS, corrupt
from engine.probes.robustness.specs import FoolingSpec, RobustnessSpec, ShortcutSpec, SubgroupsSpec
from engine.runs.store import Store
from engine.students.fit import as_student, fit
from engine.students.kept import Student, save_student
from engine.synthetic import fit_zca


@pytest.fixture
def work(home, tmp_path):
    """A place to answer questions in."""
    return Work(Store(home), tmp_path / "answer", lambda fraction, sentence: None)


def facts_of(data, network, name, **more):
    return {
        "name": name, "dataset": data.name, "classes": list(data.classes), "channels": data.channels,
        "size": data.size, "mean": list(data.mean), "std": list(data.std), "network": network, "accuracy": 0.5,
        "source": {"kind": "full", "text": "all images"}, **more,
    }  # fmt: skip


def keep(store, id, data, network="mlp", module=None, seed=0):
    """A student written as a run leaves it."""
    build = {"name": network, "channels": data.channels, "size": data.size, "classes": len(data.classes)}
    module = module or make_network(**build, seed=seed)
    save_student(store.folder(f"student-{id}") / "student", module, facts_of(data, network, id), build)
    return f"student-{id}"


@pytest.fixture(scope="module")
def learned():
    """A perceptron that knows digits well enough to have something to lose."""
    data = load("digits")
    accel = pick_accel("cpu", compile=False)
    return fit(data.train_images, data.train_labels, data, "mlp", seed=0, steps=120, accel=accel)


class Bright(nn.Module):
    """Two classes, told by whether the mean of all pixels (as given) is above 0.4."""

    def __init__(self):
        super().__init__()
        self.gain = nn.Parameter(torch.tensor(10.0))

    def forward(self, x):
        margin = self.gain * (x.mean((1, 2, 3)) - 0.4)
        return torch.stack([-margin, margin], 1)


def bright(mean=0.0, std=1.0, zca=None):
    facts = {"name": "bright", "dataset": "none", "classes": ["dark", "bright"], "mean": [mean], "std": [std]}
    return Student("bright", Bright().eval(), {**facts, "channels": 1, "size": 8}, zca)


# ---- attacks --------------------------------------------------------------------------------------------------------


def digits_student(learned):
    return as_student(learned, load("digits"), "learned")


def test_attacks_stay_in_the_ball_and_among_images_and_pgd_fools_no_less(learned):
    data, student = load("digits"), digits_student(learned)
    pixels, labels = data.test_images[:60].float() / 255, data.test_labels[:60]
    wrong = {}
    for name, attack in {"fgsm": fgsm(student), "pgd": pgd(student, 7)}.items():
        moved = attack(pixels, labels, 12)
        assert (moved - pixels).abs().max() <= 12 / 255 + 1e-6
        assert moved.min() >= 0 and moved.max() <= 1
        wrong[name] = int((logits(student, moved).argmax(1) != labels).sum())
    clean = int((logits(student, pixels).argmax(1) != labels).sum())
    assert clean < wrong["fgsm"] <= wrong["pgd"]


def test_an_attack_moves_even_the_surest_answer():
    student = bright()
    with torch.no_grad():
        student.module.gain.fill_(500.0)  # the loss of a right answer is about 1e-60: no gradient in single precision
    pixels = torch.full((1, 1, 8, 8), 0.5)
    assert logits(student, fgsm(student)(pixels, torch.tensor([1]), 40)).argmax(1).item() == 0


@pytest.mark.parametrize("whitened", [False, True])
def test_the_smallest_radius_is_where_a_linear_model_flips(whitened):
    # 0.5 → 0.4 takes 25.5/255 on every pixel, whatever the normalisation.
    student = bright(mean=0.1, std=2.0)
    with torch.no_grad():
        inside = ((torch.full((1, 1, 8, 8), 0.4) - 0.1) / 2).mean()
    zca = None
    if whitened:
        generator = torch.Generator().manual_seed(0)
        zca = fit_zca(torch.randn(200, 1, 8, 8, generator=generator))
        inside = zca.whiten((torch.full((1, 1, 8, 8), 0.4) - 0.1) / 2).mean()
    student = Student("bright", student.module, student.facts, zca)
    forward = student.module.forward
    student.module.forward = lambda x: forward(x - inside + 0.4)  # the threshold in the network's own space
    pixels = torch.full((1, 1, 8, 8), 0.5)
    found = smallest_radius(student, pixels, 1, fgsm(student), 64)
    if not whitened:
        assert found == 25.75 or found == 25.5
        assert smallest_radius(student, pixels, 1, pgd(student, 7, random_start=False), 64) in (25.5, 25.75)
    assert found is not None
    level = found / 255
    edge = fgsm(student)(pixels, torch.tensor([1]), found)
    before = fgsm(student)(pixels, torch.tensor([1]), found - 0.5)
    assert logits(student, edge).argmax(1).item() == 0 and logits(student, before).argmax(1).item() == 1
    assert torch.allclose((edge - pixels).abs().max(), torch.tensor(level), atol=1e-6)  # 255ths of pixels, not of z
    assert smallest_radius(student, pixels, 1, fgsm(student), 20) is None or whitened
    assert smallest_radius(student, pixels, 0, fgsm(student), 64) == 0


def test_corruptions_take_an_image_farther_with_every_severity():
    images = load("shapes").test_images[::20]
    grey = load("digits").test_images[:40]
    for id in CORRUPTIONS:
        for batch in (images, grey):
            far = [float((corrupt(batch, id, s).float() - batch.float()).square().mean()) for s in (1, 2, 3)]
            assert 0 < far[0] < far[1] < far[2], (id, far)
        assert corrupt(images, id, 2).shape == images.shape
        assert torch.equal(corrupt(images, id, 2, seed=3), corrupt(images, id, 2, seed=3))


def test_accuracy_falls_under_attack_and_the_tables_are_whole(work, learned):
    data = load("digits")
    ids = [keep(work.store, "one", data, module=learned), keep(work.store, "two", data, seed=1)]
    spec = RobustnessSpec(students=",".join(ids), images=60, attacked=20, searched=3, epsilon=16)
    answer = perturbed.answer(spec, work)
    rows = {(r["name"], r["perturbation"], r["severity"]): r for r in answer.tables["accuracy"]}
    assert len(rows) == 2 * (1 + 3 * len(CORRUPTIONS) + 2 * 4)
    one = answer.tables["summary"][0]
    assert one["clean"] > 0.8 > one["pgd_3"] and one["fgsm_1"] >= one["fgsm_3"]
    assert rows["one", "pgd", 3]["accuracy"] <= rows["one", "pgd", 1]["accuracy"] <= rows["one", "pgd", 0]["accuracy"]
    for row in rows.values():
        assert row["low"] <= row["accuracy"] <= row["high"] and row["right"] == round(row["accuracy"] * row["images"])
    assert len(answer.tables["radii"]) == 6
    assert len(answer.facts["shown"]) == 8 and [len(s) for s in answer.facts["said"].values()] == [8, 8]
    assert set(answer.images) == {"corruptions", "attacked", "attack-0", "attack-1"}
    assert all((work.folder / file).is_file() for file in answer.images.values())


def test_without_attacks_there_are_only_corruptions(work):
    keep(work.store, "one", load("digits"))
    answer = perturbed.answer(RobustnessSpec(students="student-one", images=20, attacked=0), work)
    assert {r["family"] for r in answer.tables["accuracy"]} == {"clean", "corruption"}
    assert answer.tables["radii"] == [] and answer.tables["summary"][0]["pgd_2"] is None


# ---- fooling --------------------------------------------------------------------------------------------------------


def test_the_diagonal_of_the_fooling_matrix_is_an_attacks_own_success(work, learned):
    data = load("digits")
    keep(work.store, "one", data, module=learned)
    keep(work.store, "twin", data, module=learned)
    keep(work.store, "other", data, seed=3)
    answer = fooling.answer(FoolingSpec(students="student-one,student-twin,student-other", images=60, epsilon=24), work)
    pairs = {(p["made_on_name"], p["shown_to_name"]): p for p in answer.tables["pairs"]}
    assert len(pairs) == 9
    student = digits_student(learned)
    order = torch.randperm(len(data.test_labels), generator=torch.Generator().manual_seed(0))[:60]
    pixels, labels = data.test_images[order].float() / 255, data.test_labels[order]
    right = logits(student, pixels).argmax(1) == labels
    moved = torch.cat([pgd(student, 7)(x, y, 24) for x, y in zip(pixels.split(50), labels.split(50), strict=True)])
    fooled = (logits(student, moved).argmax(1) != labels) & right
    assert pairs["one", "one"]["count"] == int(fooled.sum()) > 0
    assert pairs["one", "one"]["images"] == int(right.sum())
    assert pairs["one", "twin"]["fooled"] == pairs["one", "one"]["fooled"]  # the same network is fooled the same
    assert pairs["one", "twin"]["agreement"] == 1.0
    assert pairs["one", "other"]["images"] == pairs["other", "one"]["images"] < int(right.sum())
    noise = answer.tables["students"][0]["fooled_by_noise"]
    assert noise < pairs["one", "one"]["fooled"]


def test_fooling_is_set_against_transfer(work, learned):
    data = load("digits")
    keep(work.store, "one", data, module=learned)
    ids = ["student-one"]
    for i in (1, 2):  # each knows something, so that there is something to be wrong about
        half = (data.train_images[i::2], data.train_labels[i::2])
        other = fit(*half, data, "mlp", seed=i, steps=40, accel=work.accel)
        ids.append(keep(work.store, f"s{i}", data, module=other))
    spec = FoolingSpec(students=",".join(ids), images=40, epsilon=24, target="shapes")
    answer = fooling.answer(spec, work)
    pairs = {(p["made_on"], p["shown_to"]): p["fooled"] for p in answer.tables["pairs"]}
    for row in answer.tables["transfer"]:
        others = [id for id in ids if id != row["student"]]
        assert row["fools_others"] == pytest.approx(sum(pairs[row["student"], id] for id in others) / 2)
        assert row["fooled_by_others"] == pytest.approx(sum(pairs[id, row["student"]] for id in others) / 2)
        assert row["target"] == "shapes" and row["leep"] <= 0 and 0 <= row["fixed"] <= 1 and 0 <= row["tuned"] <= 1
    assert [c["measure"] for c in answer.tables["correlations"]][-2:] == ["fixed", "tuned"]
    with pytest.raises(Refused, match="another target"):
        fooling.answer(FoolingSpec(students=",".join(ids), images=40, target="digits"), work)


# ---- stars and moons ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("layout", ["halves", "corners"])
def test_position_tells_the_class_in_training_and_not_out_of_distribution(layout):
    def mass(images):
        """Where the figures lie: the bright pixels' mean, right and up of the middle."""
        bright = (images[:, 0] > 60).float()
        across = torch.arange(28.0) - 13.5
        x = (bright * across).sum((1, 2)) / bright.sum((1, 2))
        y = (bright * across[:, None]).sum((1, 2)) / bright.sum((1, 2))
        return x > 0, y < 0

    def told(images):
        """The class that a position stands for."""
        right, upper = mass(images)
        return (right if layout == "halves" else right != upper).long()

    agree = {}
    for agreement in (1.0, 0.5, 0.0, 0.75):
        images, labels, places = make_moons(40, 3, agreement, layout)
        assert images.shape == (80, 1, 28, 28) and images.dtype == torch.uint8
        assert torch.equal(told(images), places)
        agree[agreement] = float((places == labels).float().mean())
    assert agree == {1.0: 1.0, 0.5: 0.5, 0.0: 0.0, 0.75: 0.75}
    again = make_moons(40, 3, 0.75, layout)[0]
    assert torch.equal(again, images) and not torch.equal(make_moons(40, 4, 0.75, layout)[0], images)
    if layout == "corners":  # neither side nor height alone tells
        right, upper = mass(make_moons(200, 0, 1.0, layout)[0])
        labels = torch.arange(400) % 2
        assert all(abs(float((side.long() == labels).float().mean()) - 0.5) < 0.1 for side in (right, upper))


def test_stars_and_moons_refuse_what_cannot_be():
    with pytest.raises(Refused, match="from 0 to 1"):
        make_moons(10, agreement=1.5)
    with pytest.raises(Refused, match="halves, corners"):
        make_moons(10, layout="rows")


@pytest.mark.slow
def test_students_of_a_perfect_shortcut_take_it_and_without_one_they_do_not(work):
    spec = {"steps": 20, "sets": 2, "students": 1, "images": 100, "width": 8, "ipc": 2, "network": "lenet"}
    tied = shortcut.answer(ShortcutSpec(**spec), work)
    found = {(r["set"], r["measure"]): r["mean"] for r in tied.tables["summary"]}
    assert found["full", "iid_accuracy"] > 0.95
    assert found["full", "flipped_accuracy"] < found["full", "random_accuracy"] < found["full", "iid_accuracy"]
    assert found["distilled", "reliance"] == pytest.approx(1 - found["distilled", "flipped_accuracy"])
    assert len(tied.tables["students"]) == 3 * 2 and set(tied.images) == {"examples", "distilled", "random"}
    free = shortcut.answer(ShortcutSpec(**spec, agreement=0.5), work)
    without = {(r["set"], r["measure"]): r["mean"] for r in free.tables["summary"]}
    assert without["full", "reliance"] < 0.6 < found["full", "reliance"]
    again = shortcut.answer(ShortcutSpec(**spec), work)
    assert again.tables["students"] == tied.tables["students"]


RELIANCE = {"iid_accuracy": 1.0, "random_accuracy": 0.6}


def found(distilled, full, random=(0.7, 0.72, 0.71)):
    """Rows of students, one a repeat, that go by position so often."""
    return [
        {"set": kind, "repeat": i, **RELIANCE, "flipped_accuracy": 1 - value, "reliance": value}
        for kind, values in {"distilled": distilled, "full": full, "random": random}.items()
        for i, value in enumerate(values)
    ]


@pytest.mark.parametrize(
    ("distilled", "full", "verdict", "word"),
    [
        ((0.92, 0.9, 0.94), (0.6, 0.62, 0.61), "more", "amplifies"),
        ((0.6, 0.62, 0.61), (0.92, 0.9, 0.94), "less", "weakens"),
        ((0.2, 0.22, 0.21), (0.92, 0.9, 0.94), "less", "drops"),
        ((0.92, 0.9, 0.94), (0.93, 0.91, 0.9), "no significant difference", "carries the shortcut over"),
        ((0.2, 0.9, 0.5), (0.9, 0.3, 0.6), "no significant difference", "no difference"),
        ((0.9,), (0.2,), "unclear", "One repeat"),
    ],
)
def test_what_a_distilled_set_does_to_the_shortcut_is_said_with_its_uncertainty(distilled, full, verdict, word):
    rows = found(distilled, full, random=(0.7, 0.72, 0.71)[: len(full)])
    contrast = shortcut._contrasts(rows)[0]
    differences = [a - b for a, b in zip(distilled, full, strict=True)]
    assert contrast["verdict"] == verdict and contrast["difference"] == pytest.approx(np.mean(differences))
    if len(full) == 3:  # Student's t with two degrees of freedom, paired by repeat
        half = 4.302653 * np.std(differences, ddof=1) / 3**0.5
        assert contrast["high"] - contrast["difference"] == pytest.approx(half, rel=1e-5)
    headline = shortcut._headline(shortcut._summary(rows), shortcut._contrasts(rows))
    assert word in headline and f"in {100 * np.mean(distilled):.0f} % of their answers" in headline


def test_moons_are_a_dataset_that_can_be_distilled_from():
    data = load_moons(60, 5, seed=1)
    assert (data.channels, data.size, len(data.classes), data.flips) == (1, 28, 2, False)
    assert len(data.train_labels) == 120 and len(data.test_labels) == 10


# ---- subgroups ------------------------------------------------------------------------------------------------------


def test_groups_are_told_by_the_border_alone_and_add_up():
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (90, 3, 16, 16), generator=generator, dtype=torch.uint8)
    colours = torch.tensor([(10, 10, 10), (200, 40, 40), (230, 230, 250)])
    truth = torch.arange(90) % 3
    inside = images.clone()
    images[:] = (colours[truth].view(90, 3, 1, 1) + torch.randint(-5, 6, images.shape, generator=generator)).clamp(
        0, 255
    )
    images[:, :, 2:-2, 2:-2] = inside[:, :, 2:-2, 2:-2]
    groups, centres = subgroups.background_groups(images, 3, 2, 0)
    assert torch.equal(groups, truth)  # from dark to light
    assert np.abs(centres - colours.numpy()).max() < 5
    with pytest.raises(Refused, match="fewer than 3"):
        subgroups.background_groups(torch.zeros(9, 1, 16, 16, dtype=torch.uint8), 3, 2, 0)
    with pytest.raises(Refused, match="thinner"):
        subgroups.background_groups(images, 3, 8, 0)


def test_worst_group_and_spread_of_a_hand_computed_case():
    cells = torch.tensor([0, 0, 0, 0, 1, 1, 2, 2, 2, 3])
    right = torch.tensor([1, 1, 1, 0, 1, 1, 0, 0, 1, 0]).bool()
    worst, deviation, cell = subgroups.spread(right, cells, smallest=2)  # 0.75, 1, 1/3; the fourth is too small
    assert (worst, cell) == (pytest.approx(1 / 3), 2)
    assert deviation == pytest.approx(np.std([0.75, 1, 1 / 3]))


def test_subgroups_add_up_to_the_whole(work):
    data = load("shapes")
    ids = [keep(work.store, name, data, seed=i) for i, name in enumerate(("one", "two"))]
    spec = SubgroupsSpec(students=",".join(ids), images=400, colours=3, smallest=5, shuffles=20)
    answer = subgroups.answer(spec, work)
    for summary in answer.tables["summary"]:
        mine = [r for r in answer.tables["groups"] if r["student"] == summary["student"]]
        assert len(mine) == 30 and sum(r["images"] for r in mine) == 400
        assert sum(r["right"] for r in mine) / 400 == pytest.approx(summary["average"])
        judged = [r["accuracy"] for r in mine if r["judged"]]
        assert summary["worst"] == pytest.approx(min(judged))
        assert summary["macro_std"] == pytest.approx(np.std(judged))
        assert summary["macro_mean"] == pytest.approx(np.mean(judged)) and 0 < summary["p"] <= 1
    assert sum(c["images"] for c in answer.tables["colours"]) == 400


def test_a_student_that_fails_on_one_background_is_found_out(work, monkeypatch):
    """Right everywhere but on the darkest backgrounds: a spread that chance does not make."""
    data = load("shapes")
    keep(work.store, "one", data)
    groups, _ = subgroups.background_groups(data.test_images, 3, 2, 0)
    answers = torch.nn.functional.one_hot(torch.where(groups == 0, (data.test_labels + 1) % 10, data.test_labels), 10)
    order = torch.randperm(1000, generator=torch.Generator().manual_seed(0))
    queue = list(answers[order].float().split(250))
    monkeypatch.setattr(Student, "logits", lambda self, pixels, batch=250: queue.pop(0))
    spec = SubgroupsSpec(students="student-one", images=1000, colours=3, smallest=5, shuffles=50)
    row = subgroups.answer(spec, work).tables["summary"][0]
    assert row["worst"] == 0 and row["macro_std"] > 2 * row["macro_std_by_chance"] and row["p"] == pytest.approx(1 / 51)


# ---- refusals and statistics ----------------------------------------------------------------------------------------


def test_students_of_different_datasets_are_refused(work):
    keep(work.store, "one", load("digits"))
    keep(work.store, "two", load("shapes"))
    for probe, spec in ((perturbed, RobustnessSpec), (fooling, FoolingSpec), (subgroups, SubgroupsSpec)):
        with pytest.raises(Refused, match="different datasets"):
            probe.answer(spec(students="student-one,student-two"), work)
        with pytest.raises(Refused, match="no trained student"):
            probe.answer(spec(students="student-nobody"), work)


def test_backgrounds_without_colours_are_refused(work):
    keep(work.store, "one", load("digits"))
    with pytest.raises(Refused, match="colours"):
        subgroups.answer(SubgroupsSpec(students="student-one", colours=8, border=1, images=10), work)


def test_intervals():
    assert t_interval([1.0, 2.0, 3.0]) == pytest.approx((2, 2 - 4.302653 / 3**0.5, 2 + 4.302653 / 3**0.5), abs=1e-5)
    assert t_interval([0.3]) == (0.3, None, None)
    assert spearman([1, 2, 3, 4], [10, 30, 20, 40])[0] == pytest.approx(0.8)
    assert spearman([1, 2, 3], [5, 5, 5]) == (None, None) and spearman([1, 2], [1, 2]) == (None, None)
