"""Sweeps: one run for every combination of some settings (torch-free).

A sweep is a plan, base settings and what is varied over which values, and its cells are ordinary runs of the store. A
sweep that is asked for again goes on: cells that are done are kept, those that were interrupted are resumed, and runs
of exactly the same settings, whoever asked for them, stand for a cell instead of being made anew.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import math
import re
import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from engine import words
from engine.errors import Refused
from engine.estimate import duration, estimate, step_seconds
from engine.intervals import student_t
from engine.methods import METHODS
from engine.runs.store import Run, Store
from engine.runs.validate import check
from engine.spec import RunSpec, build_spec
from engine.table import Parameter, allowed, parameters

MOST = 200  # cells of a sweep
VALUES = 100  # of one setting
ACTIVE = ("queued", "running", "paused")
BEGINNING = 2.0  # seconds that a run takes besides distilling and its students
NAMED = 5  # impossible cells that are named
ALL = "*"  # the method whose parameters are every method's


# ---- what is varied -------------------------------------------------------------------------------------------------


def fields() -> dict[str, Parameter]:
    """Every setting that can be varied, by name: the run's own, then the methods', each as its first method has it."""
    rows = {row.name: row for row in parameters(RunSpec)}
    for info in METHODS.values():
        for row in parameters(info.parameters):
            rows.setdefault(row.name, row)
    return rows


def parse_values(name: str, text: str) -> list[Any]:
    """The values of a setting from text: “1,10”, “0..4”, “0..10..5”, “dm,dc”. ``Refused`` for what is none."""
    row = fields().get(name)
    if row is None:
        close = [other for other in fields() if name and (name in other or other in name)]
        hint = f" Did you mean {' or '.join(close[:3])}?" if close else ""
        raise Refused(f"There is no setting “{name[:40]}” to vary.{hint}")
    found: list[Any] = []
    for part in text.split(","):
        part = part.strip()
        numbers = re.fullmatch(r"(-?\d{1,10})\.\.(-?\d{1,10})(?:\.\.(\d{1,10}))?", part)
        if numbers and row.kind in ("int", "float"):
            first, last, by = int(numbers[1]), int(numbers[2]), int(numbers[3] or 1)
            if by < 1 or last < first or (last - first) // by >= VALUES:
                raise Refused(
                    f"The range “{part[:40]}” of {name} must rise, in at most {VALUES} steps: 0..4, or 0..10..5."
                )
            found += range(first, last + 1, by)
        else:
            found.append(_value(row, part))
        if len(found) > VALUES:
            raise Refused(f"{row.label} ({name}) would take more than {VALUES} values; name fewer.")
    return list(dict.fromkeys(found))


def _value(row: Parameter, text: str) -> Any:
    """One value; its range is checked with the cell, as methods differ in it."""
    try:
        if row.kind == "int":
            return int(text)
        if row.kind == "float":
            value = float(text)
            if math.isfinite(value):
                return value
        if row.kind == "bool" and text.lower() in ("true", "yes", "1", "false", "no", "0"):
            return text.lower() in ("true", "yes", "1")
        if row.kind in ("choice", "text") and text:
            return text
    except ValueError:
        pass
    raise Refused(
        f"{row.label} ({row.name}) was “{text[:40]}”, but must be {allowed(row)}; lists are like 1,10 or 0..4."
    )


def parse_over(texts: Sequence[str]) -> dict[str, list[Any]]:
    """What is varied, from texts like “ipc=1,10” and “seed=0..2”."""
    over: dict[str, list[Any]] = {}
    for text in texts:
        name, equals, values = text.partition("=")
        name = name.strip().replace("-", "_")
        if not equals or not values.strip():
            raise Refused(f"“{text[:60]}” says nothing to vary; write a setting and its values: ipc=1,10 or seed=0..2.")
        if name in over:
            raise Refused(f"{name} is varied twice; put all its values into one list.")
        over[name] = parse_values(name, values)
    if not over:
        raise Refused("A sweep varies at least one setting: --over ipc=1,10.")
    return over


@dataclass(frozen=True)
class Plan:
    """``base``: settings of all cells; ``own``: parameters by the method that they are for (``*``: for all);
    ``over``: the values of each setting that is varied, in the order of the table."""

    base: dict[str, Any]
    own: dict[str, dict[str, Any]]
    over: dict[str, list[Any]]

    @property
    def size(self) -> int:
        """How many cells it has."""
        return math.prod(len(values) for values in self.over.values())

    def to_dict(self) -> dict[str, Any]:
        """As JSON keeps it."""
        return asdict(self)


@dataclass(frozen=True)
class Cell:
    """One combination: its place in the sweep, the varied settings, and the spec of its run."""

    place: int
    values: dict[str, Any]
    spec: RunSpec

    @property
    def label(self) -> str:
        """The varied settings, in words."""
        return ", ".join(f"{fields()[n].label.lower()} {words.said(fields()[n], v)}" for n, v in self.values.items())


def make_plan(values: dict[str, Any], over: dict[str, list[Any]], method: str = ALL) -> Plan:
    """A plan from flat settings. Parameters among them are those of ``method`` where methods are varied, and others
    take their defaults; with ``*`` every method must have them."""
    run = {row.name for row in parameters(RunSpec)}
    base = {name: value for name, value in values.items() if name in run and name not in over and value is not None}
    own = {name: value for name, value in values.items() if name not in run and name not in over and value is not None}
    return Plan(base, {method: own} if own else {}, over)


def expand(plan: Plan) -> list[Cell]:
    """All cells, the last setting varying fastest. Raises ``Refused`` with the cells that cannot be, and why; and where
    there are too many."""
    if plan.size > MOST:
        numbers = " × ".join(str(len(values)) for values in plan.over.values())
        raise Refused(
            f"This sweep would have {plan.size:,} cells ({numbers}); at most {MOST} are allowed. Vary fewer values."
        )
    cells, refused = [], []
    for place, combination in enumerate(itertools.product(*plan.over.values())):
        varied = dict(zip(plan.over, combination, strict=True))
        method = varied.get("method", plan.base.get("method", "dm"))
        own = {**plan.own.get(ALL, {}), **plan.own.get(method, {})}
        try:
            spec = build_spec("distill", **{**plan.base, **own, **varied})
            check(spec)
            cells.append(Cell(place, varied, spec))
        except Refused as why:
            refused.append((", ".join(f"{name}={str(value)[:40]}" for name, value in varied.items()), str(why)))
    if refused:
        said = " ".join(f"{which}: {why}" for which, why in refused[:NAMED])
        more = f" And {len(refused) - NAMED} more." if len(refused) > NAMED else ""
        count = "One cell" if len(refused) == 1 else f"{len(refused)} of {plan.size} cells"
        raise Refused(f"{count} cannot be run. {said}{more}")
    return cells


# ---- what it costs --------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Cost:
    """Of the cells that are still to be done: ``runs``, ``seconds`` altogether, ``memory`` of the largest in bytes."""

    runs: int
    done: int
    seconds: float
    memory: float

    def sentence(self) -> str:
        """For people, before they start."""
        done = (
            f" {words.count(self.done, 'cell')} {'is' if self.done == 1 else 'are'} done already." if self.done else ""
        )
        if not self.runs:
            return f"Nothing is left to do.{done}"
        return (
            f"{words.count(self.runs, 'run')}, one after another: about {duration(self.seconds)} altogether on a "
            f"machine that does nothing else, and up to {self.memory / 1e9:.1f} GB of memory.{done}"
        )


def cost(store: Store, cells: Sequence[Cell]) -> Cost:
    """What a sweep will take, roughly: distilling by its minutes, or its steps at the pace of like runs that are here,
    else of their multiply-adds; then the students."""
    paces = _paces(store)
    left = [cell for cell in cells if _stands_for(store, cell.spec) is None]
    needed = [estimate(cell.spec) for cell in left]
    seconds = sum(
        BEGINNING + _distilling(c.spec, paces) + (e.students or 0.0) for c, e in zip(left, needed, strict=True)
    )
    return Cost(len(left), len(cells) - len(left), seconds, max((e.memory for e in needed), default=0.0))


def _distilling(spec: RunSpec, paces: dict[tuple[Any, ...], float]) -> float:
    """Seconds of distilling."""
    bounds = [spec.minutes * 60] if spec.minutes is not None else []
    if spec.steps is not None:
        bounds.append(spec.steps * paces.get(_kind(spec.model_dump()), step_seconds(spec)))
    return min(bounds)


def _kind(spec: dict[str, Any]) -> tuple[Any, ...]:
    return tuple(spec.get(name) for name in ("dataset", "method", "ipc", "network", "width", "depth"))


def _paces(store: Store) -> dict[tuple[Any, ...], float]:
    """Seconds a step that finished runs here took, by what they were like."""
    found: dict[tuple[Any, ...], list[float]] = {}
    for run in store.runs(kinds=("distill",), statuses=("done",), limit=500):
        if run.step > 10 and run.seconds > 0 and not run.gallery and not run.spec.get("fork"):
            found.setdefault(_kind(run.spec), []).append(run.seconds / run.step)
    return {kind: statistics.median(paces) for kind, paces in found.items()}


# ---- keeping and doing ----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Sweep:
    """A sweep that is kept: its plan, and the run of each cell that has one."""

    id: str
    name: str
    created: float
    plan: Plan
    runs: dict[int, Run] = field(default_factory=dict)


def sweep_id(cells: Sequence[Cell]) -> str:
    """What sweeps of the same cells are all known by."""
    content = json.dumps([cell.spec.model_dump(mode="json") for cell in cells])
    return f"sweep-{hashlib.sha256(content.encode()).hexdigest()[:16]}"


def default_name(plan: Plan) -> str:
    """“Digits: method × images per class × seed”."""
    dataset = plan.base.get("dataset", RunSpec.model_fields["dataset"].default)
    first = "" if "dataset" in plan.over else f"{words.dataset_title(dataset)}: "
    return (first + " × ".join(fields()[name].label.lower() for name in plan.over))[:200]


def keep(store: Store, plan: Plan, cells: Sequence[Cell], name: str = "") -> str:
    """Remember a sweep, and let runs that are here already stand for their cells; its id. Nothing is queued.

    ``Refused`` for a name that is none.
    """
    id = sweep_id(cells)
    name = name.strip() or next((row["name"] for row in store.sweeps(id)), default_name(plan))
    if len(name) > 200 or not name.isprintable():
        raise Refused("The name of a sweep must be one line of at most 200 characters.")
    store.keep_sweep(id, name, plan.to_dict())
    there = store.cells(id)
    for cell in cells:
        if cell.place not in there or there[cell.place].status in ("failed", "stopped"):
            run = _stands_for(store, cell.spec)
            if run is not None:
                store.take_cell(id, cell.place, run.id)
    return id


def open_cells(store: Store, id: str, cells: Sequence[Cell], waiting: bool = False) -> list[tuple[Cell, Run | None]]:
    """The cells that are neither done nor under way, each with its run where that can go on; with those that are
    ``waiting`` for a worker if asked for."""
    there = store.cells(id)
    found: list[tuple[Cell, Run | None]] = []
    for cell in cells:
        run = there.get(cell.place)
        if run is None or run.status in ("failed", "stopped"):
            found.append((cell, None))
        elif run.status == "interrupted" or (waiting and run.status == "queued"):
            found.append((cell, run))
    return found


def start(store: Store, plan: Plan, name: str = "") -> str:
    """Queue what is left of a sweep, and return its id. ``Refused`` where a cell cannot be; nothing is queued then."""
    cells = expand(plan)
    id = keep(store, plan, cells, name)
    for cell, run in open_cells(store, id, cells):
        if run is not None:
            store.command(run.id, "resume")
        else:
            store.submit("distill", cell.spec, cell=(id, cell.place))
    return id


def cancel(store: Store, id: str) -> int:
    """Stop all runs of a sweep that are not done, those it shares with others included; how many."""
    count = 0
    for run in sorted(store.cells(id).values(), key=lambda run: run.status != "queued"):  # else the next one begins
        if run.status in (*ACTIVE, "interrupted"):
            try:
                store.command(run.id, "stop")
                count += 1
            except Refused:  # it has just ended
                continue
    return count


def load(store: Store, id: str) -> Sweep:
    """A sweep with its runs. ``Refused`` where there is none of that id."""
    found = store.sweeps(id)
    if not found:
        raise Refused("There is no such sweep here: it may have been deleted, or made on another machine.")
    row = found[0]
    return Sweep(row["id"], row["name"], row["created"], Plan(**row["plan"]), store.cells(row["id"]))


def _stands_for(store: Store, spec: RunSpec) -> Run | None:
    """A run of exactly these settings that is done or under way, or None."""
    runs = store.alike("distill", spec)
    return next((r for r in runs if r.status == "done"), None) or next((r for r in runs if r.status in ACTIVE), None)


# ---- what it shows --------------------------------------------------------------------------------------------------


@dataclass(frozen=True, order=True)
class Measure:
    """What a number is of. Those of different measures are never put together."""

    split: str  # test, or held-out: of training images, while distilling
    protocol: str
    network: str

    @property
    def label(self) -> str:
        """In words."""
        what = "Test accuracy" if self.split == "test" else "Accuracy while distilling, on held-out training images"
        network = words.WORDS["network"].get(self.network, self.network)
        return f"{what} ({self.protocol} protocol{f', {network}' if network else ''})"


def measured(store: Store, sweep: Sweep) -> list[dict[str, Any]]:
    """A row for each cell and measure: cell, run, status, the varied settings, accuracy (a fraction, the mean over
    students), and what it cost: distilling ``seconds`` and ``steps``. A cell without numbers has one row, with None."""
    rows = []
    names = list(sweep.plan.over)
    finals: dict[str, dict[Measure, float]] = {}
    for e in store.evaluations([run.id for run in sweep.runs.values()]):
        key = Measure(e.get("split", "test"), e["protocol"], e["network"])
        finals.setdefault(e["run"], {})[key] = e["mean"]
    for place, combination in enumerate(itertools.product(*sweep.plan.over.values())):
        run = sweep.runs.get(place)
        about: dict[str, Any] = {"cell": place, "run": None, "status": "not begun"}
        about |= dict(zip(names, combination, strict=True)) | {"seconds": None, "steps": None}
        found: dict[Measure, float] = {}
        if run is not None:
            about |= {"run": run.id, "status": run.status, "seconds": run.seconds, "steps": run.step}
            found |= finals.get(run.id, {})
            for event in store.events(run.id, kinds=("accuracy",), limit=100_000)[-1:]:
                found[Measure("held-out", event.data["protocol"], "")] = event.data["accuracy"]
        rows += [{**about, **asdict(key), "accuracy": value} for key, value in sorted(found.items())]
        if not found:
            rows.append({**about, "split": None, "protocol": None, "network": None, "accuracy": None})
    return rows


def measures(rows: Sequence[dict[str, Any]]) -> list[Measure]:
    """What was measured, what most cells have first, and of equals the test accuracy."""
    count: dict[Measure, int] = {}
    for row in rows:
        if row["accuracy"] is not None:
            key = Measure(row["split"], row["protocol"], row["network"])
            count[key] = count.get(key, 0) + 1
    return sorted(count, key=lambda key: (key.split != "test", -count[key], key))


def trend(
    rows: Sequence[dict[str, Any]], names: Sequence[str], along: str = "", value: str = "accuracy"
) -> list[dict[str, Any]]:
    """``value`` along one of the varied settings ``names``: a row for each of its values and for each combination of
    the others but the seed, over which mean and 95 % t interval are taken (None for fewer than two numbers)."""
    kept = [name for name in names if name not in (along, "seed")] + ([along] if along else [])
    groups: dict[tuple[Any, ...], list[float]] = {}
    for row in rows:
        if row[value] is not None:
            groups.setdefault(tuple(row[name] for name in kept), []).append(row[value])
    found = []
    for key, numbers in groups.items():
        mean, low, high = student_t(numbers)
        spread = {"mean": mean, "low": low, "high": high, "n": len(numbers)}
        found.append({**dict(zip(kept, key, strict=True)), **spread})
    return found
