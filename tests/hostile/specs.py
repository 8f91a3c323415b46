"""Hostile specs, command lines and addresses of routes."""

from __future__ import annotations

from typing import Any

from tests.hostile.case import Case, told_apart

NAN, INF = float("nan"), float("inf")


def deep(levels: int = 100_000) -> list[Any]:
    found: list[Any] = []
    for _ in range(levels):
        found = [found]
    return found


def loop() -> list[Any]:
    found: list[Any] = []
    found.append(found)
    return found


class Evil:
    """Something whose every answer is a lie, or an error."""

    def __repr__(self) -> str:
        raise RecursionError

    def __eq__(self, other: object) -> bool:
        return True

    __hash__ = None  # type: ignore[assignment]


def spec(kind: str, says: str, /, **values: Any) -> Case:
    shown = {k: ascii(v)[:24] if isinstance(v, str | float) else type(v).__name__ for k, v in list(values.items())[:3]}
    return Case(f"spec: {kind} {', '.join(f'{k[:20]}={v}' for k, v in shown.items())}", lambda: (kind, values), says)


NUMBERS: list[Any] = [
    "",
    "many",
    "1.5",
    "0x10",
    "1e3",
    "١٢",
    "１２",
    "Ⅷ",
    "½",
    " ",
    "1,000",
    "--1",
    "1\0",
    "1;DROP TABLE runs",
    "<b>1</b>",
    "9" * 400,
    "9" * 5000,
    "-" + "9" * 5000,
    NAN,
    INF,
    -INF,
    1.5,
    -1,
    101,
    10**30,
    10**5000,
    [],
    [1],
    {},
    {"a": 1},
    b"\xff",
    object(),
    Evil(),
    (),
    {1},
    1j,
    range(3),
]
TEXTS: list[Any] = [5, 1.5, [], {}, True, object(), "", "x" * 501, "x" * 1_000_000, Evil()]
CHOICES: list[Any] = [
    "",
    "DM",
    "dm ",
    "dm\0",
    "../dm",
    "<script>",
    "' OR 1=1 --",
    5,
    [],
    {},
    NAN,
    Evil(),
    b"dm",
    "ｄｍ",
]
SWITCHES: list[Any] = ["maybe", "", 2, -1, 0.5, [], {}, NAN, "１", Evil()]


SPECS = told_apart(
    *(spec("distill", "Images per class .ipc. was .* must be a whole number from 1 to 100", ipc=v) for v in NUMBERS),
    *(
        spec("distill", "Minutes .minutes. was", minutes=v)
        for v in ("", NAN, INF, "1e999", -1, 10**400, [], "１")
        if v != "１"
    ),
    *(spec("distill", "Dataset .dataset. was .* 1 to 500 characters", dataset=v) for v in TEXTS),
    *(spec("distill", "Method .method. was .* one of dm", method=v) for v in CHOICES),
    *(spec("distill", "ZCA whitening .zca. was .* true or false", zca=v) for v in SWITCHES),
    spec("distill", "There is no parameter “x0”.* and 4,995 more here", **{f"x{i}": i for i in range(5000)}),
    spec("distill", "There is no parameter “__class__”", __class__="x", __init__="y"),
    spec("distill", "There is no parameter", **{"a" * 1_000_000: 1}),
    spec("distill", "There is no parameter “.u202egpj”", **{"\u202egpj": 1}),
    spec("distill", "There is no parameter “<script>”", **{"<script>": 1}),
    spec("distill", "valid dictionary", parameters=5),
    spec("distill", "valid dictionary", parameters="x"),
    spec("distill", "valid dictionary", parameters=[1]),
    spec("distill", "There is no parameter “y”", parameters={"y": {"z": 1}}),
    spec("distill", "lr_img. was", parameters={"lr_img": deep()}),
    spec("distill", "too large to be shown", seed=deep()),
    spec("distill", r"was \[\[", seed=loop()),
    spec(
        "distill",
        "There are 3 more problems",
        **dict.fromkeys(("ipc", "seed", "width", "depth", "size", "students", "steps", "minutes"), "x"),
    ),
    spec("student", "Name .name. was .* characters", name="x" * 201),
    spec("student", "limit. was", limit=10**18),
    spec("evaluate", "Dataset .dataset. was", source="x", dataset="x" * 501),
    spec("evaluate", "Synthetic set .source. was", source=""),
    spec("import", "File .path. was .* 1 to 1000 characters", path="x" * 1001),
    spec("rank", "Weight .weight. was", source="x", weight=NAN),
    spec("soften", "Temperature .temperature. was", source="x", teacher="y", temperature=INF),
    spec("baseline", "Baseline .kind. was", kind="random; rm -rf /"),
    *(
        spec(probe, "Students .students. was", students=v)
        for probe in ("attribution", "robustness", "five")
        for v in ("", "x" * 5000, [])
    ),
    spec("distilled-view", "Images .indices. was", students="a", run="b", indices="1," * 5000),
    spec("context", "Mask .mask. was", students="a", mask="x" * 201),
)

