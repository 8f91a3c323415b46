"""A whole run as one zip that another Limbeck imports, and the reading of such a zip from anybody (torch-free).

``run.json`` says what it is, ``events.json`` what happened step by step, ``evaluations.json`` what students of it
reached; ``frames/<step>.webp`` are its pictures, ``result/`` is its set. Of what somebody else's zip holds nothing is
believed before it is checked: names and sizes first, then the types and ranges of every value, then each picture, of
which only the pixels are kept.

What stands beside the film comes along but for the nearest real images: whoever gives a run away gives away images
that were made, not photographs that they were made from.
"""

from __future__ import annotations

import errno
import io
import json
import re
import statistics
import tempfile
import time
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, BinaryIO, Literal, NoReturn

from PIL import Image
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints, TypeAdapter, ValidationError

from engine.data.folder_check import BROKEN, MAX_RATIO, RATIO_FROM, open_zip
from engine.errors import Refused
from engine.exports.facts import story
from engine.runs.store import Store
from engine.spec import SPECS, BaselineSpec, ProtocolName, RunSpec

FORMAT = 1
NAMES = re.compile(
    r"(run|events|evaluations)\.json|frames/\d{6,9}\.webp|result/synthetic\.(json|safetensors)|"
    r"beside/(mean\.webp|cells\.json)"
)
TOP = re.compile(r"(?:[^/]+/)?run\.json")
JSON_LIMITS = {"run.json": 1_000_000, "events.json": 50_000_000, "evaluations.json": 5_000_000}  # bytes unpacked
CELLS_LIMIT = 20_000_000
MEAN, CELLS = "beside/mean.webp", "beside/cells.json"
SET_LIMITS = {"synthetic.json": 5_000_000, "synthetic.safetensors": 2_000_000_000}
MAX_MEMBERS, MAX_FRAMES = 10_000, 2_000
MAX_PIXELS = 2_000_000_000  # of all frames together

README = """{what}

A run of Limbeck: its pictures, curves, accuracies and set. Another Limbeck takes it in on its page “Your images”, or
with “python -m engine import {name}”. Everything in here can be read without it, too:

run.json          what was made, with which settings, when and on what
events.json       what happened: losses and accuracies while it went, by step
evaluations.json  accuracies of networks trained on the set; fractions in [0, 1]
frames/           the images as they were at a step, as lossless WebP, one column per class
beside/           the mean of the real images of each class, laid out alike, and the labels that were learned
result/           the set: synthetic.safetensors (tensors) and synthetic.json (everything else)
"""


# ---- what the files may hold ----------------------------------------------------------------------------------------


def _printable(text: str) -> str:
    if not text.isprintable():
        raise ValueError("text must be printable")
    return text


Text = Annotated[str, StringConstraints(max_length=500), AfterValidator(_printable)]
Words = Annotated[str, StringConstraints(min_length=1, max_length=200), AfterValidator(_printable)]
Name = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9_.-]{0,59}$")]
Share = Annotated[float, Field(ge=0, le=1)]
Seconds = Annotated[float, Field(ge=0, le=1e9)]
Moment = Annotated[float, Field(ge=0, le=1e11)]
Step = Annotated[int, Field(ge=0, lt=10**9)]
Count = Annotated[int, Field(ge=1, le=10_000)]
Number = Annotated[float, Field(ge=-1e30, le=1e30)]
Split = Literal["test", "held-out"]
Shares = Annotated[list[Share], Field(min_length=1, max_length=100)]


class Checked(BaseModel):
    """Nothing unknown, nothing of another type, no NaN and no infinity."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)


class About(Checked):
    """``run.json``."""

    limbeck_run: Literal[FORMAT]  # type: ignore[valid-type]
    kind: Literal["distill", "baseline", "soften", "edit", "import"]
    title: Words
    dataset: Annotated[Text, StringConstraints(min_length=1)]
    spec: dict[str, Any]
    made: Moment | None
    step: Step
    seconds: Seconds
    machine: Text


class Layout(Checked):
    """How a frame's images lie: cells of ``size`` pixels, one class a column unless ``cells`` says otherwise."""

    columns: Annotated[int, Field(ge=1, le=1000)]
    rows: Annotated[int, Field(ge=1, le=20_000)]
    size: Annotated[int, Field(ge=1, le=256)]
    channels: Literal[1, 3]
    classes: Annotated[list[Words], Field(max_length=1000)]
    cells: Annotated[list[Annotated[int, Field(ge=0, le=1000)]], Field(max_length=1000)] = []
    machine: Text = ""


