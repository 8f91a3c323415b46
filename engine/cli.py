"""The command line: ``python -m engine COMMAND``; see ``--help`` for the commands.

Flags are made from the parameter table of ``engine.spec``, so they say what the forms say and refuse what the forms
refuse. Every command ends with exit status 0, or with a sentence on stderr and 2. ``--json`` prints one JSON value to
stdout and nothing else. Torch is imported only by the commands that compute.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NoReturn

from engine import cluster
from engine.errors import Refused
from engine.faults import LOG, outside, record
from engine.home import aside, limbeck_home
from engine.methods import METHODS
from engine.probes.specs import PROBES
from engine.spec import BASELINES, SPECS, build_spec
from engine.table import Parameter, allowed, parameters

ALSO = "Also write the set: NAME.pt, NAME.npz, NAME.safetensors, NAME.zip, or else a folder."
QUICK_DEFAULTS = {"students": 0}  # on the command line, evaluating is a command of its own


def main(arguments: list[str] | None = None) -> int:
    """Run one command; returns the exit status."""
    arguments = sys.argv[1:] if arguments is None else arguments
    try:
        _check_text(arguments)
        args = _parser().parse_args(arguments)
        if args.ray:
            os.environ[cluster.VARIABLE] = args.ray
        cluster.address()  # refuses what is none
        args.action(args)
        sys.stdout.flush()
    except Refused as refusal:
        # Names from anywhere may be in it; a terminal obeys what is not printable.
        print("".join(c if c.isprintable() else "?" for c in str(refusal)), file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("Stopped.", file=sys.stderr)
        return 2
    except BrokenPipeError:  # “… | head” closed the pipe
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except Exception as error:
        sentence = outside(error)
        if not sentence:  # a mistake of ours: the sentence for people, the rest for whoever repairs it
            where = f"{LOG} in {limbeck_home()} says where, under {record(error, f'{arguments}')}"
            sentence = f"Something went wrong inside ({type(error).__name__}); {where}."
        print("".join(c if c.isprintable() else "?" for c in sentence), file=sys.stderr)
        return 2
    return 0


# ---- commands -------------------------------------------------------------------------------------------------------


def datasets(args: argparse.Namespace) -> None:
    """Datasets and whether they are there."""
    from engine.data.catalogue import DATASETS, availability

    rows: list[dict[str, Any]] = []
    for id, info in DATASETS.items():
        here = availability(id)
        rows.append(
            {
                "id": id,
                "title": info.title,
                "classes": list(info.classes),
                "channels": info.channels,
                "size": info.size,
                "train": info.train,
                "test": info.test,
                "ready": here.ready,
                "how": here.how,
                "note": here.sentence,
            }
        )
    if args.json:
        return _print_json(rows)
    for r in rows:
        images = f"{r['train']:,} + {r['test']:,} images"
        print(f"{r['id']:<14} {r['title']:<22} {len(r['classes']):>3} classes  {images:<24} {r['how']}: {r['note']}")
    print("folder:PATH    images of your own, one folder (or zip) with a folder per class")


def distill(args: argparse.Namespace) -> None:
    """A distillation, in this process."""
    spec = build_spec("distill", **{**QUICK_DEFAULTS, **_given(args, _run_flags())})
    title = _title(args)
    _check(spec)
    store, worker = _store(), _worker()
    id = store.submit("distill", spec, title, pid=os.getpid())
    _follow(store, worker, id)
    _print_distilled(store, id, args.json)


def fork(args: argparse.Namespace) -> None:
    """A run from a step of another one on, with settings changed, in this process."""
    from engine import forks

    store = _store()
    here = forks.point(store, args.run, None if args.at is None else _step(args.at))
    given = _given(args, _run_flags())
    if len({"minutes", "steps"} & set(given)) == 1:  # whoever names one means that one
        given |= {name: None for name in ("minutes", "steps") if name not in given}
    made, title = forks.plan(here, given), _title(args)
    if not args.json:
        print(made.sentence, file=sys.stderr)
    _check(made.spec)
    worker = _worker()
    id = forks.submit(store, made, title, pid=os.getpid())
    _follow(store, worker, id)
    _print_distilled(store, id, args.json)


def sweep(args: argparse.Namespace) -> None:
    """One run for every combination of some settings, one after another in this process."""
    from engine import sweep as sweeps

    plan = sweeps.make_plan(_given(args, _run_flags()), sweeps.parse_over(args.over or []))
    store = _store()
    store.sweep()
    cells = sweeps.expand(plan)
    cost = sweeps.cost(store, cells)
    if args.estimate:
        row = {"cells": len(cells), "runs": cost.runs, "seconds": cost.seconds, "memory": cost.memory}
        return _print(row, args.json, cost.sentence())
    print(cost.sentence(), file=sys.stderr)
    id = sweeps.keep(store, plan, cells, args.name or "")
    begun: list[tuple[str, str]] = []  # label and run

    def begin() -> Iterator[Any]:
        # What was queued on a page is done here where no server's worker will do it.
        for cell, run in sweeps.open_cells(store, id, cells, waiting=not store.workers()):
            if run is not None:
                store.adopt(run.id, os.getpid())
            made = run.id if run else store.submit("distill", cell.spec, pid=os.getpid(), cell=(id, cell.place))
            print(f"{cell.place + 1} of {len(cells)}: {cell.label} (run {made})", file=sys.stderr)
            begun.append((cell.label, made))
            yield store.run(made)

    if cluster.address():
        from engine.cluster.runs import run_away

        leaving = threading.Event()
        with _signals(leaving):
            run_away(store, begin(), leaving)
    else:
        worker = _worker()
        for run in begin():
            with contextlib.suppress(Refused):  # said below
                _follow(store, worker, run.id)
            if store.run(run.id).status == "interrupted":
                break
    ended = [(label, store.run(run)) for label, run in begun]
    if any(run.status == "interrupted" for _, run in ended):
        raise Refused("Interrupted; the same command goes on with this sweep.")
    failed = [f"{label}: {run.message}" for label, run in ended if run.status == "failed"]
    rows = sweeps.measured(store, sweeps.load(store, id))
    if args.json:
        return _print_json({"sweep": id, "cells": rows, "failed": failed})
    _print_table([{k: v for k, v in row.items() if k != "cell"} for row in rows], most=1000)
    for sentence in failed:
        print(f"Failed: {sentence}")


def _step(text: str) -> int:
    """The value of ``--at``."""
    if not text.isdecimal() or len(text) > 9:
        raise Refused(f"--at was “{text[:40]}”, but must be a step: a whole number from 0.")
    return int(text)


def _runs_tree(store: Any, id: str, as_json: bool) -> None:
    """The family of a run: what was forked from what, and what was changed."""
    from engine import forks

    found = []
    for depth, member in forks.members(forks.family(store, id)):
        run, fork = member.run, member.fork
        row = {
            "run": member.id,
            "depth": depth,
            "here": run is not None,
            "title": run.title if run else None,
            "status": run.status if run else None,
            "fork": fork.model_dump(mode="json") if fork else None,
            "changed": forks.changed_words(run) if run else "",
            "accuracy": forks.live_accuracy(store, member.id) if run else None,
            "evaluations": store.evaluations([member.id]),
        }
        found.append(row)
    if as_json:
        return _print_json(found)
    for row in found:
        at = f"at step {row['fork']['step']:,}, {row['changed']}: " if row["fork"] and row["here"] else ""
        measured = forks.accuracies(store, row["run"]) if row["here"] else ""
        what = f"{row['status']}" + (f"; {measured}" if measured else "") if row["here"] else "deleted"
        print(f"{'    ' * row['depth']}{at}{row['run']} ({what})")


def baseline(args: argparse.Namespace) -> None:
    """A baseline, in this process."""
    spec = build_spec("baseline", **{**QUICK_DEFAULTS, **_given(args, parameters(SPECS["baseline"]))})
    title, out = _title(args), _check_out(args.out)
    _check(spec)
    store, worker = _store(), _worker()
    id = store.submit("baseline", spec, title, pid=os.getpid())
    _follow(store, worker, id)
    row, _ = _made(store, id, out, "The baseline was stopped before it was finished.")
    row["seconds"] = store.run(id).seconds
    _add_accuracy(store, id, row)
    _print(row, args.json, f"{row['images']} images in {out or row['result']} (run {id}).")


def evaluate(args: argparse.Namespace) -> None:
    """Students on a saved set."""
    from engine.runs.validate import needs_dataset
    from engine.students.architecture import architecture_of, parse

    given = _given(args, parameters(SPECS["evaluate"]))
    names = given.pop("network").split(",") if "network" in given else []
    specs = [build_spec("evaluate", **{**given, **parse(name).values()}) for name in names]
    specs = specs or [build_spec("evaluate", **given)]
    networks, spec = [architecture_of(each) for each in specs], specs[0]
    store = _store()
    _check_saved(store, spec.source)
    run = store.run(spec.source)
    path = store.result_folder(spec.source) or _path(spec.source)
    if spec.dataset:
        _check_dataset(spec.dataset)
    _worker()
    from engine.accel import pick_accel
    from engine.runs.evaluating import check_fit
    from engine.runs.imports import read_set
    from engine.students import evaluate_slices

    accel = pick_accel(spec.device)
    with _Bar() as bar:
        needs_data = needs_dataset(path)
        if needs_data and not spec.dataset:
            raise Refused(f"{path.name} does not say which dataset it stands for; name it with --dataset.")
        data = _load(spec.dataset, 32, bar) if needs_data else None
        synthetic = read_set(path, dataset=data)
        data = data or _load(spec.dataset or synthetic.dataset, synthetic.images.shape[-1], bar)
        check_fit(synthetic, data)
        rows = []
        for done, network in enumerate(networks):
            work = evaluate_slices(
                synthetic,
                data,
                spec.protocol,
                network=network.network if network else None,
                seeds=spec.seeds,
                seed=spec.seed,
                accel=accel,
                adjust=network.applied if network else None,
            )
            what = f"{spec.seeds} students, {spec.protocol} protocol" + (f", {network.label}" if network else "")
            while True:
                try:
                    bar.show((done + next(work)) / len(networks), what)
                except StopIteration as end:
                    result = {**end.value.to_dict(), "dataset": data.name}
                    break
            if run is not None:
                store.add_evaluation(run.id, result)
            rows.append(
                {name: result[name] for name in ("mean", "std", "accuracies", "protocol", "network", "seconds")}
            )
    if len(rows) == 1:
        return _print(rows[0], args.json, _accuracy_line(rows[0]))
    if args.json:
        return _print_json(rows)
    for row in rows:
        print(_accuracy_line(row))


def soften(args: argparse.Namespace) -> None:
    """A set with a teacher's labels, as a run of its own."""
    spec = build_spec("soften", **_given(args, parameters(SPECS["soften"])))
    out = _check_out(args.out)
    store = _store()
    _check_saved(store, spec.source)
    if store.student(spec.teacher) is None:
        raise Refused(
            f"There is no trained student “{spec.teacher}”; “python -m engine student list” shows those there are."
        )
    worker = _worker()
    id = store.submit("soften", spec, pid=os.getpid())
    _follow(store, worker, id)
    row, synthetic = _made(store, id, out, "The teacher was stopped before it had answered.")
    row["agreement"] = synthetic.provenance["softened"]["agreement"]
    _print(row, args.json, f"{store.run(id).message} {out or row['result']} (run {id}).")


