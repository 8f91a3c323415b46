"""Labels from a teacher: its softmax at a temperature, through its own preparation, and what is refused."""

from dataclasses import replace

import pytest
import torch

from engine.errors import Refused
from engine.networks import make_network
from engine.students import evaluate
from engine.students.fit import as_student, fit
from engine.students.soften import soften
from engine.synthetic import load_synthetic
from tests.students.conftest import make_set


@pytest.fixture
def untrained(data):
    """A teacher with a normalisation of its own."""
    return as_student(make_network("mlp", 1, 8, 3, seed=1), data, "teacher", mean=[0.5], std=[0.1])


def test_labels_are_the_teachers_softmax_through_its_own_preparation(data, untrained):
    synthetic = make_set(data, 4)
    pixels = (synthetic.images * 0.2 + 0.2).clamp(0, 1)
    logits = untrained.module((pixels - 0.5) / 0.1).detach()
    for temperature in (1.0, 4.0):
        made = soften(synthetic, untrained, temperature)
        assert torch.allclose(made.labels, torch.softmax(logits / temperature, 1), atol=1e-5)
    assert torch.equal(made.images, synthetic.images) and made.kind == synthetic.kind == "random"
    facts = made.provenance["softened"]
    assert facts["teacher"] == untrained.id and facts["temperature"] == 4.0
    assert facts["agreement"] == pytest.approx(float((logits.argmax(1) == synthetic.labels).double().mean()))
    assert synthetic.labels.ndim == 1, "the set it came from stays as it was"


def test_the_set_survives_the_disk_and_students_learn_from_it(data, cpu, tmp_path):
    module = fit(data.train_images, data.train_labels, data, "convnet", seed=0, steps=100, accel=cpu, width=32)
    made = soften(make_set(data, 10), as_student(module, data, "good teacher"))
    again = load_synthetic(made.save(tmp_path / "soft"))
    assert torch.equal(again.labels, made.labels) and again.provenance["softened"]["teacher_name"] == "good teacher"
    assert evaluate(again, data, "quick", seeds=1, accel=cpu).mean > 0.9


def test_a_grid_has_the_mean_of_what_is_seen_in_its_parts(data, untrained):
    grid = replace(make_set(data, 2), factor=2)
    expected = untrained.logits(grid.decoded().pixels()).softmax(1).view(6, 4, 3).mean(1)
    assert torch.allclose(soften(grid, untrained).labels, expected, atol=1e-6)


def test_refusals(data, untrained):
    synthetic = make_set(data)
    with pytest.raises(Refused, match="other classes"):
        soften(replace(synthetic, classes=("a", "b", "c")), untrained)
    with pytest.raises(Refused, match="1×16×16.*1×8×8"):
        soften(synthetic, as_student(untrained.module, data, "large", size=16))
    with pytest.raises(Refused, match="temperature was 0"):
        soften(synthetic, untrained, 0.0)
