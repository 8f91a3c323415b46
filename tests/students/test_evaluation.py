import json
import statistics
from dataclasses import replace

import pytest
import torch

from engine.accel import Accel
from engine.errors import Refused
from engine.students import evaluate, evaluate_slices
from engine.students.evaluation import Real
from engine.synthetic import fit_zca
from tests.students.conftest import make_data, make_set


def test_quick_beats_chance_and_reports_its_seeds(data, cpu):
    result = evaluate(make_set(data, 10), data, "quick", seeds=2, seed=3, accel=cpu)
    assert result.mean > 0.7 and result.seeds == [3, 4] and len(result.accuracies) == 2
    assert result.mean == pytest.approx(statistics.fmean(result.accuracies))
    assert result.std == pytest.approx(statistics.pstdev(result.accuracies))
    assert (result.protocol, result.network, result.split, result.images) == ("quick", "convnet", "test", 60)
    assert result.seconds > 0 and json.loads(json.dumps(result.to_dict()))["seeds"] == [3, 4]


def test_accuracies_are_those_of_the_seeds_alone(data, cpu):
    synthetic = make_set(data)
    both = evaluate(synthetic, data, "quick", seeds=2, accel=cpu)
    alone = [evaluate(synthetic, data, "quick", seeds=1, seed=s, accel=cpu).mean for s in (0, 1)]
    assert both.accuracies == alone


def test_slices_grow_to_one_and_leave_the_global_generator_alone(data, cpu):
    torch.manual_seed(1)
    before = torch.random.get_rng_state()
    slices = evaluate_slices(make_set(data), data, "quick", seeds=2, accel=cpu)
    fractions = list(slices)
    assert torch.equal(before, torch.random.get_rng_state())
    assert len(fractions) > 80 and fractions == sorted(fractions)
    assert 0 < fractions[0] < 0.05 and fractions[-1] == pytest.approx(1)


def test_drawing_elsewhere_between_slices_changes_nothing(data, cpu):
    synthetic = make_set(data)
    expected = evaluate(synthetic, data, "quick", seeds=1, accel=cpu)
    slices = evaluate_slices(synthetic, data, "quick", seeds=1, accel=cpu)
    while True:
        torch.rand(3)
        try:
            next(slices)
        except StopIteration as end:
            assert end.value.accuracies == expected.accuracies
            break


def test_deterministic_evaluations_are_equal(data):
    accel = Accel(torch.device("cpu"), compile=True, deterministic=True)
    first, again = (evaluate(make_set(data), data, "quick", seeds=2, accel=accel) for _ in range(2))
    assert first.accuracies == again.accuracies


def test_held_out_and_limit(cpu):
    data = make_data(count=300)
    held = evaluate(make_set(data), data, "quick", seeds=1, accel=cpu, split="held-out")
    assert held.split == "held-out" and held.images == len(data.held_out) == 30
    few = evaluate(make_set(data), data, "quick", seeds=1, accel=cpu, limit=7)
    assert few.images == 7 and few.mean * 7 == pytest.approx(round(few.mean * 7))


def test_soft_labels(data, cpu):
    synthetic = make_set(data, 10)
    hot = torch.nn.functional.one_hot(synthetic.labels, 3).float()
    probabilities = replace(synthetic, labels=0.9 * hot + 0.1 / 3)
    centred = replace(synthetic, labels=(hot - 1 / 3) / 0.3**0.5)
    for soft in (probabilities, centred):
        assert evaluate(soft, data, "quick", seeds=1, accel=cpu).mean > 0.6


def test_whitened_sets_see_whitened_test_images(data, cpu):
    zca = fit_zca(data.normalise(data.train_images), ratio=10)
    synthetic = make_set(data, 10)
    whitened = replace(synthetic, images=zca.whiten(synthetic.images), zca=zca)
    real = Real(whitened, data, "test", None, cpu)
    batches = [real.batch(i) for i in range(real.batches)]
    assert torch.allclose(torch.cat([images for images, _ in batches]), whitened.prepare(data.test_images), atol=1e-5)
    assert torch.equal(torch.cat([labels for _, labels in batches]), data.test_labels)
    assert real.batch(0)[0] is batches[0][0]  # whitened once
    assert evaluate(whitened, data, "quick", seeds=2, accel=cpu).mean > 0.6


def test_progress_is_told(data, cpu):
    seen = []
    evaluate(make_set(data), data, "quick", seeds=1, accel=cpu, progress=seen.append)
    assert seen == sorted(seen) and seen[-1] == pytest.approx(1)


def test_refusals(data, cpu):
    with pytest.raises(Refused, match="at least one"):
        evaluate(make_set(data), data, "quick", seeds=0, accel=cpu)
    with pytest.raises(Refused, match="test or held-out"):
        evaluate(make_set(data), data, "quick", accel=cpu, split="train")
