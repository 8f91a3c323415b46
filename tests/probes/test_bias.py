"""Texture or shape: styles against their formulas, stimuli against their files, students whose truth is known."""

import json
import os
import zipfile
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from engine.accel import Accel
from engine.data import load
from engine.data.catalogue import SHAPES
from engine.data.shapes import load as load_shapes
from engine.data.shapes import make_shapes
from engine.data.stylise import (
    adain,
    edges,
    fourier,
    gram,
    greyscale,
    partners,
    shuffle_patches,
    silhouettes,
    stylised,
    textures,
    to_bytes,
    transfer,
)
from engine.errors import Refused
from engine.networks import make_network
from engine.probes.answerer import Work
from engine.probes.bias import conflict, consistency, five, study
from engine.probes.bias.measures import shape_bias
from engine.probes.bias.specs import BiasSpec, ConsistencySpec, FiveSpec, StudySpec
from engine.probes.bias.stimuli import decide
from engine.probes.desk import Cancelled
from engine.runs.store import Store
from engine.spec import build_spec
from engine.students.fit import as_student, fit
from engine.students.kept import save_student

CPU = Accel(torch.device("cpu"), bf16=False)


def noise(*shape, seed=0):
    return torch.randint(0, 256, shape, generator=torch.Generator().manual_seed(seed), dtype=torch.uint8)


# ---- styles ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("side", [8, 9])
def test_phase_and_amplitude_are_exchanged_exactly(side):
    images, others = noise(3, 3, side, side), noise(3, 3, side, side, seed=1)
    found = fourier(images, others).numpy()
    phase = np.angle(np.fft.fft2(images.numpy().astype(float)))
    amplitude = np.abs(np.fft.fft2(others.numpy().astype(float)))
    assert np.allclose(found, np.fft.ifft2(amplitude * np.exp(1j * phase)).real, atol=1e-2)
    assert torch.equal(to_bytes(fourier(images, images)), images)


def test_adain_carries_means_and_deviations_and_nothing_else():
    content, style = noise(2, 4, 6, 6).float(), noise(2, 4, 6, 6, seed=1).float() / 3 + 7
    found = adain(content, style)
    assert torch.allclose(found.mean((2, 3)), style.mean((2, 3)), atol=1e-3)
    assert torch.allclose(found.std((2, 3)), style.std((2, 3)), rtol=1e-3)
    rest, before = (x - x.mean((2, 3), keepdim=True) for x in (found, content))
    shared = torch.cosine_similarity(rest.flatten(2), before.flatten(2), dim=2)
    assert torch.allclose(shared, torch.ones(2, 4), atol=1e-4)


def test_gram_by_hand():
    features = torch.tensor([[[[1.0, 2.0]], [[3.0, -1.0]]]])  # two channels, two places
    assert torch.equal(gram(features), torch.tensor([[[2.5, 0.5], [0.5, 5.0]]]))


def test_partners_are_of_another_class_and_every_class_is_as_likely():
    labels = torch.tensor([0] * 900 + [1] * 90 + [2] * 10)
    chosen = labels[partners(labels, 0)]
    assert (chosen != labels).all()
    assert 0.4 < (chosen[:900] == 2).float().mean() < 0.6, "a rare class is chosen as often as a frequent one"
    assert torch.equal(partners(labels, 3), partners(labels, 3))
    with pytest.raises(Refused, match="two classes"):
        partners(torch.zeros(4, dtype=torch.int64), 0)


def teacher():
    torch.manual_seed(0)
    module = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 8, 3, padding=1))
    return as_student(module, load_shapes(), "teacher")


