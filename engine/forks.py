"""What if, from here on: runs that begin at a step of another one with settings changed, and their families
(torch-free).

A fork is a run of its own. Its spec says which run and step it began at, and its folder holds a copy of what it began
from, so that it outlives its parent. Its steps and seconds go on from the parent's: ``steps`` and ``minutes`` are those
of the whole way. It begins from the best that there is of that step:

* the whole state, where a checkpoint of the step is kept and nothing changes that shapes the state: images, labels,
  optimiser, networks and random numbers go on, and without any change a deterministic fork repeats its parent bit by
  bit;
* else the images in full precision, with the labels that FRePo learned if FRePo goes on learning them, and the step
  sizes that DD or MTT learned if the method stays. Optimiser, networks and random numbers begin anew. Small sets keep
  these tensors with every frame, others only at the end, with the result;
* else the picture in the film: 8 bits a channel, clipped to what can be shown, with hard labels.
"""

from __future__ import annotations

import contextlib
import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from engine import words
from engine.data.catalogue import DATASETS
from engine.errors import Refused
from engine.exports.facts import story
from engine.methods import METHODS
from engine.runs.store import Run, Store
from engine.runs.validate import check
from engine.spec import Fork, RunSpec, build_spec
from engine.table import parameters

START = "start"  # the folder, in that of a fork's run, of what it began from
LAST = "last"  # and of the last checkpoint of one that has ended, unless that is larger than …
LARGEST = 32_000_000  # bytes
TENSORS, FRAME, LAYOUT = "tensors.safetensors", "frame.webp", "layout.json"
MOST = 200  # members of a family that are told

# What a fork from the whole state may change: when it ends, how it is judged and where it is computed, and step sizes.
FREE = {"minutes", "steps", "students", "protocol", "device", "lr_img", "label_rate"}
FIXED = {  # what no fork may change, and why
    "dataset": "its images stand for the classes of that dataset",
    "ipc": "it begins with the images that there are",
    "size": "its images are of that size",
    "factor": "its images hold so many pictures each",
    "init": "it begins with images of its parent, not with initial ones",
}


@dataclass(frozen=True)
class Point:
    """What there is of a run at one of its steps: distilling ``seconds`` and ``images_seen`` until then, and the files
    of it, or None."""

    run: Run
    spec: RunSpec
    step: int
    seconds: float
    images_seen: int
    state: Path | None
    tensors: Path | None
    frame: Path | None
    layout: dict[str, Any]


@dataclass(frozen=True)
class Plan:
    """A fork that can be made: the spec of its run, and the files that it begins from by their names in its folder."""

    spec: RunSpec
    files: dict[str, Path]
    layout: dict[str, Any]
    sentence: str

    def copy(self, folder: Path) -> None:
        """Put what the fork begins from into the folder of its run."""
        (folder / START).mkdir()
        try:
            for name, path in self.files.items():
                shutil.copyfile(path, folder / START / name)
        except FileNotFoundError:
            raise Refused(
                "The run has moved on meanwhile, and what was kept of this step is gone; fork again."
            ) from None
        (folder / START / LAYOUT).write_text(json.dumps(self.layout))


# ---- where a run can be forked --------------------------------------------------------------------------------------


def parent_spec(store: Store, id: str) -> RunSpec:
    """The settings of a run that can be forked: one that was distilled, here or elsewhere. ``Refused`` for others."""
    told = story(store, id)
    if told.kind != "distill":
        raise Refused(f"Only distillation can be forked; run {id} is of the kind {told.kind}.")
    try:
        return RunSpec.model_validate(told.spec)
    except ValidationError:
        raise Refused(f"The settings of run {id} are not known here, so that it cannot be forked.") from None


def points(store: Store, id: str) -> list[int]:
    """The steps at which a run can be forked, ascending: those with a frame or a checkpoint, and that of its result."""
    run = store.run(id)
    ended = [run.step] if run is not None and store.result_folder(id) is not None else []
    return sorted({*store.frames(id), *_checkpoints(store, id), *ended})


def point(store: Store, id: str, at: int | None = None) -> Point:
    """What there is of a run at step ``at``, or at the last step before it of which there is anything; at the end
    unless given. Raises ``Refused`` where there is nothing."""
    spec, found = parent_spec(store, id), points(store, id)
    run = store.run(id)
    assert run is not None
    if not found:
        raise Refused(f"Run {id} has no images yet to begin with; it is {run.status}.")
    before = [step for step in found if at is None or step <= at]
    if not before:
        raise Refused(f"Run {id} begins at step {found[0]:,}; the step to fork it at (at) was {at}.")
    step = before[-1]
    layouts = store.events(id, kinds=("layout",))
    shot = [e.data for e in store.events(id, kinds=("frame",), limit=100_000) if e.step <= step]
    tensors = store.tensors_path(id, step)
    if not tensors.is_file():
        tensors = store.folder(id) / "result" / "synthetic.safetensors"
    at_end = step == found[-1] and store.result_folder(id) is not None
    has_tensors = tensors.is_file() and (at_end or tensors.name != "synthetic.safetensors")
    return Point(
        run,
        spec,
        step,
        max([s for e in shot if (s := e.get("seconds"))], default=run.seconds if step == run.step else 0.0),
        max([e.get("images_seen") or 0 for e in shot], default=0),
        _checkpoints(store, id).get(step),
        tensors if has_tensors else None,
        store.frame_path(id, step),
        layouts[-1].data if layouts else {},
    )


