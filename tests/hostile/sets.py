"""Hostile and strange saved sets: folders and zips of ``synthetic.safetensors`` and ``synthetic.json``."""

from __future__ import annotations

import json
import os
import shutil
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from engine.synthetic import ZCA, Start, SyntheticSet
from tests.hostile.archives import Entry, raw_zip
from tests.hostile.case import Case, told_apart

SIDE, CLASSES = 8, 3
PIXELS = 3 * SIDE * SIDE
DATA, ABOUT = "synthetic.safetensors", "synthetic.json"


def sound() -> SyntheticSet:
    """A small set with everything that a set can have beside its images."""
    zca = ZCA(torch.eye(PIXELS)[:, :4].contiguous(), torch.ones(4), 1.0, torch.zeros(PIXELS))
    start = Start("fixed", "mlp", 8, 3, weights={"head.weight": torch.ones(2, 2)})
    return SyntheticSet(
        torch.zeros(6, 3, SIDE, SIDE),
        torch.arange(6) % CLASSES,
        "cifar10",
        tuple("abc"),
        (0.5,) * 3,
        (0.2,) * 3,
        zca=zca,
        step_sizes=torch.ones(2),
        turns=2,
        start=start,
        provenance={"steps": 7},
    )


Spoil = Callable[[Path], Any]


def saved(spoil: Spoil) -> Callable[[Path], Path]:
    """The set as a folder, spoiled."""

    def make(folder: Path) -> Path:
        spoil(sound().save(folder / "set"))
        return folder / "set"

    return make


def about(**changes: Any) -> Callable[[Path], Path]:
    """The set with other facts; what is ``...`` is taken away."""

    def spoil(folder: Path) -> None:
        facts = {**json.loads((folder / ABOUT).read_text()), **changes}
        (folder / ABOUT).write_text(json.dumps({k: v for k, v in facts.items() if v is not ...}))

    return saved(spoil)


def started(**changes: Any) -> Callable[[Path], Path]:
    start = {"initial": "fixed", "network": "mlp", "width": 8, "depth": 3, "source": "", "source_steps": 0}
    return about(start={**start, **changes})


def text(content: str | bytes) -> Callable[[Path], Path]:
    content = content.encode() if isinstance(content, str) else content
    return saved(lambda folder: (folder / ABOUT).write_bytes(content))


def with_tensors(**changes: Any) -> Callable[[Path], Path]:
    """The set with other tensors; what is None is taken away. In a name, two underscores stand for a dot."""

    def spoil(folder: Path) -> None:
        named = {name.replace("__", "."): value for name, value in changes.items()}
        tensors = {**load_file(folder / DATA), **named}
        save_file({k: v for k, v in tensors.items() if v is not None}, folder / DATA)

    return saved(spoil)


def headed(header: str | bytes, data: bytes = b"", size: int | None = None) -> Callable[[Path], Path]:
    """A safetensors file of this header, whatever it says."""
    content = header.encode() if isinstance(header, str) else header
    size = len(content) if size is None else size
    return saved(lambda folder: (folder / DATA).write_bytes(struct.pack("<Q", size) + content + data))


def claims(shape: list[int], offsets: list[int], kind: str = "F32") -> Callable[[Path], Path]:
    return headed(json.dumps({"images": {"dtype": kind, "shape": shape, "data_offsets": offsets}}), bytes(64))


def zipped(*more: Entry, **replaced: Entry | None) -> Callable[[Path], Path]:
    """The set as a zip with further members; ``data`` and ``about`` may be replaced."""

    def make(folder: Path) -> Path:
        whole = sound().save(folder / "whole")
        found = {"data": Entry(DATA, (whole / DATA).read_bytes()), "about": Entry(ABOUT, (whole / ABOUT).read_bytes())}
        shutil.rmtree(whole)
        (folder / "set.zip").write_bytes(raw_zip([*more, *(e for e in {**found, **replaced}.values() if e)]))
        return folder / "set.zip"

    return make


