"""The attribution probes as pages and the command line ask them: saved students, answers, refusals, cancelling."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from engine.accel import pick_accel
from engine.cli import main
from engine.data import load
from engine.data.base import Dataset
from engine.errors import Refused
from engine.networks import make_network
from engine.probes.answerer import Work, work_out
from engine.probes.attribution import agreement, context, disagree, distilled, influence, maps, quality, sanity
from engine.probes.attribution.asked import asked_class, asked_image, asked_students
from engine.probes.attribution.specs import (
    ATTRIBUTION,
    AgreementSpec,
    AttributionSpec,
    ContextSpec,
    DisagreeSpec,
    DistilledSpec,
    InfluenceSpec,
    QualitySpec,
    SanitySpec,
)
from engine.probes.desk import Cancelled, Desk
from engine.runs.store import Store
from engine.students.fit import fit
from engine.students.kept import Student, save_student
from engine.synthetic import SyntheticSet

A, B, VIT, MLP = "student-a", "student-b", "student-vit", "student-mlp"
SET = "set-of-digits"


@pytest.fixture(scope="module")
def trained():
    """Weights of two small ConvNets that know digits, and of two networks that know nothing."""
    data, accel = load("digits"), pick_accel("cpu", compile=False)

    def one(seed):
        return fit(
            data.train_images, data.train_labels, data, "convnet", seed=seed, steps=80, accel=accel, width=8
        ).cpu()

    return {A: one(0), B: one(1), VIT: make_network("vit", 1, 16, 10), MLP: make_network("mlp", 1, 16, 10)}


@pytest.fixture
def work(home, tmp_path, trained):
    """A home with four students of digits, and a set of twenty images that one of them was trained on."""
    store, data = Store(home), load("digits")
    network = {A: "convnet", B: "convnet", VIT: "vit", MLP: "mlp"}
    chosen = torch.cat([part[:2] for part in data.by_class])
    synthetic = SyntheticSet(
        data.normalise(data.train_images[chosen]), data.train_labels[chosen], "digits", data.classes, data.mean,
        data.std, kind="random",
    )  # fmt: skip
    synthetic.save(store.folder(SET) / "result")
    source = {
        A: ({"kind": "random", "text": "20 images", "run": SET}, {"source": SET}),
        B: ({"kind": "full", "text": "all", "run": None}, {"source": "full", "seed": 0}),
        VIT: ({"kind": "random", "text": "10 images", "run": None}, {"source": "random", "ipc": 1, "seed": 0}),
        MLP: ({"kind": "imported", "text": "gone", "run": None}, {"source": "/nowhere/set.pt"}),
    }
    for id, module in trained.items():
        build = {"name": network[id], "channels": 1, "size": 16, "classes": 10, "width": 8, "depth": 3, "seed": 0}
        facts = {
            "name": id.upper(), "dataset": "digits", "classes": list(data.classes), "channels": 1, "size": 16,
            "mean": list(data.mean), "std": list(data.std), "network": network[id], "source": source[id][0],
            "spec": source[id][1], "protocol": "dc", "accuracy": 0.9,
        }  # fmt: skip
        save_student(store.folder(id) / "student", module, facts, build)
    return Work(store, tmp_path / "answer", lambda fraction, sentence: None)


def table(answer, name):
    rows = answer.tables[name]
    json.dumps(rows, allow_nan=False)  # plain numbers and strings
    json.dumps(answer.facts, allow_nan=False)
    assert rows and all(row.keys() == rows[0].keys() for row in rows)
    return rows


def picture(work, answer, name):
    assert answer.images[name] == f"{name}.png"
    return np.array(Image.open(work.folder / answer.images[name]))


def keep_picture(home, pixels):
    name = "0123456789abcdef01234567.png"
    (home / "uploads").mkdir(exist_ok=True)
    Image.fromarray(pixels).save(home / "uploads" / name)
    return f"file:{name}"


# ---- maps -----------------------------------------------------------------------------------------------------------


def test_maps_of_several_students_side_by_side(work):
    asked = AttributionSpec(students=f"{A},{B},{VIT}", image="test:3", target="true", steps=20)
    answer = maps.answer(asked, work)
    data = load("digits")
    rows = table(answer, "students")
    assert [row["id"] for row in rows] == [A, B, VIT]
    assert {row["target"] for row in rows} == {data.classes[int(data.test_labels[3])]}
    found = np.array(answer.facts["maps"])
    assert found.shape == (3, 16, 16)
    for row, values in zip(rows, found, strict=True):
        assert row["total"] == pytest.approx(np.abs(values).sum(), rel=1e-2)
        assert row["gap"] is not None and 0 <= row["confidence"] <= 1
    for i in range(3):
        assert picture(work, answer, f"map-{i}").shape == picture(work, answer, "input").shape
        assert picture(work, answer, f"blend-{i}").shape[2] == 3
    pairs = table(answer, "agreement")
    assert len(pairs) == 3 and all(-1 <= row["rank_correlation"] <= 1 for row in pairs)
    answers = table(answer, "answers")
    assert [row["rank"] for row in answers] == [1, 2, 3] * 3
    shares = [np.abs(m).ravel() / np.abs(m).sum() for m in found]
    assert answer.facts["limit"] <= max(s.max() for s in shares) * 1.01  # of the shares: one scale for all
    again = maps.answer(asked, work)
    assert again.facts == answer.facts and again.tables["agreement"] == answer.tables["agreement"]


def test_a_method_that_is_not_right_for_a_student_leaves_it_out_and_says_why(work):
    answer = maps.answer(AttributionSpec(students=f"{A},{MLP}", method="deeplift"), work)
    assert list(answer.facts["skipped"]) == [A] and "normalisation" in answer.facts["skipped"][A]
    assert answer.facts["maps"][0] is None and answer.facts["maps"][1] is not None
    assert [row["id"] for row in table(answer, "students")] == [MLP]
    assert "map-0" not in answer.images and "map-1" in answer.images
    assert any("normalisation" in note for note in answer.notes)
    with pytest.raises(Refused, match="attention"):
        maps.answer(AttributionSpec(students=VIT, method="deeplift"), work)
    with pytest.raises(Refused, match="has none"):
        maps.answer(AttributionSpec(students=MLP, method="gradcam"), work)


def test_steps_are_added_until_the_shares_add_up(work):
    taken = set()
    for index in range(8):
        asked = AttributionSpec(students=A, image=f"test:{index}", steps=50)
        row = table(maps.answer(asked, work), "students")[0]
        assert row["gap"] <= 0.01
        taken.add(row["steps"])
    assert min(taken) == 50 < max(taken) <= 200  # more for some images than for others


def test_a_path_from_black_is_warned_of(work):
    answer = maps.answer(AttributionSpec(students=A, image="test:3", baseline="black", steps=50), work)
    assert any("Do not trust this map" in note for note in answer.notes)


def test_what_can_be_asked_about(work, home):
    student = asked_students(work, A)[0]
    data = load("digits")
    real = asked_image("test:5", student, work)
    assert torch.equal(real.pixels[0] * 255, data.test_images[5].float()) and real.label == int(data.test_labels[5])
    assert torch.equal(asked_image("train:2", student, work).pixels[0] * 255, data.train_images[2].float())
    third = torch.nonzero(data.test_labels == 7)[2, 0]  # counted within its class
    assert asked_image("test:7:2", student, work).index == int(third)
    made = asked_image(f"synthetic:{SET}:4", student, work)
    assert made.label == 2
    np.testing.assert_allclose(made.pixels[0], data.train_images[data.by_class[2][0]].float() / 255, atol=1e-5)
    drawn = asked_image(keep_picture(home, np.full((20, 30), 51, np.uint8)), student, work)
    assert drawn.pixels.shape == (1, 1, 16, 16) and drawn.label is None
    np.testing.assert_allclose(drawn.pixels, 0.2, atol=0.01)
    assert asked_class("3", data.classes) == 3


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"image": "test:100000"}, "count from 0"),
        ({"image": "test:-1"}, "no index"),
        ({"image": "test:7:5000"}, "of class 7"),
        ({"image": "test:giraffe:0"}, "There is no class"),
        ({"image": "somewhere"}, "names no image"),
        ({"image": "synthetic:none-of-that:0"}, "has made no set"),
        ({"image": "file:../../etc/passwd"}, "no name of a kept picture"),
        ({"image": "file:0123456789abcdef01234567.png", "target": "true"}, "not here any more"),
        ({"target": "giraffe"}, "There is no class"),
        ({"students": "student-nobody"}, "no trained student"),
        ({"students": "../../etc"}, "not a run id"),
        ({"students": f"{A},{B},{VIT},{MLP},student-e"}, "1 to 4 students"),
        ({"students": " , "}, "1 to 4 students"),
        ({"method": "occlusion", "window": 2, "stride": 3}, "stride may be at most"),
        ({"method": "gradcam", "smooth": True}, "SmoothGrad averages gradients"),
    ],
)
def test_wrong_questions_are_refused_with_a_sentence(work, values, sentence):
    with pytest.raises(Refused, match=sentence):
        maps.answer(AttributionSpec(**{"students": A, "steps": 5, **values}), work)


def test_a_picture_nobody_has_named_has_no_true_class(work, home):
    name = keep_picture(home, np.zeros((8, 8), np.uint8))
    with pytest.raises(Refused, match="Nobody has said"):
        maps.answer(AttributionSpec(students=A, image=name, target="true"), work)
    assert maps.answer(AttributionSpec(students=A, image=name, method="saliency"), work).facts["image"]["label"] is None


def test_pictures_that_are_none_are_refused(work, home):
    name = keep_picture(home, np.zeros((8, 8), np.uint8))
    path = home / "uploads" / name.removeprefix("file:")
    path.write_bytes(b"GIF89a" + bytes(100))
    with pytest.raises(Refused, match="not a PNG"):
        maps.answer(AttributionSpec(students=A, image=name), work)
    path.write_bytes(b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR" + (60_000).to_bytes(4) * 2 + bytes(50))
    with pytest.raises(Refused, match="60000×60000"):
        maps.answer(AttributionSpec(students=A, image=name), work)


def test_students_of_different_datasets_are_not_asked_together(work, trained):
    data = load("digits")
    build = {"name": "mlp", "channels": 3, "size": 16, "classes": 10}
    facts = {
        "name": "other", "dataset": "shapes", "classes": list(data.classes), "channels": 3, "size": 16,
        "mean": [0.5] * 3, "std": [0.2] * 3, "network": "mlp", "source": {"kind": "full"},
    }  # fmt: skip
    save_student(work.store.folder("student-other") / "student", make_network(**build), facts, build)
    with pytest.raises(Refused, match="only students of one dataset"):
        maps.answer(AttributionSpec(students=f"{A},student-other"), work)


# ---- through the desk -----------------------------------------------------------------------------------------------


def test_questions_are_answered_once_refused_and_cancelled(work, home):
    desk = Desk(home)
    digest = desk.ask("attribution", AttributionSpec(students=A, method="saliency"))
    assert not isinstance(work_out(desk, work.store, digest), str)
    state = desk.look(digest)
    assert state.status == "done" and desk.file(digest, state.answer.images["map-0"]).is_file()
    assert desk.ask("attribution", AttributionSpec(students=A, method="saliency")) == digest

    wrong = desk.ask("attribution", AttributionSpec(students=VIT, method="guided-gradcam"))
    assert "has none" in work_out(desk, work.store, wrong)
    assert desk.look(wrong).status == "refused" and "has none" in desk.look(wrong).message


@pytest.mark.parametrize(
    ("probe", "spec"),
    [
        ("attribution", AttributionSpec(students=A, method="occlusion", window=1, stride=1)),
        ("sanity", SanitySpec(students=A, method="saliency")),
        ("influence", InfluenceSpec(students=A, layers="all")),
        ("quality", QualitySpec(students=A, methods="saliency", images=8)),
        ("agreement", AgreementSpec(students=f"{A},{B}", method="saliency", images=20)),
        ("distilled-view", DistilledSpec(students=A, run=SET, method="saliency")),
        ("disagree", DisagreeSpec(students=f"{A},{B}")),
    ],
)
def test_nobody_waits_for_what_was_cancelled(work, probe, spec):
    from importlib import import_module

    from engine.probes.specs import PROBES

    answer = import_module(PROBES[probe].module).answer
    heard = []

    def tell(fraction, sentence):
        heard.append(fraction)
        if len(heard) == 2:
            raise Cancelled

    with pytest.raises(Cancelled):
        answer(spec, Work(work.store, work.folder, tell))
    assert len(heard) == 2 and heard == sorted(heard)
    fractions = []
    answer(spec, Work(work.store, work.folder, lambda fraction, sentence: fractions.append(fraction)))
    assert all(0 <= f <= 1 for f in fractions) and fractions == sorted(fractions)


# ---- sanity ---------------------------------------------------------------------------------------------------------


def test_sanity_check_goes_from_trained_to_random(work):
    answer = sanity.answer(SanitySpec(students=A, image="test:3", method="inputxgradient", repeats=2), work)
    rows = table(answer, "stages")
    assert [row["stage"] for row in rows] == [0, 1, 2, 3, 4]  # three blocks and the last layer
    assert rows[0]["rank_correlation"] == rows[0]["ssim"] == 1 and rows[1]["layer"] == "last layer"
    for row in rows[1:]:
        assert row["rank_correlation_low"] <= row["rank_correlation"] <= row["rank_correlation_high"] < 1
        assert row["draws"] == 2
    assert rows[-1]["confidence"] < rows[0]["confidence"]
    assert "assed" in answer.facts["verdict"] and f"{rows[-1]['rank_correlation']:.2f}" in answer.facts["verdict"]
    assert {"strip", "input", *(f"stage-{i}" for i in range(5))} == set(answer.images)
    with pytest.raises(Refused, match="normalisation"):
        sanity.answer(SanitySpec(students=A, method="deeplift"), work)
    with pytest.raises(Refused, match="one student"):
        sanity.answer(SanitySpec(students=f"{A},{B}"), work)


def test_random_weights_are_not_those_the_student_started_from(work):
    """A student that learned nothing would otherwise pass for one whose maps do not depend on weights."""
    build = {"name": "mlp", "channels": 1, "size": 16, "classes": 10, "seed": 0}
    facts = json.loads((work.store.folder(MLP) / "student" / "student.json").read_text())
    save_student(work.store.folder("student-raw") / "student", make_network(**build), facts, build)
    answer = sanity.answer(SanitySpec(students="student-raw", method="saliency", seed=0, repeats=1), work)
    assert table(answer, "stages")[-1]["rank_correlation"] < 0.9


def test_a_map_of_the_image_alone_does_not_pass(work):
    """Superpixels of an all but linear image: what ignores the weights is called so."""
    assert sanity._verdict("X", {"rank_correlation": 0.8}).startswith("Not passed")
    assert sanity._verdict("X", {"rank_correlation": 0.1}).startswith("Passed")


# ---- influence ------------------------------------------------------------------------------------------------------


def test_influence_names_the_images_that_pushed(work):
    for layers in ("last", "all"):
        answer = influence.answer(InfluenceSpec(students=f"{A},{VIT}", image="test:0", layers=layers, count=4), work)
        rows = table(answer, "influence")
        for id in (A, VIT):
            mine = {d: [r for r in rows if r["id"] == id and r["direction"] == d] for d in ("up", "down", "similar")}
            up = [row["influence"] for row in mine["up"]]
            assert up == sorted(up, reverse=True) and min(up) > 0
            down = [row["influence"] for row in mine["down"]]
            assert down == sorted(down) and max(down) < 0
            similar = [row["similarity"] for row in mine["similar"]]
            assert similar == sorted(similar, reverse=True) and len(similar) == 4
        assert [row["training_images"] for row in answer.facts["answers"]] == [20, 10]
        assert {"input", "up-0", "down-0", "similar-0", "similar-1"} <= set(answer.images)


def test_an_image_the_student_was_trained_on_is_most_like_itself(work):
    answer = influence.answer(InfluenceSpec(students=A, image=f"synthetic:{SET}:7", count=1), work)
    first = next(row for row in table(answer, "influence") if row["direction"] == "similar")
    assert first["index"] == 7 and first["similarity"] == pytest.approx(1, abs=1e-3) and first["class"] == "3"


def test_of_many_training_images_some_are_drawn(work):
    answer = influence.answer(InfluenceSpec(students=B, limit=50, count=3), work)
    told = answer.facts["answers"][0]
    assert told["looked_at"] == 50 and told["training_images"] == len(load("digits").train_labels)
    assert any("drawn at random" in note for note in answer.notes)
    with pytest.raises(Refused, match="not here any more"):
        influence.answer(InfluenceSpec(students=MLP), work)


# ---- quality and agreement ------------------------------------------------------------------------------------------


def test_quality_of_maps_beside_random_ones(work):
    asked = QualitySpec(
        students=f"{A},{VIT}", methods="saliency,inputxgradient,deeplift", images=6, perturbations=3, points=6
    )
    answer = quality.answer(asked, work)
    rows = table(answer, "quality")
    metrics = {"infidelity", "unexplained", "sensitivity", "deletion", "insertion"}
    for id in (A, VIT):
        for method in ("saliency", "inputxgradient"):
            mine = {row["metric"]: row for row in rows if row["id"] == id and row["method"] == method}
            assert set(mine) == metrics
            assert all(row["low"] <= row["mean"] <= row["high"] and row["n"] <= 6 for row in mine.values())
            assert 0 <= mine["unexplained"]["mean"] <= 1 and 0 <= mine["insertion"]["mean"] <= 1
        assert {row["metric"] for row in rows if row["id"] == id and row["method"] == "random"} == {
            "deletion",
            "insertion",
        }
    assert len(answer.facts["skipped"]) == 2 and set(answer.facts["metrics"]) == metrics
    curves = table(answer, "curves")
    shares = [r["share"] for r in curves if (r["id"], r["method"], r["curve"]) == (A, "saliency", "deletion")]
    assert shares == pytest.approx(np.linspace(0, 1, 7), abs=1e-3)
    ends = {(r["curve"], r["share"]): r["probability"] for r in curves if r["id"] == A and r["method"] == "saliency"}
    assert ends["deletion", 0.0] == ends["insertion", 1.0] and ends["deletion", 1.0] == ends["insertion", 0.0]
    # pixels that matter first: the answer is gone sooner than with pixels in random order
    area = {r["method"]: r["mean"] for r in rows if r["id"] == A and r["metric"] == "deletion"}
    assert area["inputxgradient"] < area["random"]
    with pytest.raises(Refused, match="no method"):
        quality.answer(QualitySpec(students=A, methods="saliency,guess"), work)


def test_agreement_and_the_distance_between_models(work):
    answer = agreement.answer(AgreementSpec(students=f"{A},{B},{VIT}", method="inputxgradient", images=8), work)
    rows = table(answer, "pairs")
    assert [(row["id_a"], row["id_b"]) for row in rows] == [(A, B), (A, VIT), (B, VIT)]
    distance = np.array(answer.facts["distance"])
    assert distance.shape == (3, 3) and np.allclose(distance, distance.T) and np.allclose(np.diag(distance), 0)
    for row, (a, b) in zip(rows, ((0, 1), (0, 2), (1, 2)), strict=True):
        assert row["distance"] == pytest.approx(1 - row["cosine"], abs=1e-3) == distance[a, b]
        assert row["cosine_low"] <= row["cosine"] <= row["cosine_high"] and row["n"] == 8
    assert rows[0]["distance"] < min(rows[1]["distance"], rows[2]["distance"])  # the ViT knows nothing
    assert sorted(answer.facts["tree"]["order"]) == [0, 1, 2] and len(answer.facts["tree"]["lines"]) == 2
    left = agreement.answer(AgreementSpec(students=f"{A},{VIT},{B}", method="guided-gradcam", images=4), work)
    assert len(table(left, "pairs")) == 1 and any("left out" in note for note in left.notes)
    with pytest.raises(Refused, match="at least two"):
        agreement.answer(AgreementSpec(students=f"{A},{VIT}", method="guided-gradcam", images=4), work)


def test_a_student_agrees_with_its_copy(work, trained):
    facts = json.loads((work.store.folder(A) / "student" / "student.json").read_text())
    save_student(work.store.folder("student-copy") / "student", trained[A], facts, facts["build"])
    answer = agreement.answer(AgreementSpec(students=f"{A},student-copy", method="saliency", images=4), work)
    row = table(answer, "pairs")[0]
    assert row["distance"] == pytest.approx(0, abs=1e-6)
    assert row["rank_correlation"] == row["overlap"] == row["same_answer"] == 1


def test_images_on_which_students_disagree_come_first(work):
    answer = disagree.answer(DisagreeSpec(students=f"{A},{B},{VIT}", scan=100, count=20), work)
    rows = table(answer, "images")
    order = [(row["answers"], row["divergence"]) for row in rows]
    assert order == sorted(order, reverse=True) and len(rows) == 20
    said = {}
    for row in table(answer, "answers"):
        said.setdefault(row["index"], set()).add(row["predicted"])
    assert all(len(said[row["index"]]) == row["answers"] for row in rows)
    assert list(answer.images) == [f"image-{rank}" for rank in range(20)]
    only = disagree.answer(DisagreeSpec(students=f"{A},{B}", label="4", count=5), work)
    assert {row["true"] for row in table(only, "images")} == {4}


# ---- distilled images as input --------------------------------------------------------------------------------------


def test_synthetic_images_as_input(work):
    asked = DistilledSpec(students=f"{A},{MLP}", run=SET, indices="0,5", method="gradcam", neighbours=3, tests=200)
    answer = distilled.answer(asked, work)
    looks = table(answer, "looks")
    assert [(row["id"], row["index"], row["class"]) for row in looks] == [
        (A, 0, "0"), (A, 5, "2"), (MLP, 0, "0"), (MLP, 5, "2"),
    ]  # fmt: skip
    assert "maps-0" in answer.images and "maps-1" not in answer.images and list(answer.facts["skipped"]) == [MLP]
    nearest = table(answer, "nearest")
    assert len(nearest) == 2 * 2 * 3
    for first, second in zip(nearest, nearest[1:], strict=False):
        if second["rank"] > first["rank"]:
            assert second["distance"] >= first["distance"] >= 0
    assert {row["kind"] for row in table(answer, "spectrum")} == {"synthetic", "real"}
    assert {row["frequency"] for row in table(answer, "spectrum")} == set(range(1, 9))
    total = answer.facts["total_variation"]
    # the set is of real images, so that statistics must be much alike
    assert (
        total["synthetic"]["low"] <= total["real"]["mean"] * 1.1
        and total["real"]["mean"] < 2 * total["synthetic"]["mean"]
    )
    assert len([row for row in table(answer, "variation") if row["kind"] == "synthetic"]) == 20
    first = distilled.answer(DistilledSpec(students=A, run=SET, method="saliency", tests=50), work)
    assert first.facts["indices"] == list(range(0, 20, 2))  # one of each class
    with pytest.raises(Refused, match="indices from 0 to 19"):
        distilled.answer(DistilledSpec(students=A, run=SET, indices="20"), work)
    with pytest.raises(Refused, match="has made no set"):
        distilled.answer(DistilledSpec(students=A, run="nothing"), work)


def test_a_real_test_image_pulls_itself(work):
    student = asked_students(work, A)[0]
    real = load("digits").test_images[:50]
    found = distilled.cosines(student, real[:4].float() / 255, real)
    assert found.argmax(1).tolist() == [0, 1, 2, 3]
    np.testing.assert_allclose(found.max(1).values, 1, atol=1e-5)


# ---- object or context ----------------------------------------------------------------------------------------------


class Bright(nn.Module):
    """Tells two classes by how bright a part of the image is: the object's square, or all but it."""

    def __init__(self, place):
        super().__init__()
        self.register_buffer("place", torch.as_tensor(place, dtype=torch.float32))
        self.gain = nn.Parameter(torch.tensor(20.0))

    def forward(self, x):
        margin = self.gain * ((x * self.place).sum((1, 2, 3)) / self.place.sum() / x.shape[1] - 0.5)
        return torch.stack([-margin, margin], 1)


