import pytest
import torch

from engine.errors import Refused
from engine.networks import make_network, parameter_count
from engine.runs.validate import check
from engine.spec import build_spec
from engine.students import PROTOCOLS, evaluate
from engine.students.architecture import TABLE, Architecture, architecture_of, columns, parse
from tests.students.conftest import make_set


@pytest.mark.parametrize("name", [*TABLE, "convnet-wide-w64", "edge-popup-w32-d2", "convnet-w64-d4-bn", "vit"])
def test_names_and_back(name):
    assert parse(name).label == name


@pytest.mark.parametrize("name", ["", "convnett", "convnet-x", "lenet-w64", "convnet-w4", "convnet-d9", "mlp-bn"])
def test_what_is_no_network_is_refused(name):
    with pytest.raises(Refused):
        parse(name)


def test_what_the_protocol_has_anyway_is_left_out():
    assert parse("convnet-w128-d3-in").under(PROTOCOLS["dc"]).label == "convnet"
    assert parse("convnet-w128-d3-in").under(PROTOCOLS["quick"]).label == "convnet-w128"
    assert "convnet-w32" in columns("dc") and "convnet-w32" not in columns("quick")
    assert "convnet-w128" in columns("quick") and len(columns("dc")) == len(columns("quick")) == len(TABLE) - 1


def test_spec_to_architecture():
    assert architecture_of(build_spec("evaluate", source="x")) is None
    asked = build_spec("evaluate", source="x", protocol="dc", depth=4, norm="batch")
    assert architecture_of(asked) == Architecture("convnet", None, 4, "batch")
    with pytest.raises(Refused, match="depth of lenet is fixed"):
        check(build_spec("evaluate", source="x", network="lenet", depth=4))


@pytest.mark.parametrize(
    ("norm", "more"),  # than without normalisation; (C, H, W) each with scale and shift for layer, C each for others
    [("none", 0), ("instance", 3 * 2 * 16), ("batch", 3 * 2 * 16), ("layer", 2 * 16 * (32**2 + 16**2 + 8**2))],
)
def test_parameters_of_each_norm(norm, more):
    network = make_network("convnet", 3, 32, 10, 16, norm=norm)
    assert parameter_count(network) - parameter_count(make_network("convnet", 3, 32, 10, 16, norm="none")) == more
    assert network(torch.zeros(2, 3, 32, 32)).shape == (2, 10)
    assert make_network("convnet", 1, 28, 10, 16, norm=norm)(torch.zeros(2, 1, 28, 28)).shape == (2, 10)


@pytest.mark.parametrize("name", ["convnet-w8-d1", "convnet-w8-d2-bn", "convnet-w8-d2-ln", "convnet-w16-d2-nn"])
def test_sized_students_learn_and_their_accuracy_carries_the_name(name, data, cpu):
    network = parse(name)
    found = evaluate(
        make_set(data, 10), data, "quick", network=network.network, seeds=1, accel=cpu, adjust=network.applied
    )
    assert found.network == name and found.mean > 0.5
