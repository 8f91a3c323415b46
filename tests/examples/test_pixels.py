"""The example of the README: a method of one's own, from the command line to an accuracy."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from engine.data import load
from engine.runs.store import Store
from engine.synthetic import load_synthetic

ROOT = Path(__file__).resolve().parents[2]
EXAMPLE = sorted((Path(__file__).parent / "pixels").glob("*.py"))
COMMAND = ["distill", "--dataset", "digits", "--method", "pixels", "--ipc", "2", "--steps", "30", "--students", "1"]


def engine(*arguments: str, methods: str = "tests.examples.pixels") -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "LIMBECK_METHODS": methods}
    command = [sys.executable, "-m", "engine", *arguments]
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300)


@pytest.mark.slow
def test_a_method_of_one_s_own_distils_is_saved_and_evaluated(home):
    done = engine(*COMMAND, "--protocol", "quick", "--json")
    assert done.returncode == 0, done.stderr[-3000:]
    store, said = Store(home), json.loads(done.stdout)
    (run,) = store.runs()
    assert run.status == "done" and run.step == 30 and run.spec["method"] == "pixels"
    metrics = store.events(run.id, 0, ("metric",))
    assert metrics[-1].step == 30  # however fast it went
    made = load_synthetic(store.folder(run.id) / "result")
    digits = load("digits")
    real = torch.stack([digits.normalise(digits.train_images[own]).mean(0) for own in digits.by_class])
    left = (made.images.unflatten(0, (10, 2)).mean(1) - real).square().sum()
    assert left < 0.2 * metrics[0].data["loss"]  # the first is that of the first step alone
    assert made.images.shape[0] == 20 and bool(torch.isfinite(made.images).all())
    assert said["evaluation"]["protocol"] == "quick" and said["evaluation"]["mean"] > 0.6  # about 0.85


def test_the_command_line_knows_the_method_and_its_parameters():
    said = " ".join(engine("distill", "--help").stdout.split())
    assert "mtt, pixels." in said and "pixels: a whole number from 1 to 2048" in said


def test_a_module_that_is_not_there_is_a_sentence():
    done = engine("datasets", methods="no.such.module")
    assert done.returncode != 0 and "Traceback" not in done.stderr
    assert "LIMBECK_METHODS names no.such.module, which cannot be used" in done.stderr


def test_it_takes_fewer_than_sixty_lines_all_of_which_the_readme_shows():
    lines = [line for file in EXAMPLE for line in file.read_text().splitlines()]
    assert len(lines) < 60
    readme = (ROOT / "README.md").read_text()
    for file in EXAMPLE:
        assert file.read_text().rstrip() in readme, file.name