def rank(args: argparse.Namespace) -> None:
    """The DD-Ranking scores of a set."""
    spec = build_spec("rank", **_given(args, parameters(SPECS["rank"])))
    store = _store()
    _check_saved(store, spec.source)
    if spec.dataset:
        _check_dataset(spec.dataset)
    worker = _worker()
    id = store.submit("rank", spec, pid=os.getpid())
    _follow(store, worker, id)
    found = store.events(id, kinds=("ranking",))
    if not found:
        raise Refused("Stopped before the scores were known.")
    row = {"run": id, **found[-1].data}
    if args.json:
        return _print_json(row)
    print(store.run(id).message)
    print(f"all real images, hard labels: {row['real_hard']:.1%} ({row['reference_name']})")
    for side in row["sides"]:
        augmented = "with" if side["augmented"] else "without"
        print(
            f"{side['side']:<11} {augmented:>7} augmentation: {side['mean']:.1%} ± {side['std']:.1%}, "
            f"learning rate {side['rate']:g}"
        )


def _check_saved(store: Any, source: str) -> None:
    """``Refused`` unless ``source`` is a run with a result, or a file."""
    run = store.run(source)
    if run is not None and store.result_folder(source) is None:
        raise Refused(f"Run {source} has no result yet; it is {run.status}.")
    if run is None and not _path(source).exists():
        raise Refused(f"There is no run and no file “{source}”; “python -m engine runs list” shows the runs.")