class Frame(Checked):
    """When a picture of the film was taken, in seconds of distilling and real images looked at; and each image's share
    of the squared gradient, in thousandths, row by row."""

    seconds: Seconds | None = None
    images_seen: Annotated[int, Field(ge=0, lt=10**15)] | None = None
    shares: Annotated[list[Annotated[int, Field(ge=0, le=1000)] | None], Field(max_length=100_000)] | None = None


Class = Annotated[int, Field(ge=0, lt=1000, strict=True)]
Entry = Annotated[tuple[Class, Annotated[Number, Field(strict=True)]], Field(strict=False)]  # in JSON, a list


class Cells(Checked):
    """``beside/cells.json``: of each cell, row by row, the largest entries of its image's label, each a class and a
    value."""

    labels: Annotated[list[Annotated[list[Entry], Field(max_length=10)] | None], Field(max_length=100_000)] = []


class Accuracy(Checked):
    """A point of the curve of live accuracies."""

    accuracy: Share
    std: Share = 0.0
    protocol: ProtocolName = "quick"
    students: Count = 1
    split: Split = "held-out"
    seconds: Seconds
    step: Step = 0


class Reference(Checked):
    """What real images reach, the curve's dashed line."""

    label: Words
    kind: Literal["random", "selected"]
    accuracy: Share
    std: Share = 0.0
    protocol: ProtocolName = "quick"
    split: Split = "held-out"
    draws: Count = 1


class Side(Checked):
    """One of the five trainings behind the robust scores."""

    side: Literal["syn-hard", "syn-any", "random-any"]
    augmented: bool
    mean: Share
    std: Share
    accuracies: Shares
    rate: Annotated[float, Field(gt=0, le=1e6)]
    held_out: Share


class Ranking(Checked):
    """The robust scores."""

    lrs: Share
    ars: Share
    hlr: Annotated[float, Field(ge=-1, le=1)]
    ior: Annotated[float, Field(ge=-1, le=1)]
    real_hard: Share
    sides: Annotated[list[Side], Field(min_length=5, max_length=5)]
    weight: Share
    balance: Share
    protocol: ProtocolName
    network: Name
    seeds: Count
    split: Split
    soft: bool
    images: Annotated[int, Field(ge=0, le=10**9)]
    reference: Text
    reference_name: Text
    seconds: Seconds
    dataset: Text


class Evaluation(Checked):
    """One entry of ``evaluations.json``. Mean and spread are computed anew from the accuracies."""

    mean: Share
    std: Share
    accuracies: Shares
    protocol: ProtocolName
    network: Name
    seconds: Seconds = 0.0
    split: Split = "test"
    seeds: Annotated[list[int], Field(max_length=100)] = []
    images: Annotated[int, Field(ge=0, le=10**9)] = 0
    dataset: Text = ""


Measure = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_.-]{1,40}$")]
STRICT = ConfigDict(strict=True, allow_inf_nan=False)
STEP: TypeAdapter[int] = TypeAdapter(Step, config=STRICT)
MODELS: dict[str, TypeAdapter[Any]] = {
    "layout": TypeAdapter(Layout),
    "frame": TypeAdapter(Frame),
    "metric": TypeAdapter(Annotated[dict[Measure, Number | None], Field(max_length=40)], config=STRICT),
    "accuracy": TypeAdapter(Accuracy),
    "reference": TypeAdapter(Reference),
    "ranking": TypeAdapter(Ranking),
}  # of events; a status is a store's own


@dataclass(frozen=True)
class Carried:
    """A run that was read from a zip and checked: what it is, events as (kind, step, data), evaluations, and the
    ``folder`` with ``frames/<step>.webp`` and what stands ``beside/`` them, made anew from their pixels and values, and
    ``result/``, whose tensors nobody has looked at yet."""

    about: About
    events: list[tuple[str, int, dict[str, Any]]]
    evaluations: list[dict[str, Any]]
    folder: Path
    frames: dict[int, Path]

    @property
    def layout(self) -> dict[str, Any]:
        """How the frames' images lie; see ``Layout``."""
        return _layout(self.events)


# ---- writing --------------------------------------------------------------------------------------------------------


