"""Several pictures in one image: decoding and composing, on disk, in students, in the methods that learn them."""

import dataclasses
import json

import pytest
import torch
import torch.nn.functional as F

from engine.accel import pick_accel
from engine.data.base import Dataset
from engine.distill import make_distiller
from engine.errors import Refused
from engine.exchange import export_pt, import_pt
from engine.formation import compose, decode
from engine.runs.validate import check_class_size
from engine.spec import build_spec
from engine.students.train import make_plan
from engine.synthetic import SyntheticSet, fit_zca, load_synthetic


def noise(n, channels=1, size=12, seed=0):
    return torch.randn(n, channels, size, size, generator=torch.Generator().manual_seed(seed))


@pytest.fixture
def data():
    """Three classes of 12×12 noise of different brightness, in class order every third image."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(240) % 3
    images = (torch.randint(0, 90, (240, 1, 12, 12), generator=generator) + 80 * labels.view(-1, 1, 1, 1)).byte()
    return Dataset("tiny", "Tiny", tuple("abc"), images, labels, images[:30], labels[:30], (0.5,), (0.3,))


def make(data, factor, **more):
    images, labels = noise(6), torch.arange(3).repeat_interleave(2)
    return SyntheticSet(images, labels, "tiny", data.classes, data.mean, data.std, factor=factor, **more)


# ---- decoding -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("size", "factor"), [(32, 2), (28, 2), (32, 3), (28, 3)])
def test_decoding_cuts_out_every_part_and_stretches_it_bilinearly(size, factor):
    images = noise(2, 3, size).double()
    edges = [0, *(round(i * size / factor) for i in range(1, factor)), size]
    made = decode(images, factor)
    assert made.shape == (2 * factor**2, 3, size, size)
    for n in range(2):
        for i in range(factor):
            for j in range(factor):
                part = images[n : n + 1, :, edges[i] : edges[i + 1], edges[j] : edges[j + 1]]
                expected = F.interpolate(part, (size, size), mode="bilinear", align_corners=False)
                torch.testing.assert_close(made[n * factor**2 + i * factor + j], expected[0])


def test_decoding_has_the_right_gradient():
    images = noise(1, 1, 7).double().requires_grad_()
    assert torch.autograd.gradcheck(lambda x: decode(x, 2), images)


@pytest.mark.parametrize("factor", [1, 2, 3])
def test_constant_parts_survive_the_way_there_and_back(factor):
    values = torch.arange(2.0 * factor**2)
    pictures = values.view(-1, 1, 1, 1).expand(-1, 3, 13, 13).contiguous()
    stored = compose(pictures, factor)
    assert stored.shape == (2, 3, 13, 13)
    torch.testing.assert_close(decode(stored, factor), pictures)
    torch.testing.assert_close(compose(decode(stored, factor), factor), stored)


# ---- sets -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("soft", [False, True])
def test_a_set_keeps_its_factor_and_its_labels_go_with_the_pictures(tmp_path, data, soft):
    first = make(data, 2)
    if soft:
        first = dataclasses.replace(first, labels=torch.rand(6, 3))
    again = load_synthetic(first.save(tmp_path))
    assert again.factor == 2 and torch.equal(again.images, first.images)
    decoded = again.decoded()
    assert decoded.factor == 1 and torch.equal(decoded.images, decode(first.images, 2))
    assert all(torch.equal(decoded.labels[4 * n + k], first.labels[n]) for n in range(6) for k in range(4))
    assert make(data, 1).decoded().images.shape == (6, 1, 12, 12)


def test_sets_written_before_there_were_factors_are_read(tmp_path, data):
    make(data, 1).save(tmp_path)
    path = tmp_path / "synthetic.json"
    path.write_text(json.dumps({k: v for k, v in json.loads(path.read_text()).items() if k != "factor"}))
    assert load_synthetic(tmp_path).factor == 1


@pytest.mark.parametrize("factor", [0, 4, -1, 1.0, "2", None, True, [2], 10**9])
def test_damaged_factors_are_refused(tmp_path, data, factor):
    make(data, 1).save(tmp_path)
    path = tmp_path / "synthetic.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "factor": factor}))
    with pytest.raises(Refused):
        load_synthetic(tmp_path)


def test_sets_that_cannot_be_decoded_are_refused(data):
    with pytest.raises(Refused, match="at most 20,000"):
        dataclasses.replace(make(data, 1), images=torch.zeros(2400, 1, 8, 8), labels=torch.arange(2400) % 3, factor=3)
    with pytest.raises(Refused, match="square"):
        dataclasses.replace(make(data, 1), images=torch.zeros(6, 1, 8, 12), factor=2)
    with pytest.raises(Refused, match="step sizes"):
        dataclasses.replace(make(data, 2), step_sizes=torch.ones(2))


def test_whitened_sets_are_shown_picture_by_picture(data):
    """Whitening is of whole pictures: what is shown of a stored image is what its decoded pictures look like."""
    pictures = data.normalise(data.train_images[:24])
    zca = fit_zca(data.normalise(data.train_images))
    plain = make(data, 2)
    plain = dataclasses.replace(plain, images=compose(pictures, 2))
    whitened = dataclasses.replace(plain, images=compose(zca.whiten(pictures), 2), zca=zca)
    shown = compose(whitened.decoded().pixels(), 2)
    assert (whitened.pixels() - shown).abs().max() < 0.1  # but for values cut off at 0 and 1 before shrinking
    assert whitened.to_display().shape == plain.to_display().shape == (6, 1, 12, 12)


def test_students_see_every_picture(data):
    plan = make_plan(make(data, 2), data, "quick", accel=pick_accel("cpu", compile=False))
    torch.testing.assert_close(plan.images.contiguous(), decode(noise(6), 2))
    assert plan.targets.tolist() == [0] * 8 + [1] * 8 + [2] * 8


def test_the_papers_code_gets_every_picture(tmp_path, data):
    export_pt(make(data, 2), tmp_path / "set.pt")
    back = import_pt(tmp_path / "set.pt", dataset=data)
    torch.testing.assert_close(back.images, decode(noise(6), 2))
    assert back.factor == 1 and back.hard_labels.tolist() == [0] * 8 + [1] * 8 + [2] * 8


# ---- methods --------------------------------------------------------------------------------------------------------


def start(data, method, **values):
    distiller = make_distiller(method)
    spec = {"dataset": "tiny", "width": 8, "depth": 2, "batch_real": 16, "deterministic": True, "ipc": 2, "factor": 2}
    spec = build_spec("distill", method=method, **{**spec, **values})
    distiller.setup(spec, data, pick_accel("cpu", True))
    return distiller


@pytest.mark.parametrize("init", ["real", "mean", "kmeans", "noise"])
def test_initial_images_are_composed_of_pictures_of_their_class(home, data, init):
    made = start(data, "dm", init=init).synthetic()
    assert made.factor == 2 and made.images.shape == (6, 1, 12, 12) and made.labels.tolist() == [0, 0, 1, 1, 2, 2]
    if init != "noise":  # each class is brighter than the one before, in every part
        brightness = made.decoded().images.mean((1, 2, 3)).view(3, 8)
        assert (brightness[1:].amin(1) > brightness[:-1].amax(1)).all()
    if init == "real":
        own = data.normalise(data.train_images[data.distil_indices])
        shrunk = F.interpolate(own, (6, 6), mode="bilinear", antialias=True)
        for part in (made.images[0, :, :6, :6], made.images[5, :, 6:, :6]):
            assert (shrunk - part).abs().amax((1, 2, 3)).min() < 1e-5


@pytest.mark.parametrize(
    ("method", "values"),
    [
        ("dm", {}),
        ("datadam", {"lr_img": 0.2}),
        ("dsa", {"ipc": 1}),
        ("dsa", {"inner_loop": 1}),
        ("frepo", {"lr_img": 0.01}),
    ],
)
def test_every_part_of_an_image_learns(home, data, method, values):
    distiller = start(data, method, **values)
    before = distiller.synthetic().decoded().images
    for _ in range(6):
        distiller.step()
    moved = (distiller.synthetic().decoded().images - before).abs().amax((1, 2, 3))
    assert len(moved) == 12 * distiller.spec.ipc and (moved > 0).all()


def test_more_pictures_than_a_class_has_are_refused(home, data):
    with pytest.raises(Refused, match="19 images per class, of 4 pictures each"):
        start(data, "dm", ipc=19)
    spec = build_spec("distill", dataset="digits", method="dsa", ipc=5, factor=3)
    with pytest.raises(Refused, match="9 pictures each.*choose 4 or fewer"):
        check_class_size(spec, 40, "Tiny")
    check_class_size(spec, 45, "Tiny")


@pytest.mark.parametrize("method", ["dd", "rat", "mtt"])
def test_methods_that_cannot_hold_several_pictures_say_so(method):
    with pytest.raises(Refused, match="factor"):
        build_spec("distill", dataset="digits", method=method, factor=2)