@pytest.fixture
def planted(monkeypatch):
    """Images in which the square's brightness tells the class and so does that of the context; two students, one of
    whom looks at the square alone, the other at the context alone."""
    mask = np.zeros((16, 16), bool)
    mask[5:10, 4:10] = True
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(40) % 2
    tone = torch.where(labels == 1, 0.8, 0.2).view(-1, 1, 1, 1)
    images = ((tone + 0.15 * torch.rand(40, 3, 16, 16, generator=generator) - 0.075) * 255).byte()
    masks = {part: torch.from_numpy(mask).expand(40, -1, -1).clone() for part in ("train", "test")}
    data = Dataset(
        "planted", "Planted", ("dark", "bright"), images, labels, images, labels, (0.5,) * 3, (0.3,) * 3, masks
    )
    facts = {
        "dataset": "planted", "classes": ["dark", "bright"], "channels": 3, "size": 16, "mean": [0.0] * 3,
        "std": [1.0] * 3, "network": "mlp", "source": {"kind": "full"},
    }  # fmt: skip
    students = [
        Student("object", Bright(mask).eval(), {**facts, "name": "object"}, None),
        Student("context", Bright(~mask).eval(), {**facts, "name": "context"}, None),
    ]
    monkeypatch.setattr(context, "asked_students", lambda *_: students)
    monkeypatch.setattr(context, "data_of", lambda *_: data)
    return mask