# What a spec holds, but no machine can do: asked of ``validate.check``
CHECKS = told_apart(
    *(
        Case(f"check: dataset {v!r:.40}", lambda v=v: ("distill", {"dataset": v}), says)
        for v, says in (
            ("../../etc/passwd", "There is no dataset"),
            ("mnist\0", "There is no dataset “mnist\\?”"),
            ("<script>alert(1)</script>", "There is no dataset “<script>"),
            ("'; DROP TABLE runs; --", "There is no dataset"),
            ("\u202etsinm", "There is no dataset “\\?tsinm"),
            ("a\nb", "There is no dataset “a\\?b”"),
            ("MNIST", "There is no dataset"),
            ("folder", "There is no dataset"),
            ("folder:", "needs a path"),
            ("folder:   ", "needs a path"),
            ("folder:../../etc", "no folder|holds"),
            ("folder:/etc", "holds"),
            ("folder:/etc/passwd", "no folder and no .zip"),
            ("folder:/dev/zero", "no folder and no .zip"),
            ("folder:/proc/self", "holds|no folder|cannot be listed"),
            ("folder:a\0b", "no folder and no .zip at “a\\?b”"),
            ("folder:~nobody-of-that-name", "no folder and no .zip"),
            ("folder:" + "x" * 400, "no folder and no .zip"),
            ("folder:\x1b[2J", "no folder and no .zip at “\\?\\[2J”"),
            ("folder:http://example.org/a.zip", "no folder and no .zip"),
            ("folder:folder:.", "no folder and no .zip"),
        )
    ),
    *(
        Case(f"check: teacher of {v!r:.40}", lambda v=v: ("student", {"source": v}), says)
        for v, says in (("full", "needs a dataset"), ("random", "needs a dataset"))
    ),
    Case(
        "check: a name of two lines",
        lambda: ("student", {"dataset": "digits", "name": "a\nb"}),
        "one line of at most 200",
    ),
    Case(
        "check: a name that turns",
        lambda: ("student", {"dataset": "digits", "name": "\u202egpj"}),
        "one line of at most 200",
    ),
)

LONG = "x" * 5000
COMMANDS = told_apart(
    *(
        Case(f"cli: {' '.join(a)[:60]!r}", lambda a=a: a, says)
        for a, says in (
            (["\0"], "invalid choice"),
            (["distill", "\udcff"], "not valid text"),
            (["runs", "list", "--dataset", "\udcff"], "not valid text"),
            (["distill", "--title", "\udc80"], "not valid text"),
            (["runs", "list", "--limit", "9" * 5000], "1 to 10000"),
            (["runs", "list", "--limit", "²"], "1 to 10000"),
            (["runs", "list", "--limit", "-0"], "1 to 10000|expected one"),
            (["runs", "list", "--status", "' OR 1=1"], "There is no status"),
            (["runs", "list", "--kind", LONG], "There is no kind"),
            (["runs", "show", "a' OR '1'='1"], "There is no run"),
            (["runs", "show", LONG], "There is no run"),
            (["runs", "show", "../../../etc/passwd"], "There is no run"),
            (["runs", "delete", "."], "There is no run"),
            (["runs", "delete", "%"], "There is no run"),
            (["runs", "stop", "\x1b[2Jaaaaaaaa"], "There is no run"),
            (["student", "show", "../x"], "no trained student"),
            (["student", "show", LONG], "no trained student"),
            (["student", "list", "--limit", "1e9"], "1 to 10000"),
            (["student", "list", "--limit", "９" * 5000], "1 to 10000"),
            (["student", "train", "--limit", "99999999999999999999", "--dataset", "digits"], "limit"),
            (["student", "train", "--source", "../x", "--dataset", "digits"], "no run and no file"),
            (["student", "train", "--source", LONG], "1 to 1000 characters"),
            (["student", "train", "--source", "y" * 400], "cannot be a path"),
            (["evaluate", LONG], "1 to 1000 characters"),
            (["evaluate", "y" * 400], "cannot be a path"),
            (["evaluate", "/dev/zero"], "not a set"),
            (["evaluate", "/dev/null"], "not a set"),
            (["evaluate", "/proc/self/mem"], "not a set"),
            (["evaluate", "/"], "No synthetic set in /"),
            (["evaluate", "x", "--network", "convnet-w" + "9" * 5000], "There is no network"),
            (["evaluate", "x", "--network", "," * 1000], "There is no network"),
            (["evaluate", "x", "--network", "convnet-w²"], "There is no network"),
            (["evaluate", "x", "--network", "../mlp"], "There is no network"),
            (["evaluate", "x", "--seeds", "1e1"], "seeds"),
            (["import", LONG], "1 to 1000 characters"),
            (["import", "y" * 400 + ".pt", "--dataset", "digits"], "cannot be a path"),
            (["import", "/dev/zero"], "not a set"),
            (["import", "x.pt", "--labels", "/no/such", "--dataset", "digits"], "There is no file"),
            (["import", "/", "--dataset", "digits"], "No synthetic set in /"),
            (["import", "~nobody-of-that-name/x"], "cannot be a path"),
            (["export", "x", "--out", "y" * 400 + ".pt"], "cannot be|no run and no file"),
            (["export", "x", "--out", "/proc/x.zip"], "no run and no file"),
            (["export", "/dev/zero", "--out", "x.pt"], "not a set"),
            (["export", "x", "--out", "/dev/null"], "another kind|no run|cannot"),
            (["baseline", "--out", "y" * 400 + ".pt"], "cannot be"),
            (["baseline", "--out", "y" * 400], "cannot be"),
            (["baseline", "--out", "/dev/null/x.pt"], "no folder"),
            (["baseline", "--out", "~nobody-of-that-name/x.pt"], "cannot be"),
            (["baseline", "--out", "/dev/null"], "another kind"),
            (["baseline", "--title", "a\x07b"], "one line"),
            (["baseline", "--title", "\u202e"], "one line"),
            (["distill", *("--x" for _ in range(3000))], "Unrecognized arguments"),
            (["distill", "--dataset", "folder:" + "../" * 60 + "etc"], "holds|no folder"),
            (["distill", "--dataset", "folder:\0"], "cannot be a path"),
            (["distill", "--dataset", "folder:~nobody-of-that-name/x"], "cannot be a path"),
            (["distill", "--dataset", "folder:" + "y" * 400], "cannot be a path"),
            (["distill", "--ipc", "９９９９"], "1 to 100"),
            (["distill", "--device", "cuda:99"], "device"),
            (["distill", "--device", "meta"], "device"),
            (["distill", "--seed", "NaN"], "seed"),
            (["distill", "--minutes", "infinity"], "minutes"),
            (["distill", "--lr-img", "1e400"], "lr_img"),
            (["soften", "x", "--teacher", LONG], "1 to 80 characters"),
            (["soften", "../x", "--teacher", "y"], "no run and no file"),
            (["rank", "\x1b[2J"], "no run and no file"),
            (["bench", "--only", "../x"], "There is no measurement|no measurement|only"),
            (["probe", "attribution", "--students", "../x"], "not a run id"),
            (["probe", "attribution", "--students", "," * 1500], "Name 1 to 4"),
            (["probe", "attribution", "--students", "x" * 40, "--out", "y" * 400], "cannot be"),
            (["probe", "bias", "--students", "x" * 40, "--stimuli", "/dev/zero"], "no trained student|no folder"),
            (["probe", "robustness", "--students", ",".join("s" * 9 + str(i) for i in range(150))], "students"),
            (
                ["probe", "bias-study", "--dataset", "digits", "--counts", "9" * 90, "--sets", "none"],
                "counts|whole numbers|must be numbers",
            ),
            (
                ["probe", "bias-study", "--dataset", "digits", "--networks", "../x", "--sets", "none"],
                "There is no network",
            ),
        )
    )
)

