"""Gradient inversion: the label exactly, the image nearly."""

from __future__ import annotations

import json

import pytest
import torch
import torch.nn.functional as F

from engine.cli import main
from engine.data import load
from engine.probes.answerer import work_out
from engine.probes.applications.inversion import ALIKE, gradient_of, invert, label_of, scale_of, ssim, victim
from engine.probes.applications.specs import InversionSpec
from engine.probes.desk import Desk
from engine.runs.store import Store


def asked(home, **values):
    desk = Desk(home)
    return work_out(desk, Store(home), desk.ask("inversion", InversionSpec(dataset="digits", **values)))


@pytest.mark.parametrize("network", ["lenet-sigmoid", "convnet"])
def test_the_label_is_read_off_the_gradient_of_every_image(network):
    data = load("digits")
    victims = victim(network, data.channels, data.size, 10, 0)
    for i in range(20):
        label = data.test_labels[i : i + 1]
        gradient = gradient_of(victims, data.normalise(data.test_images[i : i + 1]), label)
        assert label_of(gradient) == int(label)
        assert int((gradient[-1] < 0).sum()) == 1, "that of the true class alone is negative"


def test_the_label_is_read_off_the_mean_gradient_of_images_of_one_class():
    data = load("digits")
    victims = victim("lenet-sigmoid", data.channels, data.size, 10, 0)
    chosen = torch.nonzero(data.test_labels == 7).flatten()[:8]
    gradient = gradient_of(victims, data.normalise(data.test_images[chosen]), data.test_labels[chosen])
    each = [
        gradient_of(victims, data.normalise(data.test_images[i : i + 1]), data.test_labels[i : i + 1]) for i in chosen
    ]
    mean = [sum(parts) / len(each) for parts in zip(*each, strict=True)]
    assert all(torch.allclose(a, b, atol=1e-6) for a, b in zip(gradient, mean, strict=True))
    assert label_of(gradient) == 7


def test_what_is_minimised_is_the_squared_distance_of_the_gradients():
    """The first distance of an attempt, against a plain version of the paper's objective in double precision."""
    network = victim("lenet-sigmoid", 1, 12, 3, 0).double()
    image, label = torch.rand(1, 1, 12, 12, dtype=torch.float64), torch.tensor([1])
    shared = gradient_of(network, image, label)
    scale = torch.tensor(0.2).double().view(1, 1, 1), torch.tensor(0.3).double().view(1, 1, 1)
    found = invert(network, shared, scale, image.shape, 3, label=1, steps=1, seed=5)
    guess = torch.randn(1, 1, 12, 12, generator=torch.Generator().manual_seed(5)).double()
    network.zero_grad()
    (-torch.log_softmax(network(guess), 1)[0, 1]).backward()
    ours = torch.cat([p.grad.flatten() for p in network.parameters()])
    theirs = torch.cat([g.flatten() for g in shared])
    wanted = float((ours - theirs).square().sum() / theirs.square().sum())
    assert found.distances[0] == pytest.approx(wanted, rel=1e-9)
    assert torch.allclose(found.images[0], (0.3 * guess + 0.2).clamp(0, 1))


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


def test_pixels_are_brought_onto_the_scale_of_the_dataset():
    data = load("shapes")
    images, (mean, std) = data.test_images[:2], scale_of(data)
    assert torch.allclose(((images.double() / 255 - mean) / std).float(), data.normalise(images), atol=1e-6)


@pytest.mark.slow
def test_images_are_recovered_from_their_gradients_and_noise_prevents_it(home):
    bare = asked(home, images=2)
    assert not isinstance(bare, str), bare
    assert [row["read"] for row in bare.tables["images"]] == [row["label"] for row in bare.tables["images"]]
    assert all(row["ssim"] >= ALIKE for row in bare.tables["images"]) and bare.facts["alike"] == 2
    assert bare.facts["labels_right"] == bare.facts["labels"] == 200
    assert bare.tables["curve"][-1]["distance"] < bare.tables["curve"][0]["distance"] / 1000
    guarded = asked(home, images=1, steps=30, noise=3, starts=1)
    assert guarded.tables["images"][0]["ssim"] < bare.tables["images"][0]["ssim"] - 0.3


@pytest.mark.slow
def test_the_mean_gradient_of_many_images_gives_no_one_of_them_away_exactly(home):
    many = asked(home, images=1, behind=16, steps=8, starts=1)
    assert not isinstance(many, str), many
    assert many.tables["images"][0]["ssim"] < 0.95 and many.facts["labels_right"] == many.facts["labels"]
    assert any("the most similar of them" in note for note in many.notes)


def test_an_image_that_is_not_there_is_refused(home):
    assert "no 9,999" in asked(home, image=9999)


def test_the_command_line_says_what_was_found(home, capsys):
    given = ["--dataset", "digits", "--images", "1", "--steps", "5", "--starts", "1"]
    assert main(["probe", "inversion", *given, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["facts"]["labels_right"] == found["facts"]["labels"] == 200
    assert found["tables"]["images"][0]["ssim"] <= 1
    assert main(["probe", "inversion", *given]) == 0
    assert found["facts"]["headline"] in capsys.readouterr().out