def test_object_or_context_is_told_apart(work, planted):
    answer = context.answer(ContextSpec(students="both", images=20), work)
    rows = {(r["id"], r["condition"]): r for r in table(answer, "context") if r["subset"] == "all"}
    assert len(rows) == 2 * 5 and list(answer.facts["conditions"]) == list(context.CONDITIONS)
    for condition in context.CONDITIONS:
        assert rows["object", condition]["object_share"] == pytest.approx(1)
        assert rows["context", condition]["object_share"] == pytest.approx(0)
        assert rows["object", condition]["area"] == pytest.approx(30 / 256, rel=1e-3)
    for id in ("object", "context"):
        assert rows[id, "original"]["accuracy"] == rows[id, "original"]["kept"] == 1
    for condition in ("context-swapped", "context-noised", "context-removed"):
        assert rows["object", condition]["accuracy"] == 1
    assert rows["context", "context-swapped"]["accuracy"] == 0  # the context of the other class
    assert rows["context", "object-removed"]["accuracy"] == 1
    assert rows["context", "context-removed"]["kept"] < 1  # plain colour tells nothing
    assert picture(work, answer, "conditions").shape == picture(work, answer, "maps-0").shape


def test_subsets_are_split_by_the_answer_under_the_condition(work, planted):
    answer = context.answer(ContextSpec(students="both", images=20), work)
    for condition in context.CONDITIONS:
        for id in ("object", "context"):
            rows = {r["subset"]: r for r in table(answer, "context") if r["id"] == id and r["condition"] == condition}
            assert rows["all"]["n"] == rows["correct"]["n"] + rows["incorrect"]["n"] == 20
            assert rows["correct"]["n"] == round(20 * rows["all"]["accuracy"])
            if rows["incorrect"]["n"]:
                assert rows["incorrect"]["accuracy"] == 0


