"""Where an image that is chosen in a film leads: to the image of that number in its set, whatever kind of run it is."""

import os

import pytest
import torch

from engine.runs.film import Film, publish
from engine.runs.store import Store
from engine.spec import build_spec
from engine.synthetic import SyntheticSet
from pages.components import hiding
from pages.components.leading import leads


@pytest.fixture
def store(tmp_path, monkeypatch):
    monkeypatch.setenv("LIMBECK_HOME", str(tmp_path))
    monkeypatch.setattr(hiding, "hidden", lambda name: False)
    return Store(tmp_path)


def a_run(store, kind, labels, **values):
    images = torch.rand(len(labels), 1, 16, 16)
    synthetic = SyntheticSet(images, labels, "digits", tuple("abc"), (0.5,), (0.5,))
    run = store.submit(kind, build_spec(kind, dataset="digits", **values), pid=os.getpid())
    publish(store, run, synthetic)
    return store.run(run), images


def test_the_number_in_a_cell_is_that_of_the_image_shown_there(store):
    run, images = a_run(store, "baseline", torch.tensor([2, 0, 2, 2, 0]))
    told = leads(run)
    assert told["cells"] == [1, None, 0, 4, None, 2, None, None, 3]
    film = Film(store, run.id)
    film.arrange(SyntheticSet(images, torch.tensor([2, 0, 2, 2, 0]), "digits", tuple("abc"), (0.5,), (0.5,)))
    assert film.cells(list(range(5))) == told["cells"], "the same rule as the film's"
    assert [link for title, link in told["to"] if title == "Change it"] == [
        f"/pieces?section=edit&run={run.id}&image=INDEX"
    ]


def test_learned_labels_do_not_move_the_images_of_a_distilled_set(store):
    learned = torch.eye(3)[[1, 0, 2, 2, 0, 1]]
    run, _ = a_run(store, "distill", torch.tensor([0, 0, 1, 1, 2, 2]), ipc=2)
    folder = store.result_folder(run.id)
    SyntheticSet(torch.rand(6, 1, 16, 16), learned, "digits", tuple("abc"), (0.5,), (0.5,)).save(folder)
    assert leads(run)["cells"] == [0, 2, 4, 1, 3, 5]


def test_there_are_no_links_without_a_set_or_where_pages_are_hidden(store, monkeypatch):
    run, _ = a_run(store, "baseline", torch.tensor([0, 1, 2]))
    (store.result_folder(run.id) / "synthetic.safetensors").write_bytes(b"damaged")
    assert leads(run) is None
    run, _ = a_run(store, "baseline", torch.tensor([0, 1, 2]))
    monkeypatch.setattr(hiding, "hidden", lambda name: name == "pages")
    assert leads(run) is None
    begun = store.submit("distill", build_spec("distill", dataset="digits"))
    monkeypatch.setattr(hiding, "hidden", lambda name: False)
    assert leads(store.run(begun)) is None