def export(args: argparse.Namespace) -> None:
    """A run, or a set, as a file to take away."""
    from engine.exports import EXPORTS
    from engine.exports.facts import story

    store = _store()
    run, folder = store.run(args.source), store.result_folder(args.source)
    format, out = _export_as(args.format, args.out)
    if format is not None and (EXPORTS[format].needs != "set" or format == "run"):
        if run is None:
            raise Refused(
                f"There is no run “{args.source[:80]}”; “python -m engine runs list” shows those there are. Of a file "
                "only the set can be exported: pt, npz, safetensors or zip."
            )
        if args.snippet:
            raise Refused("Lines that train on a set go with a set: use --snippet with pt, npz, safetensors or zip.")
        content = EXPORTS[format].make(store, run.id)
        _write_aside(out, content)
        done = {"out": str(out), "format": format, "bytes": len(content)}
        return _print(done, args.json, f"{EXPORTS[format].title} of run {run.id}: {out} ({len(content) / 1e6:.1f} MB).")
    if run is not None and folder is None:
        raise Refused(f"Run {args.source} has no result yet; it is {run.status}.")
    from engine.runs.imports import read_set

    synthetic = read_set(folder or _path(args.source))
    with tempfile.TemporaryDirectory() as aside:
        saved = folder or synthetic.save(Path(aside))
        row: dict[str, Any] = {"out": str(out), "images": len(synthetic.images)}
        said = [f"{row['images']} images in {out}."]
        if args.snippet:
            row["snippet"] = _snippet(saved, out, story(store, run.id).headline if run else None)
            said.append(row["snippet"])
        _write_set(synthetic, saved, out)
    _print(row, args.json, "\n\n".join(said))


def _export_as(format: str | None, out: str) -> tuple[str | None, Path]:
    """The format of an export, by name or by the ending of the file's name (None: a folder), and the file's path."""
    from engine.exports import EXPORTS

    if format is not None and format not in EXPORTS:
        raise Refused(f"--format was “{format[:40]}”, but must be one of {', '.join(EXPORTS)}.")
    endings = {e.suffix: e.id for e in reversed(EXPORTS.values()) if e.id != "run"}
    if format is not None and Path(out).suffix.lower() != EXPORTS[format].suffix:
        raise Refused(
            f"The name of a file of format {format} ends in {EXPORTS[format].suffix}; --out was “{out[:200]}”."
        )
    path = _check_out(out, tuple(endings))
    assert path is not None
    return format or endings.get(path.suffix.lower()), path


def _snippet(folder: Path, out: Path, headline: dict[str, Any] | None) -> str:
    """Lines of plain PyTorch that train on the file ``out`` of the set saved in ``folder``."""
    from engine.exports.snippet import about, snippet

    name = out.name if out.suffix in SET_FILES and out.suffix != ".zip" else "synthetic.safetensors"
    return snippet(about(folder, name), headline)


def import_(args: argparse.Namespace) -> None:
    """A set from elsewhere, as a finished run."""
    from engine.runs.validate import needs_dataset

    spec = build_spec("import", **_given(args, parameters(SPECS["import"])))
    for name in (spec.path, spec.labels):
        if name and not _path(name).exists():
            raise Refused(f"There is no file “{name}”.")
    store = _store()
    title = _title(args)
    needs_data = needs_dataset(spec.path)
    if needs_data and args.dataset is None:
        raise Refused(f"{Path(spec.path).name} does not say which dataset it stands for; name it with --dataset.")
    if needs_data:
        _check_dataset(spec.dataset)
    from engine.exports.runzip import is_run
    from engine.runs.imports import import_set, import_zip, read_import

    if is_run(spec.path):
        id, synthetic = import_zip(store, spec, title)
    else:
        with _Bar() as bar:
            synthetic = read_import(spec, _load(spec.dataset, spec.size, bar) if needs_data else None)
        id = import_set(store, synthetic, title or f"{synthetic.dataset}, {Path(spec.path).stem}", spec)
    count = len(synthetic.images)
    row = {"run": id, "folder": str(store.folder(id)), "result": str(store.result_folder(id)), "images": count}
    _print(row, args.json, f"Imported {count} images as run {id}.")


def runs(args: argparse.Namespace) -> None:
    """What the store knows; pause, resume, stop, delete."""
    store = _store()
    if args.what == "list":
        limit = _limit(args.limit)
        return _runs_list(store, args, limit)
    run = store.run(args.id)
    if run is None:
        raise Refused(f"There is no run “{args.id[:80]}”; “python -m engine runs list” shows those there are.")
    if args.what == "show":
        return _runs_show(store, run, args.json)
    if args.what == "tree":
        return _runs_tree(store, run.id, args.json)
    if args.what == "resume":
        return _runs_resume(store, run, args.json)
    if args.what == "delete":
        store.delete(run.id)
        return _print({"run": run.id, "deleted": True}, args.json, f"Run {run.id} is deleted.")
    store.command(run.id, args.what)
    verb = {"pause": "pauses", "stop": "stops"}[args.what]
    now = store.run(run.id)
    text = f"Run {run.id} {verb} after its current step." if now.status in ("running", "paused") else now.message
    _print({"run": run.id, "status": now.status, "command": args.what}, args.json, text)


def probe(args: argparse.Namespace) -> None:
    """One question to trained students, answered in this process (or at once, when it was answered before)."""
    from engine.probes.desk import Desk

    asked = PROBES[args.probe]
    spec = asked.named(build_spec(asked.spec, **_given(args, parameters(asked.spec))), _store())
    out = _path(args.out) if args.out else None
    if out is not None and (out.is_file() or not out.resolve().parent.is_dir()):
        raise Refused(f"“{out}” cannot be a folder here; name a new folder, or one that is there.")
    desk = Desk()
    digest = desk.ask(args.probe, spec, again=True)
    state = desk.look(digest)
    if state.status != "done":
        _worker()
        from engine.probes.answerer import work_out

        with _Bar() as bar:
            found = work_out(desk, _store(), digest, bar.show)
        if isinstance(found, str):
            raise Refused(found)
        state = desk.look(digest)
    answer = state.answer
    assert answer is not None
    if out is not None:
        _write_answer(answer, desk.root / digest, out)
    if args.json:
        return _print_json({"probe": args.probe, "folder": str(out or desk.root / digest), **vars(answer)})
    if "headline" in answer.facts:
        print(answer.facts["headline"])
    for name, rows in answer.tables.items():
        print(f"\n{name}")
        _print_table(rows)
    for note in answer.notes:
        print(f"\n{note}")


