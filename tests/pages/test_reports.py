"""Students' form and reports: links, what is refused before it is queued, and the figures against small known cases."""

import pytest

from engine.errors import Refused
from engine.runs.store import Store
from engine.spec import STUDENT_NETWORKS, build_spec
from pages.components import reports, student_form


@pytest.fixture
def store(home):
    return Store()


def facts(**changes):
    spec = build_spec("student", dataset="digits", seed=changes.get("seed", 0)).model_dump(mode="json")
    own = {
        "name": "A", "dataset": "digits", "network": "convnet", "protocol": "full", "seed": 0, "accuracy": 0.75,
        "source": {"kind": "full", "text": "all images"}, "classes": ["x", "y"], "per_class": [1.0, 0.5],
        "confusion": [[2, 0], [1, 1]], "mistakes": [], "test_images": 4, "seconds": 1.0, "spec": spec,
    }  # fmt: skip
    return {**own, **changes}


def keep(store, content):
    run = store.submit("student", build_spec("student", dataset="digits"), pid=1)
    (store.folder(run) / "student").mkdir()
    (store.folder(run) / "student" / "student.json").write_text(content)
    store.announce(run, "done", "Done.")
    return run


# ---- the form ----


@pytest.mark.parametrize(
    "query",
    [
        {"dataset": "digits"},
        {"dataset": "mnist", "src": "herding", "ipc": "50", "net": "vit", "p": "dsa", "s": "3", "n": "5"},
        {"dataset": "shapes", "net": "edge-popup", "keep": "0.3", "fw": "signed", "eps": "4.0", "as": "7"},
        {"dataset": "cifar10", "sty": "fourier", "nm": "Mine, & yours", "ep": "3"},
    ],
)
def test_a_link_says_the_whole_form(store, query):
    values, problems = student_form.from_query(query, store)
    assert not problems and student_form.to_query(values) == query
    specs = student_form.specs_of(values)
    assert len(specs) == values["count"] and [s.seed - specs[0].seed for s in specs] == list(range(len(specs)))


def test_what_a_link_gets_wrong_is_said(store):
    query = {"net": "magic", "ipc": "0", "src": "../x", "n": "99", "eps": "x"}
    values, problems = student_form.from_query(query, store)
    assert len(problems) == 5 and values == student_form.defaults()


def test_fields_that_do_not_matter_are_not_sent():
    values = {**student_form.defaults(), "network": "mlp", "keep": 0.2, "depth": 5, "attack_steps": 9, "ipc": 77}
    (spec,) = student_form.specs_of(values)
    assert (spec.keep, spec.depth, spec.attack_steps, spec.ipc) == (0.5, 3, 3, 10)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"source": "random", "ipc": 500}, "about 143"),
        ({"depth": 5}, "needs 32 pixels"),
        ({"name": "two\nlines"}, "one line"),
        ({"count": 0}, "from 1 to 10"),
        ({"dataset": "nothing"}, "There is no dataset"),
    ],
)
def test_what_cannot_work_is_refused_before_it_is_queued(changes, words):
    with pytest.raises(Refused, match=words):
        student_form.specs_of({**student_form.defaults(), **changes})


def test_names_tell_seeds_apart():
    made = student_form.specs_of({**student_form.defaults(), "name": "Mine", "count": 2, "seed": 4})
    assert [s.name for s in made] == ["Mine, seed 4", "Mine, seed 5"]


def test_a_student_of_the_same_spec_is_found(store):
    spec = build_spec("student", dataset="digits", name="One")
    run = store.submit("student", spec, pid=1)
    assert student_form.find(store, build_spec("student", dataset="digits", name="Two", device="cpu")).id == run
    assert student_form.find(store, build_spec("student", dataset="digits", seed=1)) is None
    store.announce(run, "failed", "No.")
    assert student_form.find(store, spec) is None


def test_every_network_has_a_name_people_know():
    assert set(student_form.NETWORKS) == set(STUDENT_NETWORKS)


# ---- the reports ----


@pytest.mark.parametrize(
    "content", ["{}", "[]", '{"name": 1}', "null", *("{" + f'"source": {s}' + "}" for s in ("1", "[]"))]
)
def test_facts_that_are_not_whole_are_left_out(store, content):
    keep(store, content)
    assert reports.kept(store, "digits") == {}


def test_matrices_that_do_not_fit_are_left_out(store):
    import json

    whole = keep(store, json.dumps(facts()))
    for change in ({"confusion": [[1]]}, {"mistakes": [{"true": 5, "predicted": 0}]}, {"source": None}):
        keep(store, json.dumps(facts(**change)))
    assert list(reports.kept(store, "digits")) == [whole]


def test_accuracies_over_seeds_mix_nothing_else():
    other = {**facts()["spec"], "network": "mlp", "seed": 9}
    students = {
        "a": facts(accuracy=0.7),
        "b": facts(seed=1, accuracy=0.8),
        "c": facts(accuracy=0.1, spec=other),
    }
    found = reports.over_seeds(students)
    assert found == {"a": "75.0 ± 5.0 % (2 seeds)", "b": "75.0 ± 5.0 % (2 seeds)", "c": ""}


def test_tables_hold_the_matrix():
    table = reports.per_class({"a": facts()})
    assert table["accuracy"].tolist() == [1.0, 0.5] and table["images"].tolist() == [2, 2]
    assert reports.confusion_table(facts())["count"].tolist() == [2, 0, 1, 1]


def test_names_are_unique():
    called = reports.names({"run-aaaaa": facts(), "run-bbbbb": facts(), "run-ccccc": facts(name="C")})
    assert len(set(called.values())) == 3 and called["run-ccccc"].endswith(" C")


@pytest.mark.parametrize("dark", [True, False])
def test_the_matrix_can_be_read_in_grey(dark):
    def grey(colour):
        r, g, b = (int(colour[i : i + 2], 16) for i in (1, 3, 5))
        return 0.299 * r + 0.587 * g + 0.114 * b

    steps = [grey(colour) for _, colour in (reports.DARK if dark else reports.PALE)]
    gaps = [b - a for a, b in zip(steps, steps[1:], strict=False)]
    assert all(g > 25 for g in gaps) or all(g < -25 for g in gaps)
    drawn = reports.confusion(facts(), dark).data[0]
    assert drawn.customdata[1][0] == [1, 2, 50.0] and drawn.z[1][0] == pytest.approx(0.5**0.5)


def test_names_cannot_smuggle_html():
    mistake = {"index": 1, "true": 0, "predicted": 1, "confidence": 1}
    evil = facts(classes=["<b>x</b>", '" onload="'], mistakes=[mistake])
    out = reports.mistakes(["run"], evil, [], 5)
    assert "<b>x</b>" not in out and '" onload="' not in out
