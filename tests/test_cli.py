"""The command line: its JSON, its refusals, and that it starts fast."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from engine import cli
from engine.data import catalogue
from engine.methods import METHODS
from engine.probes.specs import PROBES
from engine.runs.store import Store
from engine.spec import SPECS, build_spec
from engine.synthetic import load_synthetic
from engine.table import parameters
from tests.runs import fakes

ROOT = Path(__file__).parents[1]


@pytest.fixture
def home(tmp_path, monkeypatch):
    folder = tmp_path / "home"
    monkeypatch.setenv("LIMBECK_HOME", str(folder))
    monkeypatch.delenv("LIMBECK_DATA", raising=False)
    monkeypatch.setattr(fakes.RandomWalk, "pace", 0.001)
    fakes.install(monkeypatch)
    return folder


@pytest.fixture
def run(home, capsys):
    """Run a command in this process: status, stdout, stderr."""
    return caller(capsys)


@pytest.fixture
def run_for_real(tmp_path, monkeypatch, capsys):
    """The same, on the digits as they are."""
    monkeypatch.setenv("LIMBECK_HOME", str(tmp_path / "home"))
    return caller(capsys)


def caller(capsys):
    def call(*arguments):
        try:
            status = cli.main([str(a) for a in arguments])
        except SystemExit as end:  # --help
            status = end.code
        captured = capsys.readouterr()
        return status, captured.out, captured.err

    return call


def as_json(result):
    status, out, err = result
    assert (status, err) == (0, "")
    return json.loads(out)


def refused(result, *words):
    """The command ended with one short sentence and status 2."""
    status, out, err = result
    assert status == 2 and out == ""
    assert "Traceback" not in err and err.count("\n") == 1 and err.rstrip().endswith((".", "is."))
    for word in words:
        assert word in err
    return err


def no_runs(home):
    return not (home / "runs").exists() or not any((home / "runs").iterdir())


# ---- what is printed ------------------------------------------------------------------------------------------------


def test_distill_prints_its_contract_and_the_page_sees_the_run(run, home):
    row = as_json(run("distill", "--dataset", "digits", "--method", "dm", "--ipc", 2, "--steps", 12, "--json"))
    assert set(row) == {"run", "folder", "result", "steps", "seconds", "stopped"}
    assert (row["steps"], row["stopped"]) == (12, "steps") and row["seconds"] > 0
    assert Path(row["folder"]).is_dir() and len(load_synthetic(Path(row["result"])).images) == 20
    assert Store(home).run(row["run"]).status == "done"


def test_distill_stops_after_its_minutes(run):
    row = as_json(run("distill", "--minutes", 0.05, "--json"))
    assert row["stopped"] == "minutes" and 3 <= row["seconds"] < 4


def test_distill_evaluates_only_when_asked(run):
    row = as_json(run("distill", "--steps", 3, "--students", 2, "--json"))
    assert row["evaluation"]["accuracies"] == [0.5, 0.5] and row["evaluation"]["protocol"] == "dsa"


def test_distill_says_that_it_diverged_and_offers_half_the_rate(run, monkeypatch):
    monkeypatch.setattr(fakes.RandomWalk, "diverges_at", 3)
    row = as_json(run("distill", "--steps", 9, "--lr-img", 4, "--json"))
    assert row["stopped"] == "diverged" and row["halved"] == {"lr_img": 2.0} and "diverged" in row["message"]


@pytest.mark.parametrize("name", ("set", "set.zip", "set.pt"))
def test_what_baseline_writes_evaluate_reads(run, tmp_path, name):
    out = tmp_path / name
    row = as_json(run("baseline", "--dataset", "digits", "--kind", "kmeans", "--ipc", 3, "--out", out, "--json"))
    assert row["images"] == 30 and row["out"] == str(out) and out.exists()
    row = as_json(run("evaluate", out, "--dataset", "digits", "--protocol", "dc", "--seeds", 2, "--json"))
    assert set(row) == {"mean", "std", "accuracies", "protocol", "network", "seconds"}
    assert row["accuracies"] == [0.5, 0.5] and row["protocol"] == "dc" and 0 <= row["mean"] <= 1


def test_evaluating_a_run_is_kept_with_it(run, home):
    id = as_json(run("distill", "--steps", 3, "--json"))["run"]
    as_json(run("evaluate", id, "--network", "mlp", "--seeds", 1, "--json"))
    assert [e["network"] for e in Store(home).evaluations([id])] == ["mlp"]


@pytest.mark.parametrize("name", ("set", "set.zip", "set.pt", "set.npz", "set.safetensors"))
def test_export_and_import_again(run, home, tmp_path, name):
    id = as_json(run("distill", "--steps", 3, "--json"))["run"]
    out = tmp_path / name
    assert as_json(run("export", id, "--out", out, "--json")) == {"out": str(out), "images": 10}
    row = as_json(run("import", out, "--dataset", "digits", "--json"))
    assert set(row) == {"run", "folder", "result", "images"} and row["images"] == 10
    first = load_synthetic(Store(home).result_folder(id))
    second = load_synthetic(Path(row["result"]))
    assert (first.images - second.images).abs().max() < 1e-5 and second.kind == "imported"
    assert Store(home).run(row["run"]).status == "done" and Store(home).frames(row["run"]) == [0]


@pytest.mark.parametrize(
    ("format", "name", "start"),
    (
        ("gif", "film.gif", b"GIF89a"),
        ("webp", "film.webp", b"RIFF"),
        ("sheet", "sheet.png", b"\x89PNG"),
        ("html", "report.html", b"<!doctype html>"),
        ("run", "run.zip", b"PK"),
    ),
)
def test_export_of_more_than_the_set(run, home, tmp_path, format, name, start):
    id = as_json(run("distill", "--steps", 12, "--json"))["run"]
    row = as_json(run("export", id, "--format", format, "--out", tmp_path / name, "--json"))
    content = (tmp_path / name).read_bytes()
    assert row == {"out": str(tmp_path / name), "format": format, "bytes": len(content)} and content.startswith(start)
    if format != "run":  # whose name ends as that of the set's zip does
        assert as_json(run("export", id, "--out", tmp_path / f"again-{name}", "--json"))["format"] == format
    assert sorted(p.name for p in tmp_path.iterdir() if p.name.startswith(".")) == []


def test_a_whole_run_goes_from_one_home_to_another(run, home, tmp_path, monkeypatch):
    id = as_json(run("distill", "--steps", 12, "--students", 2, "--title", "mine", "--json"))["run"]
    as_json(run("export", id, "--format", "run", "--out", tmp_path / "run.zip", "--json"))
    monkeypatch.setenv("LIMBECK_HOME", str(tmp_path / "elsewhere"))
    row = as_json(run("import", tmp_path / "run.zip", "--json"))
    store = Store(tmp_path / "elsewhere")
    assert row["run"] != id and row["images"] == 10 and store.run(row["run"]).title == "mine, imported"
    assert store.frames(row["run"]) == Store(home).frames(id) and len(store.frames(row["run"])) > 1
    assert store.evaluations([row["run"]])[0]["accuracies"] == [0.5, 0.5]
    row = as_json(run("import", tmp_path / "run.zip", "--title", "ours", "--json"))
    assert store.run(row["run"]).title == "ours"


def test_the_snippet_of_an_export_is_printed_when_asked_for(run, home, tmp_path):
    id = as_json(run("distill", "--steps", 3, "--students", 2, "--json"))["run"]
    row = as_json(run("export", id, "--out", tmp_path / "set.npz", "--snippet", "--json"))
    compile(row["snippet"], "snippet", "exec")
    assert 'np.load("set.npz")' in row["snippet"] and "50.0 ± 10.0 % test accuracy (DSA protocol" in row["snippet"]
    _, out, _ = run("export", id, "--out", tmp_path / "again.safetensors", "--snippet")
    assert "load_file(" in out
    refused(run("export", id, "--out", tmp_path / "film.gif", "--snippet"), "--snippet")


def test_the_help_of_export_names_every_format_and_shows_how_to_train(run):
    from engine.exports import EXPORTS

    _, out, _ = run("export", "--help")
    for kind in EXPORTS.values():
        assert re.search(rf"^  {kind.id} +\{kind.suffix} ", out, re.MULTILINE), kind.id
    code = "\n".join(line[2:] for line in out.split("DC's protocol:\n")[1].splitlines())
    compile(code, "help", "exec")


def test_runs_are_listed_shown_and_deleted(run, home):
    id = as_json(run("distill", "--steps", 3, "--title", "my first", "--json"))["run"]
    (row,) = as_json(run("runs", "list", "--json"))
    assert (row["id"], row["status"], row["title"]) == (id, "done", "my first")
    assert as_json(run("runs", "list", "--status", "failed", "--json")) == []
    shown = as_json(run("runs", "show", id, "--json"))
    assert shown["spec"]["steps"] == 3 and shown["result"] and shown["frames"] >= 1
    assert as_json(run("runs", "delete", id, "--json")) == {"run": id, "deleted": True}
    assert no_runs(home)


def test_resume_without_a_server_goes_on_here(run, home, monkeypatch):
    store = Store(home)
    id = store.submit("distill", build_spec("distill", steps=20, students=0), pid=os.getpid())
    store.announce(id, "interrupted", "The worker went away.")
    row = as_json(run("runs", "resume", id, "--json"))
    assert row["run"] == id and row["steps"] == 20 and row["stopped"] == "steps"


def test_pause_and_stop_reach_the_store(run, home):
    store = Store(home)
    id = store.submit("distill", build_spec("distill", steps=20), pid=os.getpid())
    assert as_json(run("runs", "pause", id, "--json"))["command"] == "pause"
    assert as_json(run("runs", "stop", id, "--json"))["status"] == "running"
    assert store.pending(id) == ["pause", "stop"]
    queued = store.submit("distill", build_spec("distill", steps=20))
    assert as_json(run("runs", "stop", queued, "--json"))["status"] == "stopped"


def test_datasets_are_listed_with_whether_they_are_there(run):
    rows = {row["id"]: row for row in as_json(run("datasets", "--json"))}
    assert {"mnist", "cifar10", "digits", "shapes"} <= set(rows)
    assert rows["digits"]["ready"] is True and len(rows["digits"]["classes"]) == 10
    assert all(row["note"] for row in rows.values())


def test_without_json_people_read_lines(run):
    for command in (("datasets",), ("runs", "list"), ("distill", "--steps", 2), ("baseline",)):
        status, out, err = run(*command)
        assert (status, err) == (0, "") and out.strip() and "{" not in out


# ---- help -----------------------------------------------------------------------------------------------------------

COMMANDS = (
    "datasets",
    "distill",
    "baseline",
    "evaluate",
    "export",
    "import",
    "runs",
    "runs list",
    "runs resume",
    "bench",
)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help(run, command):
    status, out, _ = run(*command.split(), "--help")
    assert status == 0 and "usage: python -m engine" in out
    if command != "runs":
        assert "--json" in out


def test_help_names_every_parameter_and_the_methods_it_belongs_to(run):
    _, out, _ = run("distill", "--help")
    for row in parameters(SPECS["distill"]):
        assert f"--{row.name.replace('_', '-')}" in out
    for info in METHODS.values():
        for row in parameters(info.parameters):
            assert f"--{row.name.replace('_', '-')}" in out and info.id in out


@pytest.mark.parametrize("command", ["student train", "rank", *(f"probe {id}" for id in PROBES)])
def test_help_of_what_no_method_does_names_no_method(run, command):
    _, out, _ = run(*command.split(), "--help")
    assert "Method, values" not in " ".join(out.split())


# ---- refusals -------------------------------------------------------------------------------------------------------


def bad_values(row):
    """Values that a parameter must refuse."""
    if row.kind == "choice":
        return ["bogus", ""]
    if row.kind in ("int", "float"):
        values = ["many", "", "nan", "inf", "1e999"] + (["1.5"] if row.kind == "int" else [])
        if row.low is not None:
            values.append(f"{row.low - 1:g}")
        if row.high is not None:
            values.append(f"{row.high * 2 + 1:.0f}")
        return values
    return {"dataset": ["nonesuch", "", "folder:", "folder:/no/such/folder", "../mnist"]}.get(row.name, [])


def bad_flags():
    for command, kind in (
        ("distill", "distill"),
        ("baseline", "baseline"),
        ("evaluate", "evaluate"),
        ("import", "import"),
    ):
        for row in parameters(SPECS[kind]):
            flag = f"--{row.name.replace('_', '-')}"
            for value in [] if row.name in ("source", "path") else bad_values(row):
                yield (command, flag, value)
            if row.kind == "bool":
                yield (command, f"{flag}=maybe", None)
    for method, info in METHODS.items():
        for row in parameters(info.parameters):
            for value in bad_values(row):
                yield (f"distill --method {method}", f"--{row.name.replace('_', '-')}", value)


@pytest.mark.parametrize(("command", "flag", "value"), list(bad_flags()))
def test_every_flag_refuses_bad_values_before_there_is_a_run(run, home, tmp_path, command, flag, value):
    (tmp_path / "set.pt").write_bytes(b"x")
    subject = {"evaluate": [tmp_path / "set.pt"], "import": [tmp_path / "set.pt"]}.get(command, [])
    refused(run(*command.split(), *subject, flag, *([] if value is None else [value]), "--json"))
    assert no_runs(home)


@pytest.mark.parametrize(
    ("arguments", "words"),
    (
        ([], ["COMMAND"]),
        (["bogus"], ["bogus", "distill"]),
        (["runs"], ["ACTION"]),
        (["distill", "--nonsense", "1"], ["--nonsense"]),
        (["distill", "--ste", "3"], ["--ste"]),
        (["distill", "--ipc"], ["--ipc"]),
        (["distill", "stray"], ["stray"]),
        (["distill", "--ipc", "0"], ["Images per class", "1 to 100"]),
        (["distill", "--method", "frepo", "--bank-size", "3"], ["bank_size", "pool"]),
        (["distill", "--method", "dm", "--pool", "3"], ["pool", "bank_size"]),
        (["distill", "--method", "dc", "--ipc", "2", "--variant", "bank"], ["plain"]),
        (["distill", "--title", "a\nb"], ["--title"]),
        (["distill", "--title", "a" * 201], ["--title"]),
        (["distill", "--ipc", "46"], ["46", "45"]),
        (["baseline", "--ipc", "46"], ["46", "45"]),
        (["baseline", "--out", "/no/such/folder/set.pt"], ["no folder"]),
        (["baseline", "--out", "."], ["other files"]),
        (["baseline", "--out", "pyproject.toml"], ["another kind"]),
        (["baseline", "--out", ""], ["--out"]),
        (["evaluate"], ["PATH"]),
        (["evaluate", "no-such-thing"], ["no-such-thing"]),
        (["evaluate", "pyproject.toml"], ["not a set"]),
        (["evaluate", "engine"], ["synthetic.json"]),
        (["export", "no-such-thing", "--out", "x.pt"], ["no-such-thing"]),
        (["export", "no-such-thing"], ["--out"]),
        (["export", "no-such-thing", "--out", "x.gif"], ["no-such-thing", "runs list"]),
        (["export", "no-such-thing", "--out", "x.mp4", "--format", "mp4"], ["mp4", "webp"]),
        (["export", "no-such-thing", "--out", "x.zip", "--format", "gif"], [".gif", "x.zip"]),
        (["export", "no-such-thing", "--out", "/no/such/folder/x.gif"], ["no folder"]),
        (["import", "no-such-file.pt", "--dataset", "digits"], ["no-such-file.pt"]),
        (["import", "pyproject.toml"], ["not a set"]),
        (["runs", "list", "--limit", "0"], ["1 to 10000"]),
        (["runs", "list", "--limit", "x"], ["1 to 10000"]),
        (["runs", "list", "--status", "asleep"], ["asleep", "interrupted"]),
        (["runs", "list", "--kind", "odd"], ["odd", "baseline"]),
        *((["runs", what, "../../etc"], ["no run"]) for what in ("show", "resume", "pause", "stop", "delete")),
        (["runs", "show"], ["id"]),
    ),
)
def test_bad_commands_are_refused_with_a_sentence(run, home, monkeypatch, arguments, words):
    monkeypatch.chdir(ROOT)
    refused(run(*arguments), *words)
    assert no_runs(home)


def test_a_pt_needs_to_be_told_its_dataset(run, home, tmp_path):
    path = tmp_path / "set.pt"
    path.write_bytes(b"x")
    refused(run("evaluate", path), "--dataset")
    refused(run("import", path), "--dataset")


def test_a_device_that_is_not_there_is_refused(run, home):
    import torch

    if not torch.cuda.is_available():
        refused(run("distill", "--device", "cuda"), "cuda", "cpu")
    assert no_runs(home)


def test_a_dataset_that_is_missing_is_refused_with_how_to_get_it(run, home, monkeypatch):
    missing = catalogue.Availability(False, "missing", "MNIST is not here; set LIMBECK_DATA.")
    monkeypatch.setattr("engine.runs.validate.availability", lambda name: missing)
    assert "LIMBECK_DATA" in refused(run("distill", "--dataset", "mnist"))
    assert no_runs(home)


def test_a_run_that_has_ended_refuses_commands(run):
    id = as_json(run("distill", "--steps", 2, "--json"))["run"]
    for what in ("pause", "stop", "resume"):
        refused(run("runs", what, id), "is done")


def test_a_failed_run_is_a_sentence(run, monkeypatch):
    monkeypatch.setattr(fakes.RandomWalk, "raises_at", 1)
    refused(run("distill", "--steps", 2), "IndexError", "log.txt")


def test_a_mistake_of_ours_is_a_sentence_too(run, home, monkeypatch):
    monkeypatch.setattr(cli, "datasets", None)
    refused(run("datasets"), "TypeError", "errors.log")
    assert "Traceback" in (home / "errors.log").read_text()


# ---- as a process ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("command", ("--help", "datasets", "runs list", "runs show x", "distill --ipc 0"))
def test_what_computes_nothing_does_not_wait_for_torch(tmp_path, command):
    code = (
        "import sys; from engine.cli import main\n"
        f"try: main({command.split()!r})\n"
        "except SystemExit: pass\n"
        "assert 'torch' not in sys.modules and 'streamlit' not in sys.modules"
    )
    environment = {**os.environ, "LIMBECK_HOME": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_as_a_process_it_ends_with_2_and_a_sentence(tmp_path):
    environment = {**os.environ, "LIMBECK_HOME": str(tmp_path)}
    command = [sys.executable, "-m", "engine", "distill", "--steps", "-3"]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 2 and done.stdout == "" and "Steps (steps)" in done.stderr
    assert no_runs(tmp_path)


def test_a_closed_pipe_is_not_an_error(tmp_path):
    environment = {**os.environ, "LIMBECK_HOME": str(tmp_path)}
    command = f"{sys.executable} -m engine datasets | true"
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, shell=True)
    assert done.stderr == ""


def test_several_networks_are_evaluated_one_after_another(run, home):
    id = as_json(run("distill", "--steps", 3, "--json"))["run"]
    rows = as_json(run("evaluate", id, "--network", "mlp,convnet-w64-bn", "--seeds", 1, "--json"))
    assert [row["network"] for row in rows] == ["mlp", "convnet"] and len(Store(home).evaluations([id])) == 2
    refused(run("evaluate", id, "--network", "mlp,nosuch"), "nosuch", "resnet18")
    refused(run("evaluate", id, "--network", "lenet-w64"), "width of lenet is fixed")
    assert len(Store(home).evaluations([id])) == 2, "nothing was computed for a list with a mistake in it"


def test_soften_and_rank_refuse_before_there_is_a_run(run, home):
    id = as_json(run("distill", "--steps", 3, "--json"))["run"]
    refused(run("soften", id, "--teacher", "nobody"), "no trained student", "student list")
    refused(run("soften", "nosuch", "--teacher", "nobody"), "no run and no file")
    refused(run("soften", id, "--teacher", "nobody", "--temperature", 0), "Temperature", "0.05")
    refused(run("rank", "nosuch"), "no run and no file")
    refused(run("rank", id, "--weight", 2), "Weight", "from 0 to 1")
    assert {r.kind for r in Store(home).runs()} == {"distill"}


@pytest.mark.slow
def test_values_and_edits_of_a_set(run_for_real, tmp_path):
    run, home = run_for_real, tmp_path / "home"
    id = as_json(run("baseline", "--kind", "average", "--json"))["run"]
    found = as_json(run("value", id, "--seeds", 1, "--images", 50, "--kind", "leave-one-out", "--json"))
    assert sorted(row["rank"] for row in found["tables"]["values"]) == list(range(1, 11))
    assert found["facts"]["parts"] == 11 and found["tables"]["values"][0]["error"] is None

    saved = as_json(run("edit", id, "0:mirror", "3:label:8", "--save", "--title", "Mine", "--json"))
    assert Store(home).run(saved["run"]).title == "Mine" and load_synthetic(Path(saved["result"])).labels[3] == 8
    out = tmp_path / "set.zip"
    row = as_json(run("edit", id, "3:label:8", "--out", out, "--json"))
    assert row == {"out": str(out), "images": 10, "edits": 1} and out.exists()
    told = as_json(run("edit", id, "3:label:8", "--seeds", 1, "--images", 50, "--json"))
    assert told["facts"]["judges"] == 50 and len(told["tables"]["students"]) == 1
    assert [r.kind for r in Store(home).runs()] == ["edit", "baseline"], "nothing else was kept"


def test_values_and_edits_refuse_before_anything_is_done(run, home):
    id = as_json(run("baseline", "--json"))["run"]
    refused(run("value", "nosuch"), "no run and no file")
    refused(run("value", id, "--kind", "banzhaf"), "Values", "leave-one-out, shapley")
    refused(run("edit", id, "0:melt"), "is no edit", "mirror")
    refused(run("edit", id, "0:mirror", "--title", "x"), "--save")
    refused(run("edit", id, "0:mirror", "--save", "--seeds", 3), "--seeds")
    refused(run("edit", id, "99:mirror", "--save"), "no image 99")
    assert [r.kind for r in Store(home).runs() if r.status == "done"] == ["baseline"]


def test_a_question_about_all_students_is_another_one_once_there_is_another_student(run, home, monkeypatch):
    """What was answered before is kept, but not the answer about students of then for those of now."""
    from engine.probes import answerer
    from engine.probes.desk import write_json

    def names(desk, store, digest, told):
        spec = desk.question(digest)["spec"]
        answer = {"tables": {}, "facts": spec, "images": {}, "notes": [], "seconds": 1.0}
        write_json(desk.root / digest / "answer.json", answer)

    def student():
        store = Store(home)
        id = store.submit("student", build_spec("student", dataset="digits"))
        write_json(store.folder(id) / "student" / "student.json", {"format": 1})
        store.announce(id, "done", "Done.")
        return id

    monkeypatch.setattr(answerer, "work_out", names)
    asked = ("probe", "bias-study", "--dataset", "digits", "--students", "all", "--json")
    assert as_json(run(*asked))["facts"]["students"] == "none"
    first = student()
    assert as_json(run(*asked))["facts"]["students"] == first
    second = student()
    again = as_json(run(*asked))
    assert set(again["facts"]["students"].split(",")) == {first, second} and again["facts"]["sets"] == "none"