@pytest.mark.parametrize("technique", ["gram", "adain"])
def test_transfer_brings_the_style_nearer_and_no_image_depends_on_its_neighbours(technique):
    made = make_shapes(1, 5, "conflict").images[:4]
    styles, lends = made[[2, 3, 0, 1]], teacher()

    def far(images):
        """How far the statistics of the first features are from those of the style."""
        with torch.no_grad():
            mine, theirs = (lends.module[0](lends.prepare(x)) for x in (images, styles))
        statistic = gram if technique == "gram" else (lambda f: torch.cat([f.mean((2, 3)), f.std((2, 3))], 1))
        return float((statistic(mine) - statistic(theirs)).square().mean())

    moved = transfer(made, styles, lends, technique, 25)
    assert moved.shape == made.shape and moved.dtype == torch.uint8
    assert far(moved) < 0.3 * far(made)
    assert (moved.float() - made.float()).abs().mean() < (styles.float() - made.float()).abs().mean()
    alone = transfer(made[:1], styles[:1], lends, technique, 25)
    assert (alone.float() - moved[:1].float()).abs().mean() < 0.5
    with pytest.raises(Refused, match="convolutions"):
        transfer(made, styles, as_student(nn.Linear(1, 1), load_shapes(), "none"), technique, 1)


def test_textures_are_nearer_to_the_style_than_noise_is():
    styles, lends = make_shapes(1, 5, "texture-only").images[:3], teacher()
    start, made = textures(styles, lends, 0, steps=0), textures(styles, lends, 0, steps=60)
    far = [float((gram(x.float() / 255) - gram(styles.float() / 255)).square().mean()) for x in (start, made)]
    assert far[1] < 0.3 * far[0]


def test_stylised_images_keep_labels_and_need_what_they_need():
    data = load("digits")
    made = stylised(data, "fourier", 0, CPU)
    assert made.shape == data.train_images.shape and made.dtype == torch.uint8
    assert not torch.equal(made, data.train_images)
    assert torch.equal(made, stylised(data, "fourier", 0, CPU))
    with pytest.raises(Refused, match="teacher"):
        stylised(data, "adain", 0, CPU)


def test_what_is_taken_away_is_gone():
    colour, grey = noise(2, 3, 9, 9), noise(2, 1, 9, 9)
    grey_of = greyscale(colour)
    assert torch.equal(grey_of[:, 0], grey_of[:, 2]) and torch.equal(greyscale(grey), grey)
    red = torch.zeros(1, 3, 2, 2, dtype=torch.uint8)
    red[:, 0] = 255
    assert greyscale(red).unique().tolist() == [76]  # 0.299 · 255

    shuffled = shuffle_patches(colour, 3, 0)
    assert torch.equal(shuffled.flatten().sort().values, colour.flatten().sort().values)
    pieces = {colour[0, :, r : r + 3, c : c + 3].numpy().tobytes() for r in (0, 3, 6) for c in (0, 3, 6)}
    assert {shuffled[0, :, r : r + 3, c : c + 3].numpy().tobytes() for r in (0, 3, 6) for c in (0, 3, 6)} == pieces
    assert not torch.equal(shuffled, colour)

    half = torch.zeros(1, 3, 8, 8, dtype=torch.uint8)
    half[..., 4:] = 200
    line = edges(half)
    assert (line[..., 3:5] == 0).all() and (line[..., [0, 1, 6, 7]] == 255).all()
    mask = torch.zeros(1, 4, 4, dtype=torch.bool)
    mask[0, 1, 1] = True
    assert silhouettes(mask, 3)[0, :, 1, 1].tolist() == [0, 0, 0] and silhouettes(mask, 3).sum() == 15 * 3 * 255
    assert silhouettes(mask, 1).sum() == 255


# ---- known truth ----------------------------------------------------------------------------------------------------


def taught(tie, seed=0):
    """The shape bias, on cue conflict, of a small network trained on shapes of one ``tie``."""
    made = make_shapes(100, 5, tie)
    module = fit(made.images, made.labels, load_shapes(), "convnet", seed=seed, steps=150, accel=CPU, width=24)
    stimuli = make_shapes(30, 77, "conflict")
    decisions, _ = decide(as_student(module, load_shapes(), tie), stimuli.images)
    return shape_bias(decisions, stimuli.shapes.numpy(), stimuli.textures.numpy())


@pytest.mark.slow
def test_where_only_texture_predicts_a_student_goes_by_texture():
    found = taught("by-texture")
    assert found.bias < 0.1
    assert found.coverage > 0.6, "it knows what it goes by"


