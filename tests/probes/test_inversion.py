"""Gradient inversion: the label exactly, the image nearly."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from engine.data import load
from engine.probes.answerer import work_out
from engine.probes.applications.inversion import gradient_of, label_of, ssim, victim
from engine.probes.applications.specs import InversionSpec
from engine.probes.desk import Desk
from engine.runs.store import Store


@pytest.mark.parametrize("network", ["lenet-sigmoid", "convnet"])
def test_the_label_is_read_off_the_gradient_of_every_image(network):
    data = load("digits")
    victims = victim(network, data.channels, data.size, 10, 0)
    for i in range(20):
        label = data.test_labels[i : i + 1]
        assert label_of(gradient_of(victims, data.normalise(data.test_images[i : i + 1]), label)) == int(label)


def test_ssim_is_one_for_equal_images_and_matches_the_formula():
    a = torch.rand(1, 1, 11, 11, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    b = (a + 0.2 * torch.rand(a.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1))).clamp(0, 1)
    assert float(ssim(a, a)) == pytest.approx(1)
    at = torch.arange(11.0) - 5
    window = torch.exp(-(at[:, None] ** 2 + at[None] ** 2) / 4.5).double()
    window /= window.sum()
    ma, mb = (window * a).sum(), (window * b).sum()
    va, vb, both = (window * (a - ma) ** 2).sum(), (window * (b - mb) ** 2).sum(), (window * (a - ma) * (b - mb)).sum()
    wanted = (2 * ma * mb + 1e-4) * (2 * both + 9e-4) / ((ma**2 + mb**2 + 1e-4) * (va + vb + 9e-4))
    assert float(ssim(a, b)) == pytest.approx(float(wanted), rel=1e-6)
    assert float(ssim(a, 1 - a)) < 0.2 and float(F.mse_loss(a, a)) == 0


@pytest.mark.slow
def test_an_image_is_recovered_from_its_gradient_and_noise_prevents_it(home):
    desk, store = Desk(home), Store(home)
    bare = work_out(desk, store, desk.ask("inversion", InversionSpec(dataset="digits", steps=60)))
    assert bare.facts["read"] == bare.facts["label"] and bare.facts["ssim"] > 0.8
    assert bare.tables["curve"][-1]["distance"] < bare.tables["curve"][0]["distance"] / 1000
    guarded = work_out(desk, store, desk.ask("inversion", InversionSpec(dataset="digits", steps=30, noise=3, starts=1)))
    assert guarded.facts["ssim"] < bare.facts["ssim"] - 0.3


def test_an_image_that_is_not_there_is_refused(home):
    desk, store = Desk(home), Store(home)
    assert "no 9,999" in work_out(desk, store, desk.ask("inversion", InversionSpec(dataset="digits", image=9999)))
