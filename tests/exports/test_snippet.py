"""The lines that train on an exported set: run as they are shown, they reach what Limbeck reaches."""

from __future__ import annotations

import os
import re
import statistics
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from engine import baselines
from engine.accel import pick_accel
from engine.data import load
from engine.distill.pretrained import fresh
from engine.errors import Refused
from engine.exchange import export_pt
from engine.exports import setfile, snippet
from engine.exports.snippet import about
from engine.networks import make_network
from engine.students import protocols
from engine.students.evaluation import evaluate_slices
from engine.students.train import train_student
from engine.synthetic import Start, SyntheticSet, fit_zca

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def digits():
    return load("digits")


@pytest.fixture(scope="module")
def chosen(digits) -> SyntheticSet:
    """A set that teaches something in no time."""
    return baselines.make_baseline("kmeans", digits, 5, seed=0, accel=pick_accel("cpu"))


@pytest.fixture(scope="module")
def measured(digits, chosen) -> dict:
    """What Limbeck measures under the quick protocol, whole: nothing is reduced."""
    return evaluate(chosen, digits, "quick")


@pytest.fixture
def short(monkeypatch):
    """The protocols, for fewer steps and with narrower networks, for Limbeck and for the lines alike."""
    for name in ("dc", "dsa", "mtt", "rat"):
        less = replace(protocols.PROTOCOLS[name], epochs=40, width=16)
        monkeypatch.setitem(protocols.PROTOCOLS, name, less)
        monkeypatch.setitem(protocols.TRAINING, name, less)
    less = replace(protocols.PROTOCOLS["frepo"], steps=((1, 60),), width=16, warmup=10, rate=2e-3)
    monkeypatch.setitem(protocols.PROTOCOLS, "frepo", less)
    monkeypatch.setitem(protocols.TRAINING, "frepo", less)
    longer = protocols.protocol_for

    def shorter(name, *rest, **more):
        found = longer(name, *rest, **more)
        return replace(found, epochs=40) if found.epochs else found

    for module in (snippet, __import__("engine.students.train", fromlist=["train"])):
        monkeypatch.setattr(module, "protocol_for", shorter)


def evaluate(synthetic: SyntheticSet, data, protocol: str) -> dict:
    """What Limbeck measures, with three students."""
    work = evaluate_slices(synthetic, data, protocol, seeds=3, accel=pick_accel("cpu"))
    while True:
        try:
            next(work)
        except StopIteration as end:
            return end.value.to_dict()


def shown(synthetic: SyntheticSet, folder: Path, file: str, evaluation: dict | None) -> str:
    """The lines for a set, beside its exported file."""
    saved = synthetic.save(folder / "saved")
    if file.endswith(".pt"):
        export_pt(synthetic, folder / file)
    else:
        make = setfile.npz if file.endswith(".npz") else setfile.safetensors
        (folder / file).write_bytes(make(saved))
    return snippet.snippet(about(saved, file), evaluation)


def run(code: str, folder: Path, capsys) -> tuple[float, dict]:
    """The accuracy that the lines print, and what they left behind."""
    here: dict = {}
    was = os.getcwd()
    os.chdir(folder)
    try:
        exec(compile(code, "snippet", "exec"), here)
    finally:
        os.chdir(was)
    said = re.search(r"([\d.]+)% of the test images right", capsys.readouterr().out)
    assert said, code
    return float(said[1]) / 100, here


def agrees(found: float, evaluation: dict) -> None:
    """Within what seeds vary by: the students' spread, or that of 360 images where it is smaller."""
    mean, accuracies = evaluation["mean"], evaluation["accuracies"]
    noise = max(statistics.stdev(accuracies), (mean * (1 - mean) / 360) ** 0.5)
    assert abs(found - mean) < 4 * noise, (found, accuracies)


@pytest.mark.slow
@pytest.mark.parametrize("file", ["set.safetensors", "set.npz", "set.pt"])
def test_the_lines_reach_what_the_page_shows(tmp_path, capsys, digits, chosen, measured, file):
    code = shown(chosen, tmp_path, file, measured)
    assert f"{100 * measured['mean']:.1f} ±" in code and "Quick protocol" in code and "engine" not in code
    found, here = run(code, tmp_path, capsys)
    agrees(found, measured)
    assert measured["mean"] > 0.75, "it has learned something that could be got wrong"
    assert torch.equal(here["y"], digits.test_labels)
    torch.testing.assert_close(here["x"], digits.normalise(digits.test_images), atol=1e-5, rtol=0)


@pytest.mark.slow
@pytest.mark.parametrize("protocol", ["dc", "dsa", "mtt", "rat", "frepo"])
def test_every_protocol_reaches_what_limbeck_reaches_under_it(tmp_path, capsys, digits, chosen, short, protocol):
    ours = replace(chosen, step_sizes=torch.tensor([0.03, 0.05])) if protocol == "mtt" else chosen
    evaluation = evaluate(ours, digits, protocol)
    code = shown(ours, tmp_path, "set.npz", evaluation)
    found, here = run(code, tmp_path, capsys)
    agrees(found, evaluation)
    assert evaluation["mean"] > 0.5
    assert ("net(augment(" in code) == (protocol != "rat")
    plan = make_network("convnet-wide" if protocol == "frepo" else "convnet", 1, 16, 10, 16)
    count = sum(p.numel() for p in here["net"].parameters())
    assert count == sum(p.numel() for p in plan.parameters()), "the protocol's own network"


