"""Addresses of pages: each is answered with a message on the page, none with an exception, and none starts anything."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from safetensors.numpy import save_file
from streamlit.testing.v1 import AppTest

from engine.errors import Refused
from engine.runs.store import Store
from engine.spec import build_spec
from pages.components import address, form, shared, student_form
from tests.hostile.addresses import LINKS, PAGES, RUN, STUDENT
from tests.hostile.case import Case, bounded, is_sentence, name_of

ROOT = Path(__file__).parents[2]
DIGITS = [str(d) for d in range(10)]
ABOUT = {"dataset": "digits", "classes": DIGITS, "mean": [0.5], "std": [0.5], "kind": "distilled", "protocol": "dc"}


def a_run(store: Store) -> str:
    """A finished distillation of digits."""
    id = store.submit("distill", build_spec("distill", dataset="digits", method="dm"), pid=os.getpid())
    layout = {"columns": 10, "rows": 1, "size": 16, "channels": 1, "classes": DIGITS, "cells": list(range(10))}
    store.append(id, [("layout", 0, layout)])
    folder = store.folder(id) / "result"
    folder.mkdir()
    (folder / "synthetic.json").write_text(json.dumps(ABOUT))
    tensors = {"images": np.zeros((10, 1, 16, 16), np.float32), "labels": np.arange(10)}
    save_file(tensors, folder / "synthetic.safetensors")
    store.announce(id, "done", "Done.", step=5)
    return id


def a_student(store: Store) -> str:
    """A student of digits, as far as pages look at one."""
    spec = build_spec("student", dataset="digits")
    id = store.submit("student", spec, pid=os.getpid())
    facts = {
        "name": "one",
        "dataset": "digits",
        "network": "convnet",
        "protocol": "full",
        "seed": 0,
        "classes": DIGITS,
        "source": {"kind": "full", "text": "all", "run": None},
        "accuracy": 0.9,
        "per_class": [0.9] * 10,
        "channels": 1,
        "confusion": [[30 if i == j else 0 for j in range(10)] for i in range(10)],
        "mistakes": [],
        "size": 16,
        "test_images": 300,
        "seconds": 1.0,
        "spec": spec.model_dump(mode="json"),
        "parameters": 1000,
    }
    (store.folder(id) / "student").mkdir()
    (store.folder(id) / "student" / "student.json").write_text(json.dumps(facts))
    store.announce(id, "done", "Done.")
    return id


@pytest.fixture(scope="module")
def there(tmp_path_factory, compiled_once):
    """A home with one run and one student; nobody answers what pages ask."""
    home = tmp_path_factory.mktemp("around") / "home"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LIMBECK_HOME", str(home))
        patch.delenv("LIMBECK_DATA", raising=False)
        patch.setattr(shared, "answerer", lambda: SimpleNamespace(started=True))
        store = Store(home)
        yield store, {RUN: a_run(store), STUDENT: a_student(store)}


@pytest.mark.parametrize("case", LINKS, ids=name_of)
def test_what_a_form_makes_of_a_link(there, case: Case) -> None:
    name, query = case.make()
    query = address.shown(query)
    with bounded():
        values, problems = form.from_query(query) if name == "distil" else student_form.from_query(query, there[0])
    (problem,) = problems
    case.refused(Refused(problem))
    build_spec("distill" if name == "distil" else "student", **{k: v for k, v in values.items() if k != "count"})


@pytest.mark.parametrize("case", PAGES, ids=name_of)
def test_an_address(there, case: Case) -> None:
    store, ids = there
    name, query = case.make()
    at, runs = AppTest.from_file(str(ROOT / "app.py"), default_timeout=60), len(store.runs())
    at.switch_page(f"pages/{name}.py")
    for key, value in query.items():
        for word, id in ids.items():
            value = value.replace(word, id) if isinstance(value, str) else value
        at.query_params[key] = value
    with bounded():
        at.run()
    assert not at.exception, at.exception[0].value
    assert len(at.title) == 1
    said = [e.value for e in (*at.warning, *at.error, *at.info, *at.caption)]
    assert all(is_sentence(s) for s in (*said[: len(at.warning) + len(at.error) + len(at.info)],)), said
    assert not case.says or any(re.search(case.says, sentence) for sentence in said), said
    assert len(store.runs()) == runs and not (store.home / "errors.log").exists()
    assert [p.name for p in store.home.parent.iterdir()] == ["home"]
