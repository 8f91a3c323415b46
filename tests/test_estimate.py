"""What a run is said to need before it starts."""

import pytest

from engine import estimate as module
from engine.errors import Refused
from engine.estimate import estimate
from engine.methods import METHODS
from engine.runs.validate import check
from engine.spec import build_spec


@pytest.mark.parametrize("method", METHODS)
def test_every_method_says_what_it_needs_and_more_images_need_more(method, monkeypatch):
    monkeypatch.setattr(module, "machine_memory", lambda: 5e9)  # too little for the activations of many steps

    def needed(**values):
        return estimate(build_spec("distill", dataset="cifar10", method=method, **values)).memory

    assert 0.5e9 < needed(ipc=10) < 8e9
    assert needed(ipc=100) > needed(ipc=10)


def test_activations_of_all_steps_are_kept_where_there_is_memory_for_them(monkeypatch):
    spec = build_spec("distill", dataset="cifar10", method="mtt", ipc=10)
    needed = {}
    for memory in (8e9, 64e9):
        monkeypatch.setattr(module, "machine_memory", lambda memory=memory: memory)
        needed[module.keeps_path(spec)] = estimate(spec).memory
        check(spec)  # either way it fits
    assert 3 * needed[False] < needed[True] < 0.9 * 64e9


def test_a_run_that_cannot_fit_is_refused_with_what_to_do(monkeypatch):
    spec = build_spec("distill", dataset="digits", method="dc", ipc=50)
    check(spec)
    monkeypatch.setattr(module, "machine_memory", lambda: 2e9)
    with pytest.raises(Refused, match=r"would need about \d\.\d GB.*has 2\.0 GB.*Choose fewer images per class"):
        check(spec)


def test_more_real_images_at_once_than_there_are_is_refused_but_a_default_is_not():
    check(build_spec("distill", dataset="digits", method="frepo"))
    with pytest.raises(Refused, match="batch_real.*was 5000, but"):
        check(build_spec("distill", dataset="digits", method="frepo", batch_real=5000))


def test_students_take_longer_under_a_longer_protocol():
    def seconds(**values):
        return estimate(build_spec("distill", dataset="cifar10", method="dm", ipc=10, **values)).students

    assert seconds(protocol="dc") < seconds(protocol="dsa")
    assert seconds(students=0) is None