def _write_answer(answer: Any, folder: Path, out: Path) -> None:
    """Tables as CSV, pictures as they are, and everything as JSON."""
    import csv
    import shutil

    out.mkdir(exist_ok=True)
    (out / "answer.json").write_text(json.dumps(vars(answer), indent=1))
    for name, rows in answer.tables.items():
        with (out / f"{name}.csv").open("w", newline="") as file:
            table = csv.DictWriter(file, list(rows[0]) if rows else [])
            table.writeheader()
            table.writerows(rows)
    for name in answer.images.values():
        shutil.copy(folder / name, out / name)


def _print_table(rows: list[dict[str, Any]], most: int = 40) -> None:
    """Rows in columns, for people."""
    if not rows:
        return print("(empty)")
    cells = [[f"{v:.4g}" if isinstance(v, float) else "" if v is None else str(v) for v in r.values()] for r in rows]
    widths = [max(len(str(h)), *(len(c[i]) for c in cells[:most])) for i, h in enumerate(rows[0])]
    for line in [list(rows[0]), *cells[:most]]:
        print("  ".join(str(value).ljust(width) for value, width in zip(line, widths, strict=True)).rstrip())
    if len(cells) > most:
        print(f"… and {len(cells) - most} more rows; --json or --out has them all.")


def value(args: argparse.Namespace) -> None:
    """What each image of a set is worth."""
    _check_saved(_store(), args.source)
    args.probe = "valuation"
    probe(args)


def edit(args: argparse.Namespace) -> None:
    """A set with some images changed: what that does to its students, or, with --save or --out, the set itself."""
    from engine.edits import parse

    store, out = _store(), _check_out(args.out)
    title = _title(args)
    args.edits = " ".join(args.edits)
    _check_saved(store, args.source)
    parse(args.edits)
    if not (args.save or out):
        if title:
            raise Refused("--title names a set that is kept; add --save, or leave it out.")
        args.probe, args.out = "edit", None
        return probe(args)
    asked = [f"--{name}" for name in ("seeds", "images", "split", "seed") if getattr(args, name) is not None]
    if asked:
        raise Refused(f"{asked[0]} is about students, which --save and --out train none of; leave it out.")
    if not args.save:
        assert out is not None
        _worker()
        from engine.data import load
        from engine.editing import edited, with_source
        from engine.runs.imports import read_set

        edits = parse(args.edits)
        synthetic = read_set(store.result_folder(args.source) or _path(args.source))
        data = load(synthetic.dataset, synthetic.images.shape[-1])
        changed = with_source(edited(synthetic, edits, data), edits, Path(args.source).name, "")
        with tempfile.TemporaryDirectory() as aside:
            _write_set(changed, changed.save(Path(aside)), out)
        row = {"out": str(out), "images": len(changed.images), "edits": len(edits)}
        return _print(row, args.json, f"{row['images']} images in {out}.")
    spec = build_spec("edit", source=args.source, edits=args.edits)
    worker = _worker()
    id = store.submit("edit", spec, title, pid=os.getpid())
    _follow(store, worker, id)
    row, _ = _made(store, id, out, "The edits were stopped before they were done.")
    _print(row, args.json, f"{store.run(id).message} {out or row['result']} (run {id}).")


def student(args: argparse.Namespace) -> None:
    """Networks that are trained once and kept."""
    store = _store()
    if args.what == "train":
        return _student_train(store, args)
    if args.what == "list":
        return _student_list(store, args)
    facts = store.student(args.id)
    if facts is None:
        raise Refused(
            f"There is no trained student “{args.id[:80]}”; “python -m engine student list” shows those there are."
        )
    if args.json:
        return _print_json({"run": args.id, "folder": str(store.folder(args.id)), **facts})
    names = [str(name) for name in facts["classes"]]
    print(f"{args.id}\n{facts['name']}\n{facts['network']}, {facts['parameters']:,} parameters, {_taught(facts)}")
    print(f"{facts['accuracy']:.1%} of {facts['test_images']:,} test images right\n")
    print("confusion: rows are the true classes, columns what the student says")
    rows = []
    for name, share, row in zip(names, facts["per_class"], facts["confusion"], strict=True):
        said = {f"→ {other}": count for other, count in zip(names, row, strict=True)}
        rows.append({"class": name, "right": None if share is None else f"{share:.1%}", **said})
    _print_table(rows, most=len(rows))
    print("\nmost confident mistakes, by index of the test image (--json has up to 50)")
    worst = facts["mistakes"][:10]
    _print_table([{**m, "true": names[m["true"]], "predicted": names[m["predicted"]]} for m in worst])


def _student_train(store: Any, args: argparse.Namespace) -> None:
    """Train one here, under the run of its own that keeps it."""
    values = _given(args, parameters(SPECS["student"]))
    spec = build_spec("student", **values)
    from engine.runs.validate import check, needs_dataset

    check(spec)
    if spec.source != "full" and spec.source not in BASELINES:
        _check_saved(store, spec.source)
        path = _path(spec.source)
        if store.run(spec.source) is None and needs_dataset(path) and not spec.dataset:
            raise Refused(f"{path.name} does not say which dataset it stands for; name it with --dataset.")
    worker = _worker()
    from engine.accel import pick_accel

    pick_accel(spec.device)
    id = store.submit("student", spec, pid=os.getpid())
    _follow(store, worker, id)
    facts = store.student(id)
    if facts is None:
        raise Refused("The training was stopped before the student was finished.")
    row = {"run": id, "folder": str(store.folder(id)), **_student_row(facts)}
    text = f"{facts['accuracy']:.1%} of {facts['test_images']:,} test images right; student {id}."
    _print(row, args.json, text)


def _student_list(store: Any, args: argparse.Namespace) -> None:
    found = []
    for run in store.runs(kinds=["student"], dataset=args.dataset, statuses=["done"], limit=_limit(args.limit)):
        facts = store.student(run.id)
        if facts is not None:
            found.append({"run": run.id, **_student_row(facts)})
    if args.json:
        return _print_json(found)
    for row in found:
        print(f"{row['run']:<58} {row['accuracy']:>6.1%}  {row['name']}")
    if not found:
        print("There are no students yet; “python -m engine student train --help” says how to train one.")


def _student_row(facts: dict[str, Any]) -> dict[str, Any]:
    names = ("name", "dataset", "network", "protocol", "seed", "source", "accuracy", "per_class", "test_images")
    return {name: facts.get(name) for name in (*names, "seconds", "parameters")}


def _taught(facts: dict[str, Any]) -> str:
    return f"trained on {facts['source']['text']} under the {facts['protocol']} protocol, seed {facts['seed']}"


def bench(args: argparse.Namespace) -> None:
    """The table of what this machine reaches."""
    from engine import bench as table

    table.main(args)


