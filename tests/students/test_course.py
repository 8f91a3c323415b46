"""The protocol dd: students take the steps that a set was made for, from where it says, and nothing else."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch.func import functional_call

from engine.distill.pretrained import fresh
from engine.errors import Refused
from engine.networks import make_network
from engine.runs.validate import check
from engine.spec import build_spec
from engine.students import evaluate, train_student
from engine.students.fit import shortened
from engine.students.train import make_plan, make_real_plan
from engine.synthetic import Start, load_synthetic
from tests.students.conftest import make_data, make_set

SIZES = torch.tensor([0.3, 0.05, 0.2, 0.4, 0.1, 0.02])
BUILD = {"name": "convnet", "channels": 1, "size": 8, "classes": 3, "width": 8, "depth": 2}


def weights(seed=4):
    return {k: w.clone() for k, w in make_network(**BUILD, seed=seed).state_dict().items()}


@pytest.fixture
def fixed(data):
    start = Start("fixed", "convnet", 8, 2, weights=weights())
    return make_set(data, 4, kind="distilled", protocol="dd", step_sizes=SIZES, turns=2, start=start)


@pytest.fixture
def free(fixed):
    return replace(fixed, start=Start("random", "convnet", 8, 2))


def plain(synthetic, begin):
    """The steps, written out."""
    network = make_network(**BUILD)
    for t, size in enumerate(synthetic.step_sizes.tolist()):
        seen = [n for n in range(len(synthetic.images)) if n % synthetic.turns == t % synthetic.turns]
        now = {k: w.clone().requires_grad_() for k, w in begin.items()}
        loss = F.cross_entropy(functional_call(network, now, (synthetic.images[seen],)), synthetic.labels[seen])
        slopes = torch.autograd.grad(loss, list(now.values()))
        begin = {k: w.detach() - size * g for (k, w), g in zip(now.items(), slopes, strict=True)}
    return begin


def test_a_student_takes_exactly_the_learned_steps_from_the_very_weights(data, cpu, fixed, tmp_path):
    expected = plain(fixed, weights())
    for synthetic in (fixed, load_synthetic(fixed.save(tmp_path / "set"))):
        for seed in (0, 7):
            student = train_student(synthetic, data, "dd", seed=seed, accel=cpu)
            torch.testing.assert_close(dict(student.named_parameters()), expected, rtol=1e-4, atol=1e-6)


def test_students_of_a_set_for_any_network_begin_freshly_initialised(data, cpu, free):
    for seed in (0, 1):
        begin = {k: w.detach() for k, w in fresh(BUILD, seed).named_parameters()}
        student = train_student(free, data, "dd", seed=seed, accel=cpu)
        torch.testing.assert_close(dict(student.named_parameters()), plain(free, begin), rtol=1e-4, atol=1e-6)


def test_students_of_a_set_for_pretrained_networks_have_learned_before(home, data, cpu, free):
    untaught = replace(free, step_sizes=torch.tensor([1e-8]))
    taught = replace(untaught, start=Start("random-pretrained", "convnet", 8, 2, data.name, 60))
    knowing, blank = (evaluate(s, data, "dd", seeds=1, accel=cpu).mean for s in (taught, untaught))
    assert knowing > 0.8 > blank


def test_it_is_measured_with_one_student_where_all_would_be_the_same(data, cpu, fixed, free):
    free = replace(free, step_sizes=SIZES[:1])
    one, three = evaluate(fixed, data, "dd", seeds=3, accel=cpu), evaluate(free, data, "dd", seeds=3, accel=cpu)
    assert (one.seeds, one.std, one.protocol, one.network) == ([0], 0.0, "dd", "convnet")
    assert three.seeds == [0, 1, 2] and len(set(three.accuracies)) > 1


def test_other_protocols_ignore_the_step_sizes(data, cpu, fixed):
    bare = replace(fixed, step_sizes=None, start=None, turns=1)
    first, second = (evaluate(s, data, "quick", seeds=1, accel=cpu).accuracies for s in (fixed, bare))
    assert first == second


def test_an_ensemble_follows_the_course_as_each_alone_does(data, cpu, free):
    from engine.students.train import train_slices

    plan = make_plan(free, data, "dd", accel=cpu)

    def finish(seeds):
        slices = train_slices(plan, seeds)
        while True:
            try:
                next(slices)
            except StopIteration as end:
                return end.value.parameters

    together = finish([3, 4])
    for i, seed in enumerate((3, 4)):
        alone = finish([seed])
        torch.testing.assert_close({k: p[i] for k, p in together.items()}, alone, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("network", "exact"), [("mlp", True), ("convnet", False)])
def test_small_networks_take_their_steps_in_full_precision(cpu, free, network, exact):
    plan = make_plan(free, make_data(), "dd", network, replace(cpu, bf16=True))
    assert plan.accel.bf16 is not exact


def test_what_cannot_be_followed_is_refused(data, cpu, fixed):
    bare = make_set(data)
    for synthetic in (bare, replace(fixed, start=None), replace(fixed, step_sizes=None)):
        with pytest.raises(Refused, match="learned step sizes, and this set has none"):
            make_plan(synthetic, data, "dd", accel=cpu)
    with pytest.raises(Refused, match="one convnet of width 8, depth 2"):
        make_plan(fixed, data, "dd", "mlp", cpu)
    with pytest.raises(Refused, match="choose that network"):
        plan = replace(make_plan(fixed, data, "dd", accel=cpu), width=16)
        plan.make(0)
    with pytest.raises(Refused, match="Real images have no step sizes"):
        make_real_plan(data.train_images, data.train_labels, data, "dd", "mlp", cpu)
    with pytest.raises(Refused, match="number of epochs"):
        shortened(make_plan(fixed, data, "dd", accel=cpu), epochs=3)


def test_another_network_may_follow_a_set_for_any(cpu, free):
    data = make_data()
    assert evaluate(free, data, "dd", network="mlp", seeds=1, accel=cpu).network == "mlp"


@pytest.mark.parametrize(("kind", "values"), [
    ("distill", {"method": "dm", "protocol": "dd"}),
    ("baseline", {"kind": "random", "protocol": "dd"}),
])  # fmt: skip
def test_runs_that_will_have_no_step_sizes_are_refused_before_they_start(kind, values):
    with pytest.raises(Refused, match="learned step sizes"):
        check(build_spec(kind, dataset="digits", **values))