def export_run(store: Store, id: str) -> bytes:
    """The run as a zip. Raises ``Refused`` for a run without a result or pictures, which would be worth nothing."""
    told = story(store, id)
    folder = store.result_folder(id)
    if folder is None or not told.frames or not told.layout:
        raise Refused(f"Run {id} has no result to export yet; it is {told.run.status}.")
    kind: Any = told.kind if told.kind in ("distill", "baseline", "soften", "edit") else "import"
    origin = told.origin
    about = About(
        limbeck_run=FORMAT,
        kind=kind,
        title="".join(c for c in told.run.title if c.isprintable())[:200] or id,
        dataset=told.run.dataset,
        spec={} if kind == "import" else told.spec,  # an import's only says where a file lay
        made=origin.made if origin else told.run.finished,
        step=told.steps,
        seconds=origin.seconds if origin else told.run.seconds,
        machine=told.machine,
    )
    there = set(told.frames)
    events = [
        {"kind": event.kind, "step": event.step, "data": event.data}
        for event in store.events(id, kinds=tuple(MODELS), limit=1_000_000)
        if event.kind != "frame" or event.step in there
    ]
    evaluations = [{k: v for k, v in e.items() if k in Evaluation.model_fields} for e in told.evaluations]
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:

        def add(name: str, content: bytes | str, packed: bool = True) -> None:
            info = zipfile.ZipInfo(name, time.localtime(told.run.finished or told.run.created)[:6])
            info.compress_type = zipfile.ZIP_DEFLATED if packed else zipfile.ZIP_STORED
            info.external_attr = 0o644 << 16
            archive.writestr(info, content)

        add("README.txt", README.format(what=told.what, name=f"limbeck-{id}-run.zip"))
        add("run.json", about.model_dump_json(indent=1))
        add("events.json", json.dumps(events))
        add("evaluations.json", json.dumps(evaluations, indent=1))
        for step in told.frames:
            path = store.frame_path(id, step)
            if path is not None:
                add(f"frames/{step:06d}.webp", path.read_bytes(), packed=False)
        if mean := store.beside(id, "mean.webp"):
            add(MEAN, mean.read_bytes(), packed=False)
        if cells := store.beside(id, "cells.json"):
            add(CELLS, json.dumps({"labels": json.loads(cells.read_bytes()).get("labels", [])}))
        for name in SET_LIMITS:
            add(f"result/{name}", (folder / name).read_bytes())
    return out.getvalue()


# ---- reading --------------------------------------------------------------------------------------------------------


def is_run(path: str | Path) -> bool:
    """Whether a file claims to be such a zip."""
    path = Path(path)
    if path.suffix.lower() != ".zip" or not path.is_file():
        return False
    try:
        with open_zip(path) as archive:
            return any(TOP.fullmatch(name) for name in archive.namelist())
    except Refused:
        return False


@contextmanager
def unpacked(path: Path) -> Iterator[Carried]:
    """``read_run`` into a folder that is there for as long as the block runs."""
    with tempfile.TemporaryDirectory(prefix="limbeck-") as folder:
        yield read_run(path, Path(folder))


def read_run(path: Path, folder: Path) -> Carried:
    """Check a zip from anybody and unpack what is good of it into ``folder``, which must be empty.

    Files that belong to no run are not looked at; all may lie in one folder inside the zip. Names in the zip only say
    what a file is, never where anything is written. Raises ``Refused`` with a sentence for everything that is not as it
    should be.
    """
    name = path.name
    with open_zip(path) as archive:
        members = _members(archive, name)
        parts = {part: _json(archive, members[part], part, name, limit) for part, limit in JSON_LIMITS.items()}
        about = _checked(TypeAdapter(About), parts["run.json"], "run.json", name)
        about = about.model_copy(update={"spec": _spec(about, name)})
        events = _events(parts["events.json"], name)
        evaluations = _evaluations(parts["evaluations.json"], about.dataset, name)
        layout = _layout(events)
        frames = _frames(archive, members, events, layout, folder, name)
        _beside(archive, members, layout, folder, name)
        (folder / "result").mkdir()
        for part, limit in SET_LIMITS.items():
            with (folder / "result" / part).open("wb") as sink:
                unpack(archive, members[f"result/{part}"], sink, limit)
    return Carried(about, events, evaluations, folder, frames)


def unpack(archive: zipfile.ZipFile, member: zipfile.ZipInfo, sink: BinaryIO, limit: int) -> None:
    """Write one member. Raises ``Refused`` when it claims to be too large, or is: claims may lie."""
    shown = "".join(c if c.isprintable() else "?" for c in Path(member.filename).name)[:80]
    large = f"{shown} in the zip unpacks to more than {max(1, limit // 1_000_000):,} MB."
    if member.file_size > limit:
        raise Refused(large)
    if member.file_size > RATIO_FROM and member.file_size > MAX_RATIO * max(member.compress_size, 1):
        raise Refused(f"{shown} in the zip unpacks to more than {MAX_RATIO} times its size; it is not read.")
    if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise Refused(f"{shown} is packed in an unusual way; pack it as an ordinary zip.")
    try:
        with archive.open(member) as source:
            left = limit
            while block := source.read(1 << 20):
                left -= len(block)
                if left < 0:
                    raise Refused(large)
                sink.write(block)
    except BROKEN as error:
        if isinstance(error, Refused):
            raise
        if isinstance(error, OSError) and error.errno == errno.ENOSPC:
            raise
        raise Refused(f"{shown} in the zip is damaged or encrypted; make the zip anew.") from None