def seminar(args: argparse.Namespace) -> None:
    """A server in seminar mode, in place of this process."""
    from engine.seminar import serve

    if not args.port.isdecimal() or len(args.port) > 5:
        raise Refused(f"--port was “{args.port[:40]}”, but must be a whole number from 1 to 65535.")
    serve(args.address.strip(), int(args.port), args.key)


# ---- runs -----------------------------------------------------------------------------------------------------------


def _runs_list(store: Any, args: argparse.Namespace, limit: int) -> None:
    from engine.runs.store import KINDS, STATUSES

    for value, known, what in ((args.status, STATUSES, "status"), (args.kind, KINDS, "kind")):
        if value is not None and value not in known:
            raise Refused(f"There is no {what} “{value[:80]}”; it must be one of {', '.join(known)}.")
    store.sweep()
    found = store.runs(
        kinds=[args.kind] if args.kind else None,
        statuses=[args.status] if args.status else None,
        dataset=args.dataset,
        limit=limit,
    )
    if args.json:
        return _print_json([_run_row(r) for r in found])
    for r in found:
        made = time.strftime("%Y-%m-%d %H:%M", time.localtime(r.created))
        print(f"{r.id:<44} {r.status:<12} {r.progress:>4.0%}  {made}  {r.title}")
    if not found:
        print("There are no runs yet.")


def _runs_show(store: Any, run: Any, as_json: bool) -> None:
    store.sweep()
    run = store.run(run.id)
    result = store.result_folder(run.id)
    row = _run_row(run)
    row |= {
        "spec": run.spec,
        "folder": str(store.folder(run.id)),
        "result": str(result) if result else None,
        "frames": len(store.frames(run.id)),
        "evaluations": store.evaluations([run.id]),
    }
    if as_json:
        return _print_json(row)
    print(f"{run.id}\n{run.title}\n{run.status}: {run.message}")
    from engine.forks import changed_words, fork_of

    if fork := fork_of(run):
        print(f"forked from {fork.run} at step {fork.step:,}: {changed_words(run)}")
    print(f"step {run.step:,}, {run.seconds:.1f} s of distilling, {row['frames']} frames")
    print(f"folder {row['folder']}" + (f"\nresult {result}" if result else ""))
    for evaluation in row["evaluations"]:
        print(_accuracy_line(evaluation))


def _runs_resume(store: Any, run: Any, as_json: bool) -> None:
    """A running server's worker goes on with the run; without one, this process does."""
    store.sweep()
    if store.run(run.id).pid is not None or store.workers():
        store.command(run.id, "resume")
        now = store.run(run.id)
        return _print({"run": run.id, "status": now.status}, as_json, f"Run {run.id}: {now.message}")
    worker = _worker()
    store.adopt(run.id, os.getpid())
    _follow(store, worker, run.id)
    if run.kind == "distill":
        return _print_distilled(store, run.id, as_json)
    now = store.run(run.id)
    _print({"run": run.id, "status": now.status}, as_json, f"Run {run.id}: {now.message}")


def _run_row(run: Any) -> dict[str, Any]:
    names = ["id", "kind", "dataset", "title", "status", "message", "created", "started", "finished"]
    names += ["step", "steps_total", "seconds", "progress"]
    return {name: getattr(run, name) for name in names}


def _title(args: argparse.Namespace) -> str:
    title = (args.title or "").strip()
    if len(title) > 200 or not title.isprintable():
        raise Refused("--title must be one line of at most 200 characters.")
    return title


def _limit(text: str) -> int:
    """The value of ``--limit``."""
    if not text.isdecimal() or len(text) > 9 or not 1 <= int(text) <= 10_000:
        raise Refused(f"--limit was “{text[:40]}”, but must be a whole number from 1 to 10000.")
    return int(text)


# ---- doing a run here -----------------------------------------------------------------------------------------------


def _made(store: Any, id: str, out: Path | None, stopped: str) -> tuple[dict[str, Any], Any]:
    """The row and the set that a run made, written to ``out`` too; refused with ``stopped`` where there is none."""
    from engine.synthetic import load_synthetic

    result = store.result_folder(id)
    if result is None:
        raise Refused(stopped)
    synthetic = load_synthetic(result)
    row = {"run": id, "folder": str(store.folder(id)), "result": str(result), "images": len(synthetic.images)}
    if out is not None:
        _write_set(synthetic, result, out)
        row["out"] = str(out)
    return row, synthetic


def _store() -> Any:
    from engine.runs.store import Store

    return Store()


def _worker() -> Any:
    """The worker's code, in this process: imports torch."""
    from engine.runs import worker

    worker.settle(niceness=0)
    return worker


def _check(spec: Any) -> None:
    """Everything that can be refused before there is a run: data, sizes, device."""
    from engine.runs.validate import check, check_class_size

    check(spec)
    _worker()
    from engine.accel import pick_accel

    pick_accel(spec.device)
    with _Bar() as bar:
        data = _load(spec.dataset, spec.size, bar)
    check_class_size(spec, min(len(members) for members in data.by_class), data.title)


def _check_dataset(name: str) -> None:
    from engine.runs.validate import check_dataset

    check_dataset(name)


def _load(name: str, size: int, bar: _Bar) -> Any:
    from engine.data import load

    return load(name, size, bar.show)


def _follow(store: Any, worker: Any, id: str) -> None:
    """Do the run with a progress bar. Ctrl-C leaves it interrupted, with a sentence that says how to go on."""
    leaving = threading.Event()
    finished = threading.Event()
    with _signals(leaving), _Bar() as bar:
        watcher = threading.Thread(target=_watch, args=(store, id, bar, finished), daemon=True)
        watcher.start()
        try:
            if cluster.address():
                from engine.cluster.runs import run_away

                try:
                    run_away(store, iter([store.run(id)]), leaving)
                except Refused as refused:  # there is no such cluster
                    store.announce(id, "failed", str(refused))
            else:
                worker.run_job(store, store.run(id), leaving=leaving, shares=False)
        finally:
            finished.set()
            watcher.join()
    run = store.run(id)
    if run.status == "interrupted":
        again = "goes on from there" if run.kind == "distill" else "starts it over"
        at = f" at step {run.step:,}" if run.kind == "distill" else ""
        raise Refused(f"Interrupted{at}; “python -m engine runs resume {id}” {again}.")
    if run.status == "failed":
        raise Refused(run.message)