@pytest.mark.slow
def test_where_only_shape_predicts_a_student_goes_by_shape():
    found = taught("independent")
    assert found.bias > 0.9
    assert found.coverage > 0.5, "it knows what it goes by"


# ---- the probes, once each ------------------------------------------------------------------------------------------


@pytest.fixture
def work(home, tmp_path):
    """A place to answer questions in."""
    return Work(Store(home), tmp_path / "answer", lambda fraction, sentence: None)


def keep(store, data, seed=0, kind="full", network="mlp", ipc=None, method=None, accuracy=0.5, run=None, **spec):
    """An untrained student, kept as a run leaves it."""
    wanted = build_spec("student", dataset=data.name, network=network, seed=seed, **spec)
    id = store.submit("student", wanted, pid=os.getpid())
    build = {"name": network, "channels": data.channels, "size": data.size, "classes": len(data.classes), "width": 8}
    facts = {
        "name": f"student {id}", "dataset": data.name, "classes": list(data.classes), "channels": data.channels,
        "size": data.size, "mean": list(data.mean), "std": list(data.std), "network": network, "accuracy": accuracy,
        "protocol": "quick", "seed": seed, "spec": wanted.model_dump(mode="json"),
        "source": {"kind": kind, "text": kind, "run": run, "images": 10 * (ipc or 50), "ipc": ipc, "method": method},
    }  # fmt: skip
    save_student(store.folder(id) / "student", make_network(**build, seed=seed), facts, build)
    store.announce(id, "done", "Done.")
    return id


def test_bias_of_students_on_shapes(work, tmp_path):
    data = load_shapes()
    ids = [keep(work.store, data, seed) for seed in (0, 1)]
    found = conflict.answer(BiasSpec(students=",".join(ids), count=40), work)
    rows = found.tables["observers"]
    assert [row["id"] for row in rows] == ids and len({row["observer"] for row in rows}) == 2
    for row in rows:
        mine = [d for d in found.tables["decisions"] if d["observer"] == row["observer"]]
        assert len(mine) == row["trials"] == 40
        assert sum(d["decision"] == d["shape"] for d in mine) == row["shape"]
        assert sum(d["decision"] == d["texture"] for d in mine) == row["texture"]
        assert all(d["shape"] != d["texture"] and {d["shape"], d["texture"]} <= set(SHAPES) for d in mine)
        by_class = [c for c in found.tables["classes"] if c["observer"] == row["observer"]]
        assert sum(c["shape"] for c in by_class) == row["shape"] and len(by_class) == 10
    (group,) = found.tables["groups"]
    assert group["students"] == 2 and group["low"] <= group["bias"] <= group["high"]
    for example in found.facts["examples"]:
        assert Image.open(tmp_path / "answer" / found.images[example["image"]]).size == (128, 128)
    json.dumps([found.tables, found.facts])
    assert found == conflict.answer(BiasSpec(students=",".join(ids), count=40), work), "the same again"


def test_bias_on_test_images_with_the_amplitudes_of_others(work):
    data = load("digits")
    id = keep(work.store, data)
    found = conflict.answer(BiasSpec(students=id, count=40, seed=1), work)
    assert found.facts["source"] == "fourier" and found.facts["stimuli"] == 40
    assert all(d["shape"] != d["texture"] for d in found.tables["decisions"])
    other = conflict.answer(BiasSpec(students=id, count=40, seed=2), work)
    assert other.tables["decisions"] != found.tables["decisions"]
    with pytest.raises(Refused, match="shapes only"):
        conflict.answer(BiasSpec(students=id, source="shapes"), work)
    with pytest.raises(Refused, match="students of one dataset"):
        conflict.answer(BiasSpec(students=f"{id},{keep(work.store, load_shapes())}"), work)


def test_a_probe_that_is_cancelled_stops(work, tmp_path):
    def told(fraction, sentence):
        if fraction > 0.5:
            raise Cancelled

    id = keep(work.store, load("digits"))
    with pytest.raises(Cancelled):
        conflict.answer(BiasSpec(students=id, count=20), Work(work.store, tmp_path / "answer", told))