def _members(archive: zipfile.ZipFile, name: str) -> dict[str, zipfile.ZipInfo]:
    """The members that make a run, by their names less the one folder that may be around them."""
    files = archive.infolist()
    if len(files) > MAX_MEMBERS:
        raise Refused(f"{name} holds more than {MAX_MEMBERS:,} files; no run does.")
    top = next((m.filename for m in files if TOP.fullmatch(m.filename)), None)
    if top is None:
        raise Refused(f"{name} holds no run: run.json is missing in it.")
    around = top.removesuffix("run.json")
    found: dict[str, zipfile.ZipInfo] = {}
    for member in files:
        inside = member.filename.removeprefix(around)
        if not member.filename.startswith(around) or not NAMES.fullmatch(inside):
            continue
        if inside in found:
            raise Refused(f"{name} holds {inside} twice; export the run again.")
        found[inside] = member
    for needed in (*JSON_LIMITS, *(f"result/{part}" for part in SET_LIMITS)):
        if needed not in found:
            raise Refused(f"{name} holds no whole run: {needed} is missing in it.")
    return found


def _read(archive: zipfile.ZipFile, member: zipfile.ZipInfo, limit: int) -> bytes:
    sink = io.BytesIO()
    unpack(archive, member, sink, limit)
    return sink.getvalue()


def _json(archive: zipfile.ZipFile, member: zipfile.ZipInfo, part: str, name: str, limit: int) -> Any:
    def constant(value: str) -> NoReturn:
        raise ValueError(value)

    try:
        return json.loads(_read(archive, member, limit).decode(), parse_constant=constant)
    except (ValueError, RecursionError) as error:
        if isinstance(error, Refused):
            raise
        raise Refused(f"{part} in {name} is not JSON that can be read; export the run again.") from None


def _checked(model: TypeAdapter[Any], value: Any, part: str, name: str) -> Any:
    """``value`` as ``model`` says. ``Refused`` names the first place where it is not."""
    try:
        return model.validate_python(value)
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        where = ".".join(str(p) for p in first["loc"] if isinstance(p, int) or str(p).isidentifier())[:80]
        problem = first["msg"][:1].lower() + first["msg"][1:160]
        raise Refused(f"{part} in {name} is not as a run's should be: {where or 'it'}: {problem}.") from None
    except RecursionError:
        raise Refused(f"{part} in {name} is not as a run's should be: it holds too much in itself.") from None


def _spec(about: About, name: str) -> dict[str, Any]:
    """The settings, as this version knows them, since pages and commands are made from them. Raises ``Refused``."""
    if about.kind == "import":
        if about.spec:
            raise Refused(f"run.json in {name} has settings, but says that the set was imported; export the run again.")
        return {}
    try:
        spec = SPECS[about.kind].model_validate(about.spec)
    except (ValidationError, Refused, RecursionError):
        raise Refused(
            f"run.json in {name} has settings that this version of Limbeck does not know, or that were changed; import "
            "it with the version that made it, or export its set alone (.zip) and import that."
        ) from None
    if isinstance(spec, RunSpec | BaselineSpec) and spec.dataset != about.dataset:
        raise Refused(f"run.json in {name} names two datasets; export the run again.")
    return spec.model_dump(mode="json")


def _events(value: Any, name: str) -> list[tuple[str, int, dict[str, Any]]]:
    """Events as (kind, step, data), in their order."""
    if not isinstance(value, list) or len(value) > 200_000:
        raise Refused(f"events.json in {name} is not a list of at most 200,000 events.")
    found = []
    for i, event in enumerate(value):
        part = f"events.json, event {i + 1},"
        if not isinstance(event, dict) or set(event) != {"kind", "step", "data"} or event["kind"] not in MODELS:
            raise Refused(f"{part} in {name} is none: it needs a kind ({', '.join(MODELS)}), a step and data.")
        step = _checked(STEP, event["step"], part, name)
        data = _checked(MODELS[event["kind"]], event["data"], part, name)
        data = data.model_dump(exclude_none=True) if isinstance(data, BaseModel) else data
        if event["kind"] == "metric" and not isinstance(data.get("seconds"), float | int):
            raise Refused(f"{part} in {name} does not say after how many seconds it was.")
        found.append((event["kind"], step, data))
    layouts = [data for kind, _, data in found if kind == "layout"]
    if len(layouts) != 1 or len(layouts[0]["classes"]) != layouts[0]["columns"]:
        raise Refused(f"events.json in {name} needs one layout that names the class of every column.")
    return found