def _watch(store: Any, id: str, bar: _Bar, finished: threading.Event) -> None:
    """Draw the run's progress twice a second."""
    seen, accuracy = 0, ""
    while bar.visible and not finished.wait(0.5):
        run = store.run(id)
        for event in store.events(id, seen, ("accuracy",)):
            seen, accuracy = event.id, f", accuracy {event.data['accuracy']:.1%} (quick, held-out)"
        detail = f"step {run.step:,}{accuracy}" if run.kind == "distill" and run.step else ""
        bar.show(run.progress, f"{run.message.rstrip('.')} {detail}".strip())


@contextlib.contextmanager
def _signals(leaving: threading.Event) -> Iterator[None]:
    """SIGINT and SIGTERM ask the run to save and end; a second Ctrl-C ends at once."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def leave(number: int, _: Any) -> None:
        if leaving.is_set():
            raise KeyboardInterrupt
        leaving.set()

    before = {number: signal.signal(number, leave) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


class _Bar:
    """A progress bar on a terminal, nothing anywhere else."""

    def __init__(self) -> None:
        self.visible = sys.stderr.isatty()
        self._bar: Any = None

    def __enter__(self) -> _Bar:
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.close()

    def show(self, fraction: float, text: str = "") -> None:
        """Move to ``fraction`` (0..1) of what ``text`` says."""
        if not self.visible:
            return
        if self._bar is None:
            from tqdm import tqdm

            form = "{percentage:3.0f}%|{bar:24}| {elapsed} {desc}"
            self._bar = tqdm(total=1.0, bar_format=form, file=sys.stderr, leave=False, dynamic_ncols=True)
        self._bar.n = min(1.0, max(0.0, fraction))
        self._bar.set_description_str(text)


# ---- sets as files --------------------------------------------------------------------------------------------------


SET_FILES = (".pt", ".npz", ".safetensors", ".zip")  # endings of a file that a set can be; anything else is a folder


def _check_out(text: str | None, endings: tuple[str, ...] = SET_FILES) -> Path | None:
    """Where something shall be written; refused before anything is computed when it cannot be.

    A name with one of these ``endings`` is that of a file, any other that of a set's folder.
    """
    if text is None:
        return None
    takes = f"{', '.join(f'NAME{ending}' for ending in endings)}, or else a folder"
    if not text.strip():
        raise Refused(f"--out needs a name: {takes}.")
    out = _path(text)
    if out.suffix.lower() in endings:
        if out.is_dir():
            raise Refused(f"“{out}” is a folder; --out needs a name for the {out.suffix} file.")
        if not out.resolve().parent.is_dir():
            raise Refused(f"There is no folder “{out.resolve().parent}” to write {out.name} into.")
    elif out.exists() and not out.is_dir():
        raise Refused(f"“{out}” is a file of another kind; --out takes {takes}.")
    elif out.is_dir() and any(out.iterdir()) and not (out / "synthetic.json").exists():
        raise Refused(f"The folder “{out}” holds other files; name a new or empty folder, or a file: {takes}.")
    elif not out.is_dir() and not out.resolve().parent.is_dir():
        raise Refused(f"There is no folder “{out.resolve().parent}” to write {out.name} into.")
    return out


def _write_set(synthetic: Any, folder: Path, out: Path) -> None:
    """Write a set, which is saved in ``folder``: as ``.pt`` (the papers' tuple of images and labels), ``.npz``,
    ``.safetensors``, ``.zip``, or a folder."""
    from engine.exports import setfile
    from engine.exports.setzip import export_zip

    make = {".zip": export_zip, ".npz": setfile.npz, ".safetensors": setfile.safetensors}.get(out.suffix.lower())
    if make:
        _write_aside(out, make(folder))
    elif out.suffix.lower() == ".pt":
        from engine.exchange import export_pt

        export_pt(synthetic, out)
    else:
        try:
            synthetic.save(out)
        except OSError as error:
            raise Refused(f"“{out}” cannot be written ({error.strerror}); choose another place.") from None


def _write_aside(out: Path, content: bytes) -> None:
    """A file aside, then renamed, so that nobody finds half of one."""
    try:
        with aside(out) as part:
            part.write_bytes(content)
    except OSError as error:
        raise Refused(f"{out.name} cannot be written ({error.strerror}); choose another place.") from None


# ---- printing -------------------------------------------------------------------------------------------------------


def _print_distilled(store: Any, id: str, as_json: bool) -> None:
    run, result = store.run(id), store.result_folder(id)
    last = store.events(id, kinds=("status",))[-1].data
    if "halved" in last:
        why = "diverged"
    elif run.status == "stopped":
        why = "asked"
    else:
        why = "steps" if run.steps_total and run.step >= run.steps_total else "minutes"
    row = {
        "run": id,
        "folder": str(store.folder(id)),
        "result": str(result) if result else None,
        "steps": run.step,
        "seconds": round(run.seconds, 3),
        "stopped": why,
    }
    if why == "diverged":
        row |= {"message": run.message, "halved": last["halved"]}
    _add_accuracy(store, id, row)
    _print(row, as_json, f"{run.message} Result in {result} (run {id}).")


def _add_accuracy(store: Any, id: str, row: dict[str, Any]) -> None:
    found = store.evaluations([id])
    if found:
        row["evaluation"] = found[-1]


def _accuracy_line(row: dict[str, Any]) -> str:
    count = len(row["accuracies"])
    students = f"{count} student{'s' if count > 1 else ''}"
    return (
        f"{row['mean']:.1%} ± {row['std']:.1%} test accuracy ({row['protocol']} protocol, {row['network']}, {students})"
    )


def _print(row: dict[str, Any], as_json: bool, text: str) -> None:
    if as_json:
        return _print_json(row)
    print(text)
    if row.get("evaluation"):
        print(_accuracy_line(row["evaluation"]))


def _print_json(value: Any) -> None:
    print(json.dumps(value))


# ---- flags ----------------------------------------------------------------------------------------------------------


class _Parser(argparse.ArgumentParser):
    """An argument parser whose complaints are sentences."""

    more: Callable[[], str] | None = None  # what follows the help, as it is

    def __init__(self, *args: Any, **kwargs: Any):
        super().__init__(*args, **{**kwargs, "allow_abbrev": False})

    def format_help(self) -> str:
        return super().format_help() + (f"\n{self.more()}" if self.more else "")

    def error(self, message: str) -> NoReturn:
        said = message if len(message) < 600 else f"{message[:600]}…"
        raise Refused(f"{said[:1].upper()}{said[1:]}; “{self.prog} --help” shows what there is.")


def _run_flags() -> list[Parameter]:
    """The flags of ``distill``: the run's own fields and every method's parameters, each name once."""
    rows = {row.name: row for row in parameters(SPECS["distill"])}
    for info in METHODS.values():
        for row in parameters(info.parameters):
            rows.setdefault(row.name, row)
    return list(rows.values())


def _given(args: argparse.Namespace, rows: list[Parameter]) -> dict[str, Any]:
    """The values that were given, by field; datasets in folders by their full path, wherever the worker runs."""
    values = {row.name: getattr(args, row.name) for row in rows if getattr(args, row.name) is not None}
    dataset = values.get("dataset", "")
    if dataset.startswith("folder:") and dataset != "folder:":
        values["dataset"] = f"folder:{_path(dataset.removeprefix('folder:')).resolve()}"
    return values


def _check_text(arguments: list[str]) -> None:
    """``Refused`` for bytes that are no text: names of files may be that, but nothing that is kept."""
    for argument in arguments:
        try:
            argument.encode()
        except UnicodeEncodeError:
            raise Refused(f"{argument!r:.80} is not valid text in UTF-8; rename it, or type it anew.") from None


def _path(text: str) -> Path:
    """The path that somebody gave; ``Refused`` for what can be none, or may not be looked at."""
    try:
        path = Path(text).expanduser()
        path.stat()
    except (FileNotFoundError, NotADirectoryError):
        pass
    except (OSError, ValueError, RuntimeError) as error:  # a name too long, a zero byte, a home of nobody
        reason = getattr(error, "strerror", None) or str(error)
        raise Refused(f"“{text[:80]}” cannot be a path here ({reason}); give another one.") from None
    return path


def _add_flags(parser: argparse.ArgumentParser, rows: list[Parameter], **defaults: Any) -> None:
    for row in rows:
        flag = "--" + row.name.replace("_", "-")
        note = _help(row, defaults.get(row.name, row.default)).replace("%", "%%")
        if row.kind == "bool":
            parser.add_argument(flag, action=argparse.BooleanOptionalAction, default=None, help=note)
        else:  # checked by the spec, whose sentences say what is allowed
            parser.add_argument(flag, metavar=row.kind.upper(), default=None, help=note)


def _export_help() -> str:
    """The formats, and how to train on what was exported."""
    from engine.exports import EXPORTS
    from engine.exports.snippet import example

    rows = [f"  {e.id:<12} {e.suffix:<13} {e.about}" for e in EXPORTS.values()]
    about = (
        "A set trains students without Limbeck; --snippet prints the lines for its own protocol and data. For\n"
        "CIFAR-10 images, under DC's protocol:\n\n"
    )
    code = "".join(f"  {line}".rstrip() + "\n" for line in example().splitlines())
    return "\n".join(["formats:", *rows, "", about]) + code


def _help(row: Parameter, default: Any) -> str:
    own = {m.id: r for m in METHODS.values() for r in parameters(m.parameters) if r.name == row.name}
    if row in own.values():
        uses = "; ".join(f"{id}: {allowed(r)}, {r.default}" for id, r in own.items())
        return f"{row.label}. {row.help} Method, values, default: {uses}."
    limits = "" if row.kind in ("bool", "text") else f" {allowed(row).capitalize()}."
    return f"{row.label}. {row.help}{limits}" + ("" if default in (None, "") else f" Default: {default}.")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="python -m engine", description="Limbeck: distil a training set into a handful of images.")
    text = "Compute on this Ray cluster (auto, HOST:PORT or ray://HOST:PORT), as with LIMBECK_RAY; before the command."
    parser.add_argument("--ray", metavar="ADDRESS", default="", help=text)
    commands = parser.add_subparsers(metavar="COMMAND", required=True)

    def command(
        name: str,
        run: Callable[[argparse.Namespace], None],
        text: str,
        under: Any = commands,
        more: Callable[[], str] | None = None,
    ) -> Any:
        sub = under.add_parser(name, help=text, description=text)
        sub.more = more
        sub.set_defaults(action=run)  # a name that no parameter has
        sub.add_argument("--json", action="store_true", help="Print one JSON value for machines.")
        return sub

    command("datasets", datasets, "List the datasets and whether they are there.")

    sub = command(
        "distill",
        distill,
        "Distil a dataset. Prints run, folder, result, steps, seconds and why it stopped (minutes, steps, asked or "
        "diverged). Ctrl-C saves; “runs resume” goes on. Without --students no final accuracy is computed.",
    )
    _add_flags(sub, _run_flags(), **QUICK_DEFAULTS)
    sub.add_argument("--title", help="A name for the run.")

    sub = command(
        "fork",
        fork,
        "Go on from a step of a run with settings changed. Says what it begins from: the whole state where a "
        "checkpoint of that step is kept and fits, else images in full precision, else those of the film (8 bits). "
        "Steps and minutes are those of the whole way, the parent's included; what is not given is the parent's.",
    )
    sub.add_argument("run", metavar="RUN", help="The run to fork.")
    sub.add_argument("--at", metavar="STEP", help="The step, or the last one before it that is kept. Default: the end.")
    _add_flags(sub, _run_flags(), **{row.name: None for row in _run_flags()})
    sub.add_argument("--title", help="A name for the run.")

    sub = command(
        "sweep",
        sweep,
        "Distil once for every combination of some settings, one run after another here. The same command goes on with "
        "a sweep that was interrupted: what is done is not done again. The other flags hold for all cells.",
    )
    sub.add_argument(
        "--over", action="append", metavar="NAME=VALUES",
        help="A setting and its values, a list or a range: ipc=1,10, method=dm,dc, seed=0..2. Again for each setting.",
    )  # fmt: skip
    sub.add_argument("--estimate", action="store_true", help="Only say what it would take.")
    sub.add_argument("--name", help="A name for the sweep.")
    _add_flags(sub, _run_flags())

    sub = command("baseline", baseline, "Select or summarise real images, without distilling.")
    _add_flags(sub, parameters(SPECS["baseline"]), **QUICK_DEFAULTS)
    sub.add_argument("--title", help="A name for the run.")
    sub.add_argument("--out", metavar="FILE", help=ALSO)

    sub = command("evaluate", evaluate, "Train students on a set and test them. Accuracies are fractions in [0, 1].")
    sub.add_argument(
        "source", metavar="PATH", help="A run id, a saved folder or .zip, or a .pt or .npz (with --dataset)."
    )
    _add_flags(sub, [r for r in parameters(SPECS["evaluate"]) if r.name != "source"])

    sub = command(
        "soften", soften, "Give a set soft labels: softmax(logits / temperature) of a trained student, the teacher."
    )
    sub.add_argument("source", metavar="SET", help="A run id, or a saved folder or .zip.")
    _add_flags(sub, [r for r in parameters(SPECS["soften"]) if r.name != "source"])
    sub.add_argument("--out", metavar="FILE", help=ALSO)

    sub = command(
        "rank",
        rank,
        "Score a set by what is left without its labels and without augmentation: DD-Ranking's label-robust and "
        "augmentation-robust scores, in [0, 1]. Trains a network on all images first, unless there is one.",
    )
    sub.add_argument("source", metavar="SET", help="A run id, or a saved folder or .zip.")
    _add_flags(sub, [r for r in parameters(SPECS["rank"]) if r.name != "source"])

    sub = command(
        "export",
        export,
        "Write a run, its pictures or its set, or a saved set, as a file to take away.",
        more=_export_help,
    )
    sub.add_argument("source", metavar="RUN", help="A run id, or (for its set alone) a saved folder or file.")
    sub.add_argument(
        "--out", metavar="FILE", required=True, help="The file, whose ending says the format; or a folder."
    )
    sub.add_argument(
        "--format", metavar="FORMAT", help="What to make; needed for run alone, which is a .zip as zip is."
    )
    sub.add_argument(
        "--snippet", action="store_true", help="Also print lines of plain PyTorch that train on the exported set."
    )

    sub = command(
        "import",
        import_,
        "Read a .pt or .npz of images and labels, a saved set, or a run's zip, and keep it as a finished run.",
    )
    sub.add_argument("path", metavar="FILE", help="A .pt, .npz or .safetensors file, or a saved folder or .zip.")
    _add_flags(sub, [r for r in parameters(SPECS["import"]) if r.name != "path"])
    sub.add_argument("--title", help="A name for the run.")

    from engine.runs.store import KINDS

    text = "List, show, resume, pause, stop or delete runs."
    group = commands.add_parser("runs", help=text, description=text)
    actions = group.add_subparsers(metavar="ACTION", required=True)
    sub = command("list", runs, "List runs, newest first.", actions)
    sub.set_defaults(what="list")
    sub.add_argument("--dataset", help="Only runs on this dataset.")
    sub.add_argument("--status", help="Only runs with this status.")
    sub.add_argument("--kind", help=f"Only runs of this kind: {', '.join(KINDS)}.")
    sub.add_argument("--limit", default="50", help="How many at most. Default: 50.")
    for what, text in (
        ("show", "Everything known about a run."),
        ("tree", "The family of a run: what was forked from what, what was changed, and what it reached."),
        ("resume", "Go on with a paused, interrupted or failed run: on a running server, or else here."),
        ("pause", "Pause a run after its current step."),
        ("stop", "Stop a run after its current step and keep what it made."),
        ("delete", "Delete a run and everything it wrote."),
    ):
        sub = command(what, runs, text, actions)
        sub.set_defaults(what=what)
        sub.add_argument("id", help="The run's id.")

    text = "Put a question to trained students; prints its tables."
    group = commands.add_parser("probe", help=text, description=text)
    probes = group.add_subparsers(metavar="PROBE", required=True)
    for info in PROBES.values():
        sub = command(info.id, probe, f"{info.title.rstrip('?')}. {info.about}", probes)
        sub.set_defaults(probe=info.id)
        _add_flags(sub, parameters(info.spec))
        sub.add_argument("--out", metavar="FOLDER", help="Also write tables as CSV, and pictures, into this folder.")

    from engine.edits import TAKES
    from engine.probes.whatif.specs import SetSpec

    def asked_of(probe: str) -> list[Parameter]:
        own = {row.name for row in parameters(SetSpec)} | {"edits"}
        return [row for row in parameters(PROBES[probe].spec) if row.name not in own]

    sub = command(
        "value",
        value,
        "What each image of a set is worth to students trained on it: leave-one-out or Shapley values, in percentage "
        "points of accuracy, over all and class by class; rank 1 is the most harmful image.",
    )
    sub.add_argument("source", metavar="SET", help="A run id, or a saved folder or .zip.")
    _add_flags(sub, asked_of("valuation"))
    sub.add_argument("--out", metavar="FOLDER", help="Also write tables as CSV, and pictures, into this folder.")

    sub = command(
        "edit",
        edit,
        "Change images of a set. Prints what that does to quick students, or keeps the set, with --save or --out.",
        more=lambda: "edits (images count from 0):\n" + "".join(f"  {text}\n" for text in TAKES.values()),
    )
    sub.add_argument("source", metavar="SET", help="A run id, or a saved folder or .zip.")
    sub.add_argument("edits", metavar="EDIT", nargs="+", help="IMAGE:WHAT[:MORE], see below.")
    _add_flags(sub, asked_of("edit"))
    sub.add_argument("--save", action="store_true", help="Keep the edited set as a run.")
    sub.add_argument("--title", help="A name for that run.")
    sub.add_argument("--out", metavar="FILE", help=ALSO.replace("Also write", "Write"))

    text = "Train a student on a distilled set, a baseline or all images, and keep it; list and show those kept."
    group = commands.add_parser("student", help=text, description=text)
    actions = group.add_subparsers(metavar="ACTION", required=True)
    sub = command("train", student, "Train one network, test it once and keep it. Ctrl-C keeps nothing.", actions)
    sub.set_defaults(what="train")
    _add_flags(sub, parameters(SPECS["student"]))
    sub = command("list", student, "List the trained students, newest first.", actions)
    sub.set_defaults(what="list")
    sub.add_argument("--dataset", help="Only students of this dataset.")
    sub.add_argument("--limit", default="50", help="How many at most. Default: 50.")
    sub = command("show", student, "A student's accuracy, per-class accuracy, confusion and mistakes.", actions)
    sub.set_defaults(what="show")
    sub.add_argument("id", help="The student's id: that of the run that trained it.")

    text = "Serve the pages to a room: the presenter leads, the others follow or look around on their own."
    sub = commands.add_parser("seminar", help=text, description=text)
    sub.set_defaults(action=seminar)
    sub.add_argument("--port", default="8501", help="Where the server listens. Default: 8501.")
    sub.add_argument(
        "--address", default="127.0.0.1", help="127.0.0.1, the default: this machine only. 0.0.0.0: the whole network."
    )
    sub.add_argument("--key", help="The presenter's key. Default: LIMBECK_PRESENTER_KEY, or one that is made and kept.")

    sub = command("bench", bench, "Measure what this machine reaches, as a table.")
    sub.add_argument("--quick", action="store_true", help="Only what takes seconds.")
    sub.add_argument("--only", metavar="NAME", help="Only this measurement.")
    return parser