def ready(folder, names, decisions=()):
    """A zip of stimuli, and the decisions of one person and one network on them."""
    path = folder / "own.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for name in names:
            file = folder / "one.png"
            Image.fromarray(noise(48, 48, 3, seed=len(name)).numpy()).save(file)
            archive.write(file, f"own/{name}.png")
    rows = ["observer,image,shape,texture,response"]
    for who, responses in decisions:
        rows += [f"{who},{n},x,y,{r}" for n, r in zip(names, responses, strict=True)]
    (folder / "own-decisions.csv").write_text("\n".join(rows) + "\n")
    return str(path)


def as_cifar10():
    """A small dataset with the classes of CIFAR-10."""
    names = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
    return replace(load_shapes(), classes=names)


def test_ready_stimuli_bring_people_and_networks(work, tmp_path):
    names = ["cat1-dog1", "dog1-cat1", "boat1-car1", "car2-boat1", "cat2-cat1", "elephant1-cat1"]
    path = ready(
        tmp_path, names,
        [("subject-01", ["cat", "dog", "boat", "boat", "cat", "cat"]),
         ("subject-02", ["cat", "cat", "boat", "knife", "cat", "cat"]),
         ("resnet50", ["dog", "cat", "car", "car", "cat", "cat"])],
    )  # fmt: skip
    id = keep(work.store, as_cifar10())
    found = conflict.answer(BiasSpec(students=id, source="geirhos", stimuli=path), work)
    assert found.facts["stimuli"] == 4  # neither the one without conflict nor the one of no class
    rows = {row["observer"]: row for row in found.tables["observers"]}
    people, resnet = rows["2 people"], rows["ResNet-50"]
    assert (people["shape"], people["texture"], people["other"]) == (5, 2, 1)
    assert (resnet["shape"], resnet["texture"]) == (1, 3)
    assert any("224" in note for note in found.notes)

    kappa = consistency.answer(ConsistencySpec(students=id, source="geirhos", stimuli=path), work)
    pairs = {(p["first"], p["second"]): p for p in kappa.tables["pairs"]}
    # persons right on 1110 and 1010, the network on 0001: kappa -0.5 and -0.5 by hand; 0.5 among persons
    assert pairs["2 people", "2 people"]["kappa"] == pytest.approx(0.5)
    assert pairs["ResNet-50", "2 people"]["kappa"] == pytest.approx((-3 / 5 - 1 / 2) / 2)
    assert (
        pairs["ResNet-50", "2 people"] | {"first": "2 people", "second": "ResNet-50"} == pairs["2 people", "ResNet-50"]
    )


def test_errors_of_students_on_test_images(work):
    data = load("digits")
    first, second = keep(work.store, data, 0), keep(work.store, data, 1)
    found = consistency.answer(ConsistencySpec(students=f"{first},{second}", source="test", count=100), work)
    observers = found.tables["observers"]
    assert [row["id"] for row in observers] == [first, second]
    pairs = {(p["first"], p["second"]): p for p in found.tables["pairs"]}
    a, b = (row["observer"] for row in observers)
    assert pairs[a, a]["kappa"] == 1.0 and pairs[a, b]["kappa"] == pairs[b, a]["kappa"]
    accuracies = [row["accuracy"] for row in observers]
    expected = np.prod(accuracies) + np.prod([1 - x for x in accuracies])
    assert pairs[a, b]["expected"] == pytest.approx(expected)


@pytest.mark.parametrize("name", ["shapes", "digits"])
def test_five_experiments(work, tmp_path, name):
    data = load(name)
    id = keep(work.store, data)
    found = five.answer(FiveSpec(students=id, count=50), work)
    rows = {row["experiment"]: row for row in found.tables["accuracy"]}
    assert list(rows) == ["original", "greyscale", "silhouette", "edges", "texture"]
    assert all(row["stimuli"] == 50 and row["low"] <= row["accuracy"] <= row["high"] for row in rows.values())
    if name == "digits":
        assert rows["original"]["correct"] == rows["greyscale"]["correct"], "digits are grey already"
    assert set(found.images) == set(rows)
    assert all((tmp_path / "answer" / file).is_file() for file in found.images.values())


