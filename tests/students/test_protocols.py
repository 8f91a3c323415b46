import math
import subprocess
import sys
from dataclasses import replace

import pytest

from engine.spec import PROTOCOLS as PROTOCOL_NAMES
from engine.students import PROTOCOLS
from engine.students.protocols import protocol_for


def test_they_load_without_torch():
    code = "import sys, engine.students; assert engine.students.PROTOCOLS; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_dc_and_dsa_drop_the_rate_after_half_of_the_epochs():
    for name, epochs in (("dc", 300), ("dsa", 1000)):
        protocol = PROTOCOLS[name]
        assert protocol.step_count(10) == epochs and protocol.step_count(500) == 2 * epochs
        rates = protocol.rates(500)
        half = 2 * (epochs // 2 + 1)
        assert protocol.restart(500) == half
        assert set(rates[:half]) == {0.01} and set(rates[half:]) == {0.001} and len(rates) == 2 * epochs


def test_frepo_warms_up_and_falls_to_zero():
    protocol = PROTOCOLS["frepo"]
    assert [protocol.step_count(n) for n in (1, 10, 100, 500, 5000)] == [1000, 1000, 2000, 5000, 5000]
    assert 1000 < protocol.step_count(50) < 2000 < protocol.step_count(200) < 5000
    rates = protocol.rates(10)
    assert len(rates) == 1000 and rates[0] == pytest.approx(3e-4 / 500) and rates[499] == rates[500] == 3e-4
    assert all(a < b for a, b in zip(rates[:499], rates[1:500], strict=True))
    assert all(a > b for a, b in zip(rates[500:], rates[501:], strict=False)) and 0 < rates[-1] < 1e-8
    assert protocol.restart(10) is None


def test_steps_are_interpolated_on_logarithmic_scales():
    protocol = replace(PROTOCOLS["frepo"], steps=((10, 100), (1000, 400)))
    assert [protocol.step_count(n) for n in (10, 100, 1000)] == [100, 200, 400]
    assert protocol.step_count(200) == round(100 * 4 ** (math.log(20) / math.log(100)))


def test_networks_that_plain_sgd_hardly_trains_get_another_rate():
    scores, tokens = (protocol_for("dc", "cifar10", network) for network in ("edge-popup", "vit"))
    assert (scores.optimiser, scores.rate) == ("sgd", pytest.approx(0.1))
    assert (tokens.optimiser, tokens.rate, tokens.weight_decay) == ("adam", 1e-3, 0.0)
    assert protocol_for("frepo", "cifar10", "vit").rate == 3e-4  # which is Adam's already
    assert [protocol_for("full", "cifar10", network).rate for network in ("convnet", "lenet")] == [0.05, 0.02]


def test_mtt_trains_at_the_rate_the_set_has_learned():
    assert protocol_for("mtt", "cifar10").rates(10)[0] == 0.01
    chosen = protocol_for("mtt", "cifar10", rate=0.04)
    assert chosen.rates(10) == [0.04] * 501 + [pytest.approx(0.004)] * 499
    assert chosen.epochs == 1000 and chosen.augment == "dsa" and chosen.batch == 256
    assert protocol_for("dsa", "cifar10", rate=0.04) is PROTOCOLS["dsa"]


def test_rat_keeps_its_rate():
    protocol = PROTOCOLS["rat"]
    assert protocol.rates(100) == [1e-3] * 300 and protocol.restart(100) is None


def test_every_protocol_names_itself():
    assert list(PROTOCOLS) == list(PROTOCOL_NAMES)
    for name, protocol in PROTOCOLS.items():
        assert protocol.name == name and protocol.title and protocol.description.endswith(".")


def test_dc_augments_characters_only():
    assert protocol_for("dc", "mnist").epochs == 1000 and protocol_for("dc", "mnist").augment == "dc"
    assert protocol_for("dc", "cifar10").epochs == 300 and protocol_for("dc", "cifar10").augment is None
    assert protocol_for("dsa", "mnist") is PROTOCOLS["dsa"]


def test_quick_takes_frepos_kind_of_network_for_learned_labels_only():
    learned = protocol_for("quick", "cifar10", learned=True)
    assert learned.network == "convnet-wide" and learned.width < 128 and learned.optimiser == "adam"
    assert protocol_for("quick", "cifar10") is PROTOCOLS["quick"]
    assert protocol_for("frepo", "cifar10", learned=True) is PROTOCOLS["frepo"]
