"""Forking on Distil: the form, its address, what it refuses, and the family of a run."""

from __future__ import annotations

from engine import forks
from engine.runs.store import Store
from pages.components import forking
from tests.pages.test_distil import a_run, by_label, labels, opened, store  # noqa: F401


def text(at) -> str:
    return " ".join([e.value for e in (*at.caption, *at.error)] + [h.proto.body for h in at.get("html")])


def forked(store: Store, parent: str, at: int, **values) -> str:  # noqa: F811
    return forks.submit(store, forks.plan(forks.point(store, parent, at), values))


def test_the_form_of_a_fork_shows_the_settings_of_the_run_and_starts_what_was_changed(store):  # noqa: F811
    run = a_run(store)
    at = opened(run=run, fork="0")
    assert at.title[0].value == "Fork at step 0"
    assert by_label(at.number_input, "Image learning rate").value == 1.0
    assert not {"Dataset", "Images per class", "Initial images"} & set(labels(at.selectbox) + labels(at.number_input))
    assert "Changes nothing yet." in text(at) and "8 bits a channel" in text(at)
    by_label(at.number_input, "Image learning rate").set_value(0.25).run()
    assert "Changes Image learning rate: 0.25." in text(at)
    assert at.query_params["lr"] in ("0.25", ["0.25"])
    at.button(key="start-fork").click().run()
    assert not at.exception
    (fork,) = store.forks(run)
    assert fork.status == "queued" and fork.spec["parameters"]["lr_img"] == 0.25
    assert fork.spec["fork"]["changed"] == ["lr_img"] and fork.spec["fork"]["step"] == 0
    assert at.query_params["run"] in (fork.id, [fork.id]) and at.query_params["beside"] in (run, [run])


def test_another_method_begins_with_its_own_defaults(store):  # noqa: F811
    run = a_run(store)
    at = opened(run=run, fork="0")
    by_label(at.selectbox, "Method").set_value("frepo").run()
    assert not at.exception
    assert at.number_input(key="form_frepo_lr_img").value < 0.1, "not that of distribution matching"
    at.button(key="start-fork").click().run()
    assert store.forks(run)[0].spec["fork"]["changed"] == ["method"]


def test_a_link_holds_a_fork_and_what_does_not_fit_is_refused(store):  # noqa: F811
    run = a_run(store)
    at = opened(run=run, fork="10", m="frepo", s="7")
    assert at.title[0].value == "Fork at step 10"
    assert by_label(at.selectbox, "Method").value == "frepo" and by_label(at.number_input, "Seed").value == 7
    at = opened(run=run, fork="0", m="datadam", net="mlp")
    assert "two convolutional layers" in text(at) and at.button(key="start-fork").disabled
    assert store.forks(run) == []


def test_the_family_shows_what_was_changed_what_it_reached_and_what_is_gone(store):  # noqa: F811
    run = a_run(store)
    assert 'class="family"' not in text(opened(run=run)), "a run without relations has none"
    fork = forked(store, run, 10, lr_img=0.5)
    shown = text(opened(run=run))
    assert "At step 10: Image learning rate: 0.5" in shown and f"run={run}&amp;beside={fork}" in shown
    assert "61.0 % while distilling (quick protocol, held-out training images)" in shown
    assert "61.0 %" not in text(opened(run=fork, reveal="0")), "what is to be guessed is not told"
    store.delete(run)
    assert "A run that was deleted" in text(opened(run=fork))


def test_branches_play_beside_each_other_and_strangers_do_not(store, monkeypatch):  # noqa: F811
    run, stranger = a_run(store), a_run(store)
    fork = forked(store, run, 0, seed=1)
    for other, found in ((run, run), (stranger, None), (fork, None), ("<script>", None)):
        monkeypatch.setattr(forking.st, "query_params", {"beside": other})
        got = forking.beside(store.run(fork))
        assert (got and got.id) == found
    monkeypatch.undo()
    monkeypatch.setenv("LIMBECK_HOME", str(store.home))
    at = opened(run=fork, beside=run)
    assert not at.exception