ROUTES = told_apart(
    *(
        Case(f"route: {path[:60]!r}", lambda path=path, headers=headers: (path, headers), says)
        for path, headers, says in (
            *(
                (f"/api/runs/{run}/{what}", {}, "There is no such|There is no run")
                for run in (
                    "..%2f..%2fetc%2fpasswd",
                    "%2e%2e",
                    "a%00b",
                    "%27%20OR%201%3D1",
                    "x" * 3000,
                    "%F0%9F%90%B6",
                    "aaaaaaaa%0a",
                    "AAAAAAAA",
                    "%ff%fe",
                    "<script>",
                )
                for what in ("frames", "events", "result.zip", "frames/0.webp")
            ),
            *(
                (f"/api/runs/RUN/frames/{step}.webp", {}, "There is no such frame")
                for step in (
                    "9" * 5000,
                    "１",
                    "²",
                    "-0",
                    "1e3",
                    "+1",
                    "0x1",
                    "%20",
                    "999999999",
                    "1%00",
                    "..%2f..%2fspec",
                    "",
                )
            ),
            *(
                (f"/api/runs/RUN/events?since={since}", {}, "must be the id of an event")
                for since in ("x", "-1", "1.5", "9" * 19, "9" * 5000, "²", "1%00", "NaN", "0x1", "1;DROP", "%20")
            ),
            *(
                ("/api/runs/RUN/events", {"Last-Event-ID": since}, "must be the id of an event")
                for since in ("x", "-1", "9" * 4000, "1, 2")
            ),
            *(
                (f"/api/probes/{digest}/{name}", {}, "There is no such file")
                for digest, name in (
                    ("..", "x.png"),
                    ("%2e%2e", "store.sqlite"),
                    ("0" * 24, "..%2f..%2fstore.sqlite"),
                    ("0" * 24, "question.json"),
                    ("0" * 24, "a.png%00"),
                    ("0" * 24, "%0aa.png"),
                    ("A" * 24, "a.png"),
                    ("0" * 23, "a.png"),
                    ("0" * 24, "x" * 4000 + ".png"),
                    ("0" * 24, ".hidden.png"),
                    ("queue", "x.json"),
                )
            ),
        )
    )
)