# ---- the study ------------------------------------------------------------------------------------------------------


def test_students_that_are_there_answer_the_headline_question(work):
    data = load_shapes()
    ids = [keep(work.store, data, s, "distilled", ipc=1, method="dm", accuracy=0.4, run="set") for s in range(3)]
    ids += [keep(work.store, data, s + 3, "random", ipc=1, accuracy=0.3) for s in range(3)]
    ids += [keep(work.store, data, 6, "distilled", ipc=2, method="dm")]  # of a size that only one side has
    ids += [keep(work.store, data, 7, "random", ipc=1, epsilon=2.0), keep(work.store, data, 8, style="fourier")]
    spec = StudySpec(students=",".join(ids), counts="none", sets="none", count=100)
    found = study.answer(spec, work)
    assert len(found.tables["students"]) == 9
    kinds = [row["kind"] for row in found.tables["conditions"]]
    assert kinds == ["distilled", "random", "distilled", "adversarial", "stylised"]
    (row,) = found.tables["comparisons"]
    assert (row["distilled_students"], row["other_students"], row["distilled_sets"]) == (3, 3, 1)
    assert (row["distilled_accuracy"], row["other_accuracy"]) == pytest.approx((0.4, 0.3))
    biases = {row["condition"]: row["bias"] for row in found.tables["conditions"]}
    first, second = list(biases.values())[:2]
    assert row["difference"] == pytest.approx(first - second) and row["low"] <= row["difference"] <= row["high"]
    assert (
        "as many random real images" in found.facts["headline"][0] and "1 distilled set" in found.facts["headline"][1]
    )
    alone = study.answer(spec.model_copy(update={"students": ids[0]}), work)
    assert alone.tables["comparisons"] == [] and alone.facts["headline"][0].startswith("Not answered yet")


@pytest.mark.slow
def test_a_study_trains_on_few_on_stylised_and_on_distilled_images(work):
    spec = StudySpec(
        dataset="digits", counts="10,all", sets="none", methods="dm", ipc="1", distilling=2, stylised="fourier",
        seeds=2, training=10, width=8, tests=100, count=40,
    )  # fmt: skip
    found = study.answer(spec, work)
    kinds = {row["kind"]: row for row in found.tables["conditions"]}
    assert set(kinds) == {"random", "full", "stylised", "distilled", "distilled-stylised"}
    assert all(row["students"] == 2 for row in found.tables["conditions"])
    assert {row["against"] for row in found.tables["comparisons"]} == {
        "as many random real images", "all training images"
    }  # fmt: skip
    assert all(row["distilled_sets"] == 2 and row["significant"] == 0 for row in found.tables["comparisons"])
    assert "too few students" in found.facts["headline"][0]


@pytest.mark.parametrize(
    ("values", "word"),
    [
        ({"networks": "perceptron"}, "no network"),
        ({"counts": "3"}, "numbers from 10"),
        ({"counts": "none", "sets": "none"}, "nothing to compare"),
        ({"sets": "../x"}, "has no set"),
        ({"methods": "magic"}, "no method"),
        ({"methods": "dm", "ipc": "0"}, "whole numbers from 1"),
        ({"dataset": "digits", "ties": True}, "only known of the dataset shapes"),
    ],
)
def test_studies_that_cannot_be_made_are_refused_at_once(work, values, word):
    with pytest.raises(Refused, match=word):
        study.answer(StudySpec(**{"dataset": "digits", **values}), work)


def test_a_study_that_runs_out_of_time_says_what_is_missing(work):
    spec = StudySpec(dataset="digits", counts="10,20", sets="none", seeds=1, training=10, width=8, tests=100, count=20)
    ticks = iter([0.0, 1.0, 1e6, 1e6, 1e6])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(study, "time", type("Clock", (), {"monotonic": staticmethod(lambda: next(ticks))}))
        found = study.answer(spec, work)
    assert found.facts["missed"] == 1 and len(found.tables["students"]) == 1
    assert any("1 of 2 trainings are missing" in note for note in found.notes)
