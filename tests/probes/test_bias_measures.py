"""Shape bias, intervals and error consistency against numbers worked out by hand, and against those published."""

import math

import numpy as np
import pytest

from engine.errors import Refused
from engine.home import data_folder
from engine.probes.bias import people
from engine.probes.bias.measures import (
    Bias,
    error_consistency,
    interval,
    kappa_interval,
    mean_bias,
    over_students,
    shape_bias,
)

SEVEN = ["airplane", "bird", "boat", "car", "cat", "dog", "truck"]


def test_shape_bias_by_hand():
    shape = np.array([0, 0, 1, 1, 2, 2])
    texture = np.array([1, 1, 0, 2, 0, 2])  # the last has both cues of one class: left out
    decisions = np.array([0, 1, 1, 3, 2, 2])
    found = shape_bias(decisions, shape, texture)
    assert (found.shape, found.texture, found.trials) == (3, 1, 5)
    row = found.row()
    assert row["bias"] == 0.75
    assert row["coverage"] == 0.8
    assert row["shape_accuracy"] == 0.6
    assert row["other"] == 1
    assert row["few"] == 1


def test_nobody_who_decided_for_neither_has_a_bias():
    found = shape_bias(np.array([3, 3]), np.array([0, 1]), np.array([1, 0]))
    assert found.bias is None
    assert found.coverage == 0.0
    assert found.row()["low"] is None


def test_ten_usable_decisions_are_enough_by_hand():
    assert [Bias(shape, 4, 20).row()["few"] for shape in (5, 6)] == [1, 0]


def test_the_mean_bias_by_hand_leaves_out_students_that_decided_for_neither():
    shape = np.array([[1, 1, 1, 0], [1, 0, 0, 0], [0, 0, 0, 0]], bool)
    texture = np.array([[0, 0, 0, 1], [0, 1, 0, 0], [0, 0, 0, 0]], bool)
    assert mean_bias(shape, texture) == pytest.approx((3 / 4 + 1 / 2) / 2)
    assert mean_bias(shape[2:], texture[2:]) is None


def test_kappa_by_hand():
    # 6 both right, 1 + 2 one right, 3 both wrong: observed 0.75, accuracies 7/12 and 8/12
    first = np.array([True] * 6 + [True] + [False] * 2 + [False] * 3)
    second = np.array([True] * 6 + [False] + [True] * 2 + [False] * 3)
    expected = 7 / 12 * 8 / 12 + 5 / 12 * 4 / 12
    found = error_consistency(first, second)
    assert found.observed == pytest.approx(0.75)
    assert found.expected == pytest.approx(expected)
    assert found.kappa == pytest.approx((0.75 - expected) / (1 - expected))
    low, high = kappa_interval(first, second)
    assert low < found.kappa < high <= 1


def test_kappa_of_the_never_wrong_is_not_defined():
    always = np.ones(5, bool)
    assert error_consistency(always, always).kappa is None
    assert error_consistency(np.array([True, False]), np.array([False, True])).kappa == pytest.approx(-1)


def test_bootstrap_interval_is_that_of_a_share():
    """One student, 300 usable decisions: the bootstrap must agree with the binomial interval."""
    hits = np.arange(300) < 90
    low, high = interval(over_students(hits[None], ~hits[None]))
    half = 1.96 * math.sqrt(0.3 * 0.7 / 300)
    assert (low, high) == pytest.approx((0.3 - half, 0.3 + half), abs=0.012)


def test_students_that_differ_widen_the_interval():
    random = np.random.default_rng(0)
    same = random.random((3, 400)) < 0.5
    apart = np.stack([random.random(400) < share for share in (0.2, 0.5, 0.8)])
    width = [np.diff(interval(over_students(h, ~h)))[0] for h in (same, apart)]
    assert width[1] > 2.5 * width[0]
    assert np.array_equal(over_students(same, ~same), over_students(same, ~same))


# ---- the published table ----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def published():
    folder = data_folder()
    if folder is None or not (folder / people.STIMULI).is_file():
        pytest.skip("LIMBECK_DATA has no texture-vs-shape.zip")
    return folder / people.STIMULI