def test_one_image_with_a_painted_mask(work, home):
    mask = np.zeros((64, 64), np.uint8)
    mask[16:40, 16:48] = 255
    name = keep_picture(home, mask)
    answer = context.answer(ContextSpec(students=A, image="test:2", mask=name, images=6), work)
    rows = {r["condition"]: r for r in table(answer, "context") if r["subset"] == "all"}
    assert rows["original"]["n"] == 1 and rows["context-swapped"]["n"] == rows["context-noised"]["n"] == 6
    assert rows["original"]["area"] == pytest.approx(3 * 4 / 64, abs=0.07)
    assert rows["original"]["kept"] == 1 and 0 <= rows["original"]["object_share"] <= 1
    assert any("no masks of the other images" in note for note in answer.notes)
    with pytest.raises(Refused, match="Paint a mask"):
        context.answer(ContextSpec(students=A, image="test:2"), work)
    with pytest.raises(Refused, match="has no masks"):
        context.answer(ContextSpec(students=A), work)
    unknown = ContextSpec(students=A, image=name, mask=name, target="true")
    with pytest.raises(Refused, match="choose the target predicted"):
        context.answer(unknown, work)
    nameless = context.answer(ContextSpec(students=A, image=name, mask=name, images=4), work)
    assert {r["subset"] for r in table(nameless, "context")} == {"all"}
    empty = keep_picture(home, np.zeros((64, 64), np.uint8))
    with pytest.raises(Refused, match="must mark an object"):
        context.answer(ContextSpec(students=A, image="test:2", mask=empty), work)