def _checkpoints(store: Store, id: str) -> dict[int, Path]:
    """The checkpoints of a run by their step."""
    found: dict[int, Path] = {}
    for name in ("checkpoint", LAST):  # in this order: a run that ends moves its last one from the first to the second
        with contextlib.suppress(FileNotFoundError):  # given up while it is looked through
            paths = (store.folder(id) / name).glob("[0-9]*.pt")
            found |= {int(path.stem): path for path in paths if path.stem.isdecimal()}
    return found


# ---- making one -----------------------------------------------------------------------------------------------------


def plan(here: Point, values: dict[str, Any]) -> Plan:
    """The fork of a run at a point with these settings changed, by flat names.

    A method that changes brings the defaults of its own parameters. Raises ``Refused`` with a sentence for what no fork
    can change, what this machine or method cannot do, and where no budget is left.
    """
    before = here.spec.flat()
    method = values.get("method", here.spec.method)
    if method != here.spec.method:
        before = {k: v for k, v in before.items() if k not in METHODS[here.spec.method].parameters.model_fields}
    spec = build_spec("distill", **{**before, **values})
    changed = changes(here.spec, spec)
    for name, why in FIXED.items():
        if name in changed or (name == "factor" and _factor(spec) != _factor(here.spec)):
            label = next((r.label for r in _rows(here.spec) + _rows(spec) if r.name == name), name)
            raise Refused(f"A fork keeps {label.lower()} ({name}): {why}. Start a run of its own to change that.")
    _check_budget(here, spec)
    check(spec)
    if here.state is not None and set(changed) <= FREE:
        source, files = "state", {here.state.name: here.state}
    elif here.tensors is not None and not _whitened_otherwise(here.spec, spec):
        source, files = "tensors", {TENSORS: here.tensors}
    elif here.frame is not None:
        source, files = "frame", {FRAME: here.frame}
        if here.layout.get("rows") != spec.ipc:
            raise Refused(
                f"The film of this run shows {here.layout.get('rows', 0)} of {spec.ipc} images per class, and nothing "
                f"else is kept of step {here.step:,}; fork it at its end."
            )
        side = DATASETS[spec.dataset].size if spec.dataset in DATASETS else spec.size
        if here.layout.get("size") != side:
            raise Refused(
                f"The film of this run shows images of {here.layout.get('size', 0)} pixels, but those of "
                f"{words.dataset_title(spec.dataset)} have {side}; fork it at its end."
            )
    else:
        raise Refused(f"Of step {here.step:,} only the state is kept, which these settings do not fit; fork elsewhere.")
    fork = Fork(
        run=here.run.id,
        step=here.step,
        seconds=here.seconds,
        images_seen=here.images_seen,
        source=source,  # type: ignore[arg-type]
        changed=tuple(changed),
    )
    spec = spec.model_copy(update={"fork": fork})
    return Plan(spec, files, here.layout, begins(fork, here.spec, spec))


def _whitened_otherwise(parent: RunSpec, spec: RunSpec) -> bool:
    """Whether a parent's images are in a whitened space that the fork's method does not know."""
    return parent.zca and METHODS[parent.method].whitening != METHODS[spec.method].whitening


def changes(parent: RunSpec, spec: RunSpec) -> list[str]:
    """The settings in which a fork differs from its parent; of another method's own, those that are no defaults."""
    before, after = parent.flat(), spec.flat()
    own = spec.parameters.__class__.model_fields
    if spec.method != parent.method:
        before = {**before, **{name: info.default for name, info in own.items()}}
    return [row.name for row in _rows(spec) if before.get(row.name) != after[row.name]]


def begins(fork: Fork, parent: RunSpec, spec: RunSpec) -> str:
    """What a fork begins from, in words."""
    if fork.source == "state":
        return (
            f"Begins from the whole state of step {fork.step:,}: images, labels, optimiser, networks and random "
            "numbers go on as they were."
        )
    if fork.source == "frame":
        return (
            f"Begins from the picture of step {fork.step:,}: 8 bits a channel, clipped to what can be shown, with hard "
            "labels. Finer values are not kept of this step. Optimiser and networks begin anew."
        )
    learned = [bool(getattr(each.parameters, "learn_labels", False)) for each in (parent, spec)]
    labels = "learned labels" if all(learned) else "hard labels"
    sizes = " and learned step sizes" if spec.method in ("dd", "mtt") and spec.method == parent.method else ""
    return (
        f"Begins from the images of step {fork.step:,} in full precision, with {labels}{sizes}. Optimiser and networks "
        "begin anew."
    )