def with_pipe(name: str) -> Callable[[Path], Path]:
    def spoil(folder: Path) -> None:
        (folder / name).unlink()
        os.mkfifo(folder / name)

    return saved(spoil)


def with_link(folder: Path) -> None:
    (folder / DATA).unlink()
    (folder / DATA).symlink_to("/dev/zero")


def nested(levels: int) -> Any:
    found: Any = 1
    for _ in range(levels):
        found = [found]
    return found


def zeros(size: int) -> bytes:
    return bytes(size)


def whole(found: SyntheticSet) -> None:
    assert found.images.shape == (6, 3, SIDE, SIDE) and found.classes == ("a", "b", "c")
    found.to_display()


UNREADABLE = "The synthetic set in set cannot be read"
NAMES = "must name dataset and classes"

CASES = told_apart(
    # facts
    *(
        Case(f"set: {what}", text(content), UNREADABLE)
        for what, content in (
            ("no facts", ""),
            ("facts that are null", "null"),
            ("facts that are a number", "7"),
            ("facts in a list", "[1, 2]"),
            ("a text", '"x"'),
            ("cut facts", '{"dataset": "cif'),
            ("facts in UTF-16", '{"a": 1}'.encode("utf-16")),
            ("facts in Latin-1", b'{"dataset": "\xe9"}'),
            ("zero bytes", bytes(200)),
            ("comments", "{} // sprung"),
            ("single quotes", "{'dataset': 'x'}"),
            ("a number of 5,000 digits", '{"format": ' + "9" * 5000 + "}"),
            ("a hundred thousand brackets", "[" * 100_000),
            ("brackets that close", "[" * 50_000 + "]" * 50_000),
            ("objects in objects", '{"a":' * 50_000 + "1" + "}" * 50_000),
        )
    ),
    Case("set: facts of six megabytes", text(" " * 6_000_000 + "{}"), "larger than 5 MB"),
    Case("set: many empty lists", text("[" + "[]," * 300_000 + "1]"), UNREADABLE),
    Case(
        "set: a key twice",
        saved(lambda f: (f / ABOUT).write_text((f / ABOUT).read_text()[:-1] + ', "kind": "x"}')),
        "kind must be",
    ),
    *(
        Case(f"set: without {key}", about(**{key: ...}), UNREADABLE)
        for key in ("dataset", "classes", "mean", "std", "kind", "protocol")
    ),
    *(
        Case(f"set: dataset {value!r:.30}", about(dataset=value), NAMES)
        for value in (5, None, [], {}, "", "a\nb", "\x1b[31m", "\u202egpj", "x" * 501, True)
    ),
    *(
        Case(f"set: classes {value!r:.30}", about(classes=value), f"{NAMES}|classes, not|Hard labels|{UNREADABLE}")
        for value in (
            None,
            5,
            [],
            "",
            [1, 2, 3],
            [None] * 3,
            [["a"], ["b"], ["c"]],
            ["a", "b\n", "c"],
            ["a", "b", "\x07"],
            {"a": {}},
            ["x"] * 1001,
            ["a" * 600, "b", "c"],
        )
    ),
    *(
        Case(f"set: mean {value!r:.30}", about(mean=value), f"Mean and standard|{UNREADABLE}")
        for value in (
            None,
            5,
            [],
            [0.5],
            [0.5] * 4,
            ["a", "b", "c"],
            [None] * 3,
            [float("nan")] * 3,
            [float("inf")] * 3,
            {"a": 1},
            [[1], [2], [3]],
        )
    ),
    *(
        Case(f"set: std {value!r:.30}", about(std=value), f"Mean and standard|{UNREADABLE}")
        for value in ([0, 0, 0], [-1, 1, 1], [float("nan")] * 3, [float("inf")] * 3, [1e999] * 3, [])
    ),
    *(
        Case(f"set: kind {value!r:.30}", about(kind=value), "kind must be")
        for value in (None, 5, [], {}, "DISTILLED", "<script>")
    ),
    *(
        Case(f"set: protocol {value!r:.30}", about(protocol=value), "protocol one of")
        for value in (None, 5, [], {}, "none", "../x")
    ),
    *(
        Case(f"set: factor {value!r:.30}", about(factor=value), "hold 1, 4 or 9")
        for value in (0, 7, -1, 2.0, "2", None, True, 10**30)
    ),
    *(Case(f"set: turns {value!r:.30}", about(turns=value), "turns") for value in (-2, 1e3, [2], True, 10**30)),
    *(
        Case(f"set: whitening {value!r:.30}", about(zca_base=value), f"whitening|{UNREADABLE}")
        for value in (0, -1, -0.5, float("nan"), float("inf"), "x", None, [])
    ),
    *(
        Case(f"set: provenance {value!r:.30}", about(provenance=value), f"{UNREADABLE}|on few levels")
        for value in ("x", 7, [1], nested(60), {"a": nested(300)})
    ),
    Case("set: a start of nothing", about(start={}), UNREADABLE),
    Case("set: a start of too much", started(more=1), UNREADABLE),
    *(
        Case(f"set: start {k} {v!r:.20}", started(**{k: v}), "which initial network")
        for k, v in (
            ("network", 5),
            ("network", []),
            ("network", ""),
            ("network", "a\nb"),
            ("source", 5),
            ("source", None),
            ("depth", -1),
            ("depth", 2.0),
            ("source_steps", 10**9),
            ("initial", []),
            ("initial", None),
        )
    ),
    # tensors
    *(
        Case(f"set: images in {k}", with_tensors(images=torch.zeros(6, 3, SIDE, SIDE).to(k)), "float32 images")
        for k in (
            torch.float16,
            torch.bfloat16,
            torch.uint8,
            torch.int64,
            torch.bool,
            torch.float8_e4m3fn,
            torch.complex64,
        )
    ),
    *(
        Case(f"set: labels in {k}", with_tensors(labels=torch.zeros(6).to(k)), "Labels must be 6 whole numbers")
        for k in (torch.float32, torch.int32, torch.bool, torch.uint8)
    ),
    *(
        Case(f"set: images shaped {shape}", with_tensors(images=torch.zeros(shape)), f"synthetic set|{UNREADABLE}")
        for shape in (
            (),
            (0,),
            (6,),
            (6, 3, SIDE, SIDE, 1),
            (6, 2, SIDE, SIDE),
            (6, 400, 1, 1),
            (6, 3, SIDE, 4),
            (6, 3, 4, SIDE),
            (6, 3, 0, 0),
            (6, 1, 300, 300),
            (6, 3, 1, 100_000),
            (20_001, 1, 1, 1),
        )
    ),
    Case("set: a tensor too many", with_tensors(more=torch.zeros(4)), reads=whole),
    Case("set: no labels", with_tensors(labels=None), UNREADABLE),
    Case("set: no whitening", with_tensors(zca__gains=None), UNREADABLE),
    Case("set: no weights to start from", with_tensors(start__head__weight=None), "weights of the initial network"),
    *(
        Case(f"set: whitening shaped {n}", with_tensors(**{f"zca__{n}": t}), "whitening of the synthetic set")
        for n, t in (
            ("components", torch.zeros(5, 4)),
            ("components", torch.zeros(PIXELS, 3)),
            ("components", torch.zeros(PIXELS)),
            ("gains", torch.zeros(9)),
            ("gains", torch.zeros(())),
            ("centre", torch.zeros(1)),
            ("centre", torch.full((PIXELS,), torch.nan)),
            ("components", torch.zeros(PIXELS, 4, dtype=torch.float64)),
            ("gains", torch.full((4,), -1.0)),
            ("gains", torch.full((4,), torch.inf)),
        )
    ),
    # headers
    *(
        Case(f"safetensors: {what}", make, UNREADABLE)
        for what, make in (
            ("a header of exabytes", headed("{}", size=2**63)),
            ("a header beyond the end", headed("{}", size=10**6)),
            ("a header of 4 GB", headed("{}", size=2**32)),
            ("an empty header", headed("")),
            ("a list", headed("[]")),
            ("no JSON", headed("{'a'}")),
            ("no UTF-8", headed(b'{"\xff": 1}')),
            ("deep brackets", headed("[" * 50_000)),
            ("deep objects", headed('{"a":' * 50_000)),
            ("a tensor of no kind", headed('{"images": {}}')),
            ("an unknown kind", claims([1], [0, 4], "F31")),
            ("a negative shape", claims([-1], [0, 64])),
            ("a shape of exabytes", claims([2**62, 2**62], [0, 64])),
            ("offsets beyond the end", claims([10**9], [0, 4 * 10**9])),
            ("offsets that go back", claims([4], [16, 0])),
            (
                "offsets that overlap",
                headed(
                    '{"images": {"dtype": "F32", "shape": [4], "data_offsets": [0, 16]}, '
                    '"labels": {"dtype": "F32", "shape": [4], "data_offsets": [8, 24]}}',
                    bytes(24),
                ),
            ),
            ("a pickle", headed(b"\x80\x02cposix\nsystem\n(X\x0c\0\0\0touch sprungtR.")),
            ("only zeros", headed(bytes(500))),
        )
    ),
    # folders
    Case("set: a pipe for the facts", with_pipe(ABOUT), "No synthetic set in set"),
    Case("set: a pipe for the tensors", with_pipe(DATA), "No synthetic set in set"),
    Case("set: a link to endless zeros", saved(with_link), "No synthetic set in set"),
    Case(
        "set: folders for files", saved(lambda f: ((f / DATA).unlink(), (f / DATA).mkdir())), "No synthetic set in set"
    ),
    # zips
    Case(
        "set zip: files that climb beside it",
        zipped(Entry("../../sprung.txt", b"x"), Entry("/etc/sprung", b"x")),
        reads=whole,
    ),
    Case("set zip: its files in folders that climb", zipped(about=None, data=None), "is missing in it"),
    Case("set zip: encrypted", zipped(about=Entry(ABOUT, b"x", flags=1)), "damaged or encrypted"),
    Case("set zip: a wrong checksum", zipped(about=Entry(ABOUT, b"{}", crc=9)), "damaged or encrypted"),
    Case(
        "set zip: claims to be larger",
        zipped(data=Entry(DATA, b"x", size=900_000)),
        f"damaged or encrypted|{'cannot be read'}",
    ),
    Case("set zip: claims to be smaller", zipped(about=Entry(ABOUT, b"{}" * 50, size=2)), "damaged or encrypted"),
    Case(
        "set zip: facts of four gigabytes",
        zipped(about=Entry(ABOUT, size=2**32 - 2, packed=2**32 - 2)),
        "unpacks to more than 5 MB",
    ),
    Case(
        "set zip: facts of six megabytes",
        zipped(about=Entry(ABOUT, b" " * 6_000_000, zipfile.ZIP_DEFLATED)),
        "unpacks to more than 5 MB",
    ),
    Case(
        "set zip: a bomb",
        zipped(data=Entry(DATA, zeros(40_000_000), zipfile.ZIP_DEFLATED)),
        "more than 100 times its size",
    ),
    *(
        Case(f"set zip: packed by {k}", zipped(data=Entry(DATA, b"x", m)), "packed in an unusual way")
        for k, m in (("bzip2", 12), ("lzma", 14), ("zstd", 93))
    ),
    Case("set zip: a member beyond the end", zipped(data=Entry(DATA, b"x", offset=2**31)), "damaged or encrypted"),
    Case("set zip: a name that is no UTF-8", zipped(Entry(b"\xff\xfe", b"x")), "not a zip that can be read"),
    Case("set zip: cut", lambda folder: _cut(folder), "not a zip that can be read"),
)


def _cut(folder: Path) -> Path:
    path = zipped()(folder)
    path.write_bytes(path.read_bytes()[:-30])
    return path