@pytest.mark.slow
def test_whitened_sets_with_learned_labels_and_several_pictures_in_one(tmp_path, capsys, digits, chosen, short):
    zca = fit_zca(digits.normalise(digits.train_images))
    labels = torch.nn.functional.one_hot(chosen.labels, 10).float() - 0.1
    ours = replace(chosen, images=zca.whiten(chosen.images), zca=zca, labels=labels, protocol="frepo")
    evaluation = evaluate(ours, digits, "frepo")
    found, here = run(shown(ours, tmp_path, "set.safetensors", evaluation), tmp_path, capsys)
    agrees(found, evaluation)
    torch.testing.assert_close(here["x"], ours.prepare(digits.test_images), atol=1e-4, rtol=1e-4)
    grid = replace(ours, factor=2, zca=None, images=chosen.images)
    _, here = run(shown(grid, tmp_path, "set.npz", None), tmp_path, capsys)
    torch.testing.assert_close(here["images"], grid.decoded().images, atol=1e-5, rtol=0)
    assert torch.equal(here["labels"], grid.decoded().labels)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["fixed", "random"])
@pytest.mark.parametrize("network", ["lenet", "convnet", "mlp"])
def test_sets_that_bring_their_own_steps(tmp_path, capsys, digits, chosen, kind, network):
    build = {"name": network, "channels": 1, "size": 16, "classes": 10, "width": 8, "depth": 2}
    weights = fresh(build, 3).state_dict() if kind == "fixed" else {}
    sizes = torch.linspace(0.05, 0.02, 10)
    start = Start(kind, network, 8, 2, weights=weights)
    ours = replace(chosen, protocol="dd", step_sizes=sizes, turns=2, start=start)
    found, here = run(shown(ours, tmp_path, "set.npz", None), tmp_path, capsys)
    student = train_student(ours, digits, "dd", seed=0, accel=pick_accel("cpu"))
    if kind == "fixed":
        for (_, a), (_, b) in zip(here["net"].named_parameters(), student.named_parameters(), strict=True):
            torch.testing.assert_close(a.detach(), b.detach(), rtol=1e-3, atol=1e-4)
        with pytest.raises(Refused, match=r"\.pt cannot hold"):
            shown(ours, tmp_path, "set.pt", None)
    else:
        assert [p.shape for p in here["net"].parameters()] == [p.shape for p in student.parameters()]
        assert all(float(p.detach().abs().max()) < 5 for p in here["net"].parameters())


def test_where_a_few_lines_will_not_do(tmp_path, chosen):
    start = Start("random-pretrained", "lenet", 8, 2, "digits", 50)
    ours = replace(chosen, protocol="dd", step_sizes=torch.rand(4), start=start)
    with pytest.raises(Refused, match="learned something first"):
        shown(ours, tmp_path, "set.npz", None)
    whitened = replace(chosen, zca=fit_zca(chosen.images))
    with pytest.raises(Refused, match=r"\.pt cannot hold"):
        shown(whitened, tmp_path, "set.pt", None)
    with pytest.raises(Refused, match="no synthetic set"):
        about(tmp_path / "nowhere", "set.npz")


@pytest.mark.parametrize(
    "dataset", ["mnist", "fashion-mnist", "kmnist", "usps", "svhn", "cifar10", "cifar100", "shapes", 'folder:/a b/"c']
)
def test_the_lines_for_every_dataset_are_python(tmp_path, dataset):
    from engine.data.catalogue import DATASETS

    info = DATASETS.get(dataset)
    channels, side = (info.channels, info.size) if info else (3, 32)
    classes = info.classes if info else ("a", "b")
    meta = {
        "dataset": dataset,
        "classes": list(classes),
        "protocol": "dsa",
        "mean": [0.5] * channels,
        "std": [0.25] * channels,
    }
    code = snippet.snippet(snippet.About(meta, (len(classes), channels, side, side), "hard", (), "a.npz"))
    compile(code, "snippet", "exec")
    assert "flip" in code if channels == 3 and dataset != "svhn" else "flip" not in code


def test_a_file_name_and_a_dataset_name_are_text_in_the_lines():
    meta = {
        "dataset": 'folder:/x"]); import os #',
        "classes": ["a", "b"],
        "protocol": "quick",
        "mean": [0.5],
        "std": [0.5],
    }
    code = snippet.snippet(snippet.About(meta, (2, 1, 32, 32), "hard", (), 'a"); import os #.npz'))
    import ast

    imported = [a.name for node in ast.walk(ast.parse(code)) if isinstance(node, ast.Import) for a in node.names]
    assert "os" not in imported


def test_the_readme_shows_the_same_lines_as_the_help():
    assert snippet.example() in (ROOT / "README.md").read_text()
    compile(snippet.example(), "snippet", "exec")