def _evaluations(value: Any, dataset: str, name: str) -> list[dict[str, Any]]:
    evaluation: TypeAdapter[Evaluation] = TypeAdapter(Evaluation)
    if not isinstance(value, list) or len(value) > 5_000:
        raise Refused(f"evaluations.json in {name} is not a list of at most 5,000 evaluations.")
    found = []
    for i, entry in enumerate(value):
        e = _checked(evaluation, entry, f"evaluations.json, entry {i + 1},", name)
        if e.seeds and len(e.seeds) != len(e.accuracies):
            raise Refused(f"evaluations.json, entry {i + 1}, in {name} needs a seed for each accuracy, or none.")
        mean, std = statistics.fmean(e.accuracies), statistics.pstdev(e.accuracies)
        found.append({**e.model_dump(), "mean": mean, "std": std, "dataset": e.dataset or dataset, "imported": True})
    return found


def _layout(events: list[tuple[str, int, dict[str, Any]]]) -> dict[str, Any]:
    return next(data for kind, _, data in events if kind == "layout")


def _size(layout: dict[str, Any]) -> tuple[int, int]:
    """Width and height of a frame, in pixels."""
    return layout["columns"] * layout["size"], layout["rows"] * layout["size"]


def _frames(
    archive: zipfile.ZipFile,
    members: dict[str, zipfile.ZipInfo],
    events: list[tuple[str, int, dict[str, Any]]],
    layout: dict[str, Any],
    folder: Path,
    name: str,
) -> dict[int, Path]:
    """Write the frames anew from their pixels; every one has its event, and every event its frame."""
    size = _size(layout)
    there = {int(Path(part).stem): member for part, member in members.items() if part.startswith("frames/")}
    said = [step for kind, step, _ in events if kind == "frame"]
    if not there or len(there) > MAX_FRAMES or len(there) * size[0] * size[1] > MAX_PIXELS:
        raise Refused(
            f"{name} holds {len(there):,} frames of {size[0]}×{size[1]} pixels: none, or more than a run has."
        )
    if set(said) != set(there) or len(said) != len(set(said)):
        raise Refused(f"The frames in {name} are not those that its events speak of; export the run again.")
    (folder / "frames").mkdir()
    found = {}
    for step, member in sorted(there.items()):
        content = _read(archive, member, 4 * size[0] * size[1] + 100_000)
        found[step] = folder / "frames" / f"{step:06d}.webp"
        found[step].write_bytes(_again(content, size, layout["channels"], f"The frame of step {step:,} in {name}"))
    return found


def _beside(
    archive: zipfile.ZipFile, members: dict[str, zipfile.ZipInfo], layout: dict[str, Any], folder: Path, name: str
) -> None:
    """Write what stands beside the film, as far as it came along."""
    (folder / "beside").mkdir()
    if MEAN in members:
        size = _size(layout)
        content = _read(archive, members[MEAN], 4 * size[0] * size[1] + 100_000)
        (folder / MEAN).write_bytes(_again(content, size, layout["channels"], f"{MEAN} in {name}"))
    if CELLS in members:
        cells = _checked(TypeAdapter(Cells), _json(archive, members[CELLS], CELLS, name, CELLS_LIMIT), CELLS, name)
        known = all(c < layout["columns"] for label in cells.labels for c, _ in label or ())
        if len(cells.labels) not in (0, layout["columns"] * layout["rows"]) or not known:
            raise Refused(f"{CELLS} in {name} speaks of other cells or classes than the run has; export the run again.")
        (folder / CELLS).write_text(json.dumps({"labels": cells.labels} if cells.labels else {}))


def _again(content: bytes, size: tuple[int, int], channels: int, what: str) -> bytes:
    """A picture made anew from its pixels, so that nothing else that came with it stays."""
    try:
        with Image.open(io.BytesIO(content), formats=("WEBP",)) as image:
            if image.size != size or getattr(image, "n_frames", 1) != 1:
                raise Refused(f"{what} is not one picture of {size[0]}×{size[1]} pixels, as its layout says.")
            image.load()
            plain = image.convert("L" if channels == 1 else "RGB")
    except Refused:
        raise
    except Exception:  # Pillow's decoders raise many kinds
        raise Refused(f"{what} is no WebP that can be read; export the run again.") from None
    out = io.BytesIO()
    plain.save(out, "WEBP", lossless=True, method=0, quality=0)
    return out.getvalue()