def submit(store: Store, made: Plan, title: str = "", pid: int | None = None) -> str:
    """Queue a fork, and return the id of its run; with ``pid``, see ``Store.submit``."""
    return store.submit("distill", made.spec, title, pid=pid, prepare=made.copy)


def again(store: Store, id: str, values: dict[str, Any]) -> str:
    """Queue a run once more, with settings changed; a fork begins where it did, whatever became of its parent."""
    run = store.run(id)
    assert run is not None
    spec = RunSpec.model_validate(run.spec)
    new = build_spec("distill", **{**spec.flat(), **values})
    check(new)
    if spec.fork is None:
        return store.submit("distill", new)
    changed = tuple(dict.fromkeys([*spec.fork.changed, *values]))
    new = new.model_copy(update={"fork": spec.fork.model_copy(update={"changed": changed})})
    start = store.folder(id) / START
    return store.submit("distill", new, prepare=lambda folder: _copy_all(start, folder / START))


def _copy_all(start: Path, into: Path) -> None:
    try:
        shutil.copytree(start, into)
    except (FileNotFoundError, shutil.Error):
        raise Refused("What this fork began from is gone; fork its parent again.") from None


def _check_budget(here: Point, spec: RunSpec) -> None:
    """``Refused`` where the fork would end before its first step."""
    if spec.steps is not None and spec.steps <= here.step:
        raise Refused(
            f"Steps (steps) was {spec.steps:,}, but the fork begins at step {here.step:,}, which counts; choose more."
        )
    if spec.minutes is not None and spec.minutes * 60 <= here.seconds:
        raise Refused(
            f"Minutes (minutes) was {spec.minutes:g}, but the fork begins after {here.seconds / 60:.2f} minutes of "
            "distilling, which count; choose more."
        )


def extended(here: Point) -> dict[str, Any]:
    """The parent's settings for a form; a budget that is used up at the point is given once more."""
    values = here.spec.flat()
    if values["steps"] is not None and values["steps"] <= here.step:
        values["steps"] = here.step + values["steps"]
    if values["minutes"] is not None and values["minutes"] * 60 <= here.seconds:
        values["minutes"] = round(here.seconds / 60 + values["minutes"], 2)
    return values


def _rows(spec: RunSpec) -> list[Any]:
    return [*parameters(RunSpec), *parameters(METHODS[spec.method].parameters)]


def _factor(spec: RunSpec) -> int:
    return getattr(spec.parameters, "factor", 1)


# ---- families -------------------------------------------------------------------------------------------------------


@dataclass
class Member:
    """A run in a family. ``run`` is None for a parent that is gone; ``fork``: where it began, None for the first."""

    id: str
    run: Run | None
    fork: Fork | None
    forks: list[Member] = field(default_factory=list)


def fork_of(run: Run) -> Fork | None:
    """Where a run was forked, or None for one that was not."""
    found = run.spec.get("fork") if run.kind == "distill" else None
    return Fork.model_validate(found) if found else None


def family(store: Store, id: str) -> Member:
    """All that was forked from what a run was forked from, and so on: a tree from the first that is known, which may be
    gone. Raises ``Refused`` where there is no such run."""
    told = story(store, id)
    first, seen = Member(id, told.run, fork_of(told.run)), {id}
    while first.fork is not None and first.fork.run not in seen:
        parent = store.run(first.fork.run)
        first = Member(first.fork.run, parent, fork_of(parent) if parent else None)
        seen.add(first.id)
    seen, waiting = {first.id}, [first]
    while waiting:
        member = waiting.pop(0)
        for run in store.forks(member.id):
            if run.id not in seen and len(seen) < MOST:
                seen.add(run.id)
                member.forks.append(Member(run.id, run, fork_of(run)))
        waiting += member.forks
    return first


def members(first: Member) -> list[tuple[int, Member]]:
    """A family in the order of a drawing, each with its depth."""
    found, waiting = [], [(0, first)]
    while waiting:
        depth, member = waiting.pop(0)
        found.append((depth, member))
        waiting = [(depth + 1, child) for child in member.forks] + waiting
    return found


def changed_words(run: Run) -> str:
    """What was changed in a fork: “Method: FRePo, Steps: 200”."""
    fork = fork_of(run)
    if fork is None:
        return ""
    return ", ".join(words.values(run.kind, run.spec, fork.changed)) or "nothing changed"


def live_accuracy(store: Store, id: str) -> dict[str, Any] | None:
    """The latest accuracy that was measured while a run was distilled, or None."""
    found = store.events(id, kinds=("accuracy",), limit=100_000)
    return found[-1].data if found else None


def accuracies(store: Store, id: str, hidden: Callable[[str], bool] = lambda _: False) -> str:
    """What is measured of a run, each number with its protocol and the images it is of; empty for nothing."""
    if hidden(id):
        return ""
    said, live = [], live_accuracy(store, id)
    if live:
        said.append(
            f"{100 * live['accuracy']:.1f} % while distilling ({live['protocol']} protocol, held-out training images)"
        )
    final = story(store, id).headline
    if final:
        said.append(words.measured(final))
    return "; ".join(said)