def pooled(observers, categories=people.CATEGORIES):
    """The shape bias of all decisions of some observers together."""
    numbers = {c: i for i, c in enumerate(categories)}
    rows = [
        (numbers.get(response, -1), numbers[found[1]], numbers[found[2]])
        for o in observers
        for image, response in o.responses.items()
        if (found := people._CONFLICT.match(image)) and {found[1], found[2]} <= set(categories)
    ]
    return shape_bias(*(np.array(column) for column in zip(*rows, strict=True)))


def test_people_and_resnet50_as_published(published):
    everybody = people.observers(published)
    crowd = pooled([o for o in everybody if o.person])
    assert (crowd.shape, crowd.texture, crowd.trials) == (9236, 398, 12_000)
    assert f"{crowd.bias:.1%}" == "95.9%"
    resnet = pooled([o for o in everybody if o.name == "ResNet-50"])
    assert (resnet.shape, resnet.texture, resnet.trials) == (162, 572, 1200)
    assert f"{resnet.bias:.1%}" == "22.1%"


def test_the_seven_categories_shared_with_cifar10(published):
    everybody = people.observers(published)
    crowd = pooled([o for o in everybody if o.person], SEVEN)
    assert (crowd.shape, crowd.texture, crowd.trials) == (1541, 83, 2100)
    assert f"{crowd.bias:.1%}" == "94.9%"
    stimuli = people.read_pictures(published, "cue-conflict", SEVEN)
    assert sum(p.shape != p.texture for p in stimuli) == 210
    assert len(people.read_pictures(published, "silhouettes", SEVEN)) == 70
    assert sum(o.person for o in everybody) == 10
    assert len({o.name for o in everybody}) == len(everybody)


# ---- files that are not to be trusted ---------------------------------------------------------------------------


def png(value=128):
    import io

    from PIL import Image

    buffer = io.BytesIO()
    Image.new("RGB", (40, 40), (value, 0, 0)).save(buffer, "PNG")
    return buffer.getvalue()


def zipped(path, files):
    import zipfile

    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return path


def test_names_digits_and_other_classes(tmp_path):
    path = zipped(
        tmp_path / "own.zip",
        {"a/cat12-dog3.png": png(), "a/42_x_cat7-elephant1.png": png(), "a/Dog1-dog2.PNG": png(), "a/readme.txt": b"x"},
    )
    found = people.read_pictures(path, "cue-conflict", ["cat", "dog"])
    assert sorted((p.name, p.shape, p.texture) for p in found) == [
        ("Dog1-dog2", "dog", "dog"),
        ("cat12-dog3", "cat", "dog"),
    ]
    assert found[0].pixels.shape == (40, 40, 3)
    elephant = people.read_pictures(path, "cue-conflict", ["cat", "elephant"])
    assert [(p.shape, p.texture) for p in elephant] == [("cat", "elephant")]


@pytest.mark.parametrize(
    ("files", "word"),
    [
        ({"../cat1-dog1.png": b""}, "leave its folder"),
        ({"x/holiday.png": b""}, "shape1-texture2.png"),
        ({"x/cat1-dog1.png": b"not an image"}, "cannot be read"),
        ({"x/cat1-dog1.png": b"\0" * 5_000_000}, "times its size"),
    ],
)
def test_a_hostile_zip_is_refused(tmp_path, files, word):
    path = zipped(tmp_path / "hostile.zip", files)
    with pytest.raises(Refused, match=word):
        people.read_pictures(path, "cue-conflict", ["cat", "dog"])


def test_no_zip_at_all_is_refused(tmp_path):
    path = tmp_path / "broken.zip"
    path.write_bytes(b"PK\x03\x04 and then nothing")
    with pytest.raises(Refused, match="not a zip"):
        people.read_pictures(path, "cue-conflict", ["cat", "dog"])
    with pytest.raises(Refused, match="no folder"):
        people.stimuli_path(str(tmp_path / "absent"))


def test_a_table_of_other_columns_is_refused(tmp_path):
    (tmp_path / "own-decisions.csv").write_text("who,what\na,b\n")
    with pytest.raises(Refused, match="columns observer"):
        people.observers(tmp_path / "own.zip")
    assert people.observers(tmp_path / "other.zip") == []