def test_conditions_change_what_they_say_and_nothing_else():
    data = load("shapes")
    chosen = torch.tensor([3, 250, 700])
    pixels, masks = data.test_images[chosen].float() / 255, data.masks["test"][chosen].numpy()
    scenes = context.arranged(pixels, masks, data.test_labels[chosen], None, data, seed=1)
    inside = torch.from_numpy(masks).unsqueeze(1).expand_as(pixels)
    assert torch.equal(scenes["original"].pixels, pixels)
    for name in ("context-swapped", "context-noised", "context-removed"):
        assert torch.equal(scenes[name].pixels[inside], pixels[inside])
        assert (scenes[name].pixels[~inside] != pixels[~inside]).float().mean() > 0.9
    removed = scenes["object-removed"].pixels
    beyond = torch.from_numpy(np.stack([~context.ndimage.binary_dilation(m) for m in masks])).unsqueeze(1)
    assert torch.equal(removed[beyond.expand_as(pixels)], pixels[beyond.expand_as(pixels)])
    assert (removed[inside] - pixels[inside]).abs().mean() > 0.1


def test_context_can_be_cancelled(work, planted):
    def tell(fraction, sentence):
        if fraction > 0.3:
            raise Cancelled

    with pytest.raises(Cancelled):
        context.answer(ContextSpec(students="both", images=20), Work(work.store, work.folder, tell))


@pytest.mark.parametrize("probe", [probe.id for probe in ATTRIBUTION])
def test_the_command_line_asks_every_probe(work, capsys, probe):
    """Every flag reaches its probe, whose sentence comes back."""
    more = ["--run", SET] if probe == "distilled-view" else []
    assert main(["probe", probe, "--students", "student-nobody,student-none", *more]) == 2
    said = capsys.readouterr().err
    assert "no trained student" in said or "one student" in said
    assert "inside" not in said
