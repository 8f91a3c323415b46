"""Hostile addresses of pages: what may stand behind the ? of a link that somebody was sent."""

from __future__ import annotations

import json
from typing import Any

from tests.hostile.case import Case, told_apart

RUN, STUDENT = "RUN", "STUDENT"  # stand for the ids of a run and a student that are there
PICTURE = "![x](http://example.org/x.png)"
Query = dict[str, Any]


def page(name: str, says: str, *queries: Query) -> list[Case]:
    """Addresses of one page, all answered with the same message; with none where ``says`` is empty."""
    return [
        Case(
            f"page: {name}?{'&'.join(f'{k}={v!s:.24}' for k, v in list(query.items())[:4])[:70]!r}",
            lambda query=query: (name, query),
            says,
            None if says else silent,
        )
        for query in queries
    ]


def link(form: str, says: str, *queries: Query) -> list[Case]:
    """What the forms of Distil and Students make of such addresses, without their pages."""
    return [Case(f"link: {c.name}", c.make, c.says) for c in page(form, says, *queries)]


def silent(_: list[str]) -> None:
    """The page shows what it always shows."""


def each(key: str, *values: Any, **more: Any) -> list[Query]:
    return [{**more, key: value} for value in values]


def study(*values: Any) -> list[Query]:
    """Studies in the address of Texture & shape."""
    return [{"section": "study", "study": v if isinstance(v, str) else json.dumps(v)} for v in values]


MANY = {f"x{i}": "1" for i in range(3000)}
NUMBERS = ("NaN", "inf", "-1", "1e3", "0x10", "9" * 5000, "½", "1;DROP TABLE runs", "<b>1</b>", "1\0", "", "1.5")

LINKS = told_apart(
    *link("distil", "asked for images per class", *each("ipc", *NUMBERS)),
    *link("distil", "asked for minutes", *each("min", "inf", "nan", "1e999", "1e-400", "１e９", "9" * 5000)),
    *link(
        "distil",
        "asked for",
        *each("s", str(2**31), "-0.5"),
        *each("n", "9" * 30),
        *each("zca", "１", "yes"),
        *each("i", "REAL"),
        *each("net", "../mlp"),
        *each("dev", "cuda:0", "meta"),
        *each("p", "' OR 1=1", "null"),
        *each("lr", "1e400", "nan"),
        *each("d", ""),
    ),
    *link("distil", "There is no method", *each("m", "../dm", "<script>", "dm\0", "DM", "x" * 4000)),
    *link("distil", "another version", *each("v", "", "NaN", "x" * 3000, "2")),
    *link("students", "asked for “.*” students", *each("n", "0", "9" * 5000, "²", "-1", "1.5")),
    *link(
        "students",
        "asked for",
        *each("lim", "9" * 30, "9" * 5000, "9"),
        *each("eps", "nan", "-1", "1e400"),
        *each("net", "../x", ""),
        *each("keep", "inf", "2"),
        *each("w", "１e９"),
        *each("ep", "1e9"),
        *each("sty", "<b>"),
        *each("p", "none"),
    ),
    *link(
        "students",
        "is not here",
        *each("src", "../../etc/passwd", "<script>", "x" * 900, "/dev/zero", "a\0b", "' OR 1=1"),
    ),
)

