"""What is refused before there is a run."""

import numpy as np
import pytest
from PIL import Image

from engine.data import load
from engine.errors import Refused
from engine.runs.validate import check, smallest_class
from engine.spec import build_spec


def write_images(folder, counts, parts=("",)):
    noise = np.random.default_rng(0)
    for part in parts:
        for name, count in counts.items():
            (folder / part / name).mkdir(parents=True)
            for number in range(count):
                pixels = noise.integers(0, 256, (30, 30, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(folder / part / name / f"{number}.png")
    return folder


@pytest.mark.parametrize("parts", (("",), ("train", "test")))
@pytest.mark.parametrize("counts", ({"a": 12, "b": 30}, {"a": 5, "b": 5, "c": 47}))
def test_the_smallest_class_is_what_the_loaded_dataset_has(tmp_path, counts, parts):
    folder = write_images(tmp_path / "mine", counts, parts)
    loaded = load(f"folder:{folder}", 32)
    assert smallest_class(folder) == min(len(members) for members in loaded.by_class)


def test_more_images_than_a_class_has_are_refused_unless_they_start_as_noise(tmp_path):
    folder = write_images(tmp_path / "mine", {"a": 5, "b": 30})
    few = smallest_class(folder)
    check(build_spec("distill", dataset=f"folder:{folder}", ipc=few))
    check(build_spec("distill", dataset=f"folder:{folder}", ipc=few + 1, init="noise"))
    for kind, more in (("distill", {}), ("baseline", {"kind": "random"})):
        with pytest.raises(Refused, match=f"smallest class of mine has {few} images"):
            check(build_spec(kind, dataset=f"folder:{folder}", ipc=few + 1, **more))


@pytest.mark.parametrize(
    ("values", "words"),
    (
        ({"dataset": "nonesuch"}, "nonesuch"),
        ({"dataset": "folder:"}, "needs a path"),
        ({"dataset": "folder:/no/such/place"}, "no folder"),
        ({"method": "dc", "ipc": 2, "variant": "bank"}, "plain"),
    ),
)
def test_what_cannot_be_done_is_a_sentence(values, words):
    with pytest.raises(Refused, match=words):
        check(build_spec("distill", **values))


@pytest.mark.parametrize("values", ({}, {"method": "dc", "ipc": 2}, {"dataset": "shapes", "ipc": 100}))
def test_what_can_be_done_passes(values):
    check(build_spec("distill", **values))