PAGES = [
    *page("distil", "There is no such run here", *each("run", "a' OR '1'='1", "<script>alert(1)</script>", "a\0b")),
    *page("distil", "asked for", *each("ipc", "9" * 5000), *each("lr", "nan")),
    *page("distil", "", *each("fork", "-1", "²", "9" * 5000, "<script>", run=RUN)),
    *page("distil", "asked for", *each("lr", "nan", run=RUN, fork="0")),
    *page("distil", "", *each("beside", "../x", "a\0b", RUN, run=RUN)),
    *page("sweep", "There is no such sweep", *each("sweep", "../../etc/passwd", "<script>", "a\0b", "' OR 1=1")),
    *page("sweep", "There is no setting", *each("over", "nonsense=1", "<b>=1;\0=2", "__class__=1")),
    *page("sweep", "must be|must rise", *each("over", "ipc=½", "seed=0..99999", "lr_img=nan", "ipc=1,,2")),
    *page(
        "sweep", "cannot be run|cells|must be", *each("over", "ipc=" + "9" * 5000, "ipc=0,1", "seed=0..99;ipc=1..99")
    ),
    *page("sweep", "", MANY),
    *page("sweep", "at least one", *each("over", ";;;", "=")),
    *page("distil", "There is no (folder|dataset)", *each("d", "folder:a\0b", "x" * 5000, PICTURE, "a\nb")),
    *page("distil", "", MANY, {"d": ["digits", "shapes"]}, {"d": "folder:" + "../" * 99}),
    *page("gallery", "", MANY, *each("run", "../" * 900, "a\0b"), *each("m", "<script>")),
    *page("distil", "", *each("tour", "9" * 5000, "²", "<script>", d="digits"), {"run": RUN, "reveal": "<b>"}),
    *page("terms", "There is no term", *each("term", "<script>", PICTURE, "x" * 5000)),
    *page("terms", "No term has these words", *each("find", "<b>")),
    *page("terms", "", *each("find", "x" * 5000, "a\0")),
    *page("compare", "There is nothing of a dataset", *each("dataset", "<script>", "a\0")),
    *page("compare", "Left out, because", *each("runs", ",".join(["a"] * 3000), f"{RUN},{RUN}x")),
    *page("compare", "", *each("film", "perhaps", dataset="digits", runs=RUN), *each("protocol", "<b>", runs=RUN)),
    *page(
        "data",
        "There is no folder or .zip at|no folder and no .zip|is no path",
        *each(
            "dataset",
            "folder:/dev/zero",
            "folder:~nobody-of-that-name/x",
            "folder:" + "x" * 300,
            "folder:a\0b",
            f"folder:{PICTURE}",
            "digits",
            "folder:\u202egpj.piz",
            "folder:http://example.org/",
        ),
    ),
    *page("data", "holds|cannot be listed|is not a zip", *each("dataset", "folder:/", "folder:/proc/self/mem")),
    *page("data", "There is no import", *each("import", "../x", "x" * 4000, "a\0b")),
    *page("students", "There is no (dataset|folder)", *each("dataset", "<script>", "folder:../../../nope")),
    *page("students", "asked for|is not here", *each("lim", "9" * 30), *each("src", "../../etc/passwd")),
    *page("students", "Not here any more", *each("students", ",".join(["b"] * 2000), "a\0b", dataset="digits")),
    *page("students", "", {"nm": "<script>\0" * 300}),
    *page("attribution", "No student of", *each("dataset", "<script>", "a\0")),
    *page("attribution", "Not here, or not of", *each("students", ",".join(["c"] * 2000), "a\0")),
    *page("attribution", "names no image", *each("image", "../../etc/passwd", "\0")),
    *page("attribution", "asked for", *each("n", "9" * 5000), *each("no", "nan"), *each("sg", "maybe")),
    *page(
        "attribution",
        "",
        *each("image", "test:" + "9" * 150, "test:<b>:1", "file:../../x", "synthetic:../x:0"),
        *each("target", "x" * 2000),
        *each("mask", "file:../../x", section="context", scope="one"),
        *each("indices", "9" * 600, section="distilled", run=RUN),
        *each("run", "../x", section="distilled"),
        *each("methods", "x" * 600, section="quality", view="metrics"),
    ),
    *page("bias", "of the link is not here", *each("dataset", "<script>", "a\0")),
    *page("bias", "Not here, or not students of", *each("students", ",".join(["d"] * 2000), dataset="digits")),
    *page("bias", "asked for", *each("n", "9" * 5000), *each("source", "../x")),
    *page("bias", "does not describe a study", *study("{", "[" * 100_000, "null", '"counts"', '{"a":' * 20_000)),
    *page(
        "bias",
        "must be|was",
        *study(
            {"minutes": "x"},
            {"networks": []},
            {"sets": {"a": 1}},
            {"protocol": ["quick"]},
            {"ties": "maybe"},
            {"training": 10**400},
            '{"seeds": NaN}',
            '{"width": Infinity}',
        ),
    ),
    *page("bias", "", *study([]), *each("zip", "/dev/zero")),
    *page("robustness", "There is no section", *each("section", "<script>\0")),
    *page("robustness", "There is no student of a dataset", *each("dataset", "<script>")),
    *page("robustness", "Left out, because", *each("students", ",".join(["e"] * 2000))),
    *page("robustness", "asked for", *each("n", "9" * 5000), *each("lr", "nan", section="transfer")),
    *page("robustness", "must be|press the button", *each("d", "x" * 600, PICTURE, section="transfer")),
    *page("robustness", "", *each("severity", "9"), *each("of", "\0", section="subgroups")),
    *page("pieces", "There is no section", *each("section", "<script>\0")),
    *page("pieces", "no finished set of a run", *each("run", "../../etc/passwd", PICTURE, "x" * 5000, "a\0")),
    *page("pieces", "asked for", *each("st", "9" * 5000), *each("tol", "nan"), *each("q", "²", section="quiz")),
    *page(
        "pieces",
        "edits in the link were left out",
        *each(
            "ed", "x", PICTURE, "0:erase:@9.AA", "0:blur:1e9", "0:mirror " * 31, "y" * 99_999, section="edit", run=RUN
        ),
    ),
    *page(
        "pieces",
        "",
        {"section": "edit", "run": RUN, "image": "9" * 5000, "ed": "99999:mirror"},
        *each("nw", "../x", "a\0", section="quiz", run=RUN),
        *each("order", "<b>", run=RUN),
    ),
    *page("applications", "There is no section", *each("section", "<script>\0", "x" * 5000)),
    *page("applications", "asked for", *each("n", "9" * 5000), *each("no", "nan"), *each("net", "../x")),
    *page("applications", "must be|press the button", *each("ds", "x" * 600, PICTURE, "folder:a\0b")),
    *page(
        "applications",
        "asked for",
        *each("ipc", "9" * 5000, "-1", section="continual"),
        *each("t", "nan", section="poisoning"),
    ),
    *page("applications", "must be|press the button", *each("from", "x" * 600, PICTURE, "../x", section="adaptation")),
    *page("applications", "", *each("src", "../../etc/passwd", PICTURE, "x" * 5000, "a\0", section="search")),
    *page(
        "applications",
        "",
        *each("te", "../x", PICTURE, "a\0,b", section="data-free"),
        *each("st", "../x,a\0,,", section="ownership"),
    ),
]
CASES = [*LINKS, *PAGES]
