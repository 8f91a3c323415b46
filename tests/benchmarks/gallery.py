"""The runs of the gallery, made anew: each distilled, evaluated, thinned to a few frames and put into assets/gallery.

    LIMBECK_DATA=… python tests/benchmarks/gallery.py [--only ID …]

``make gallery`` runs it. It takes about an hour on two cores; what is finished lies in LIMBECK_HOME and is not done
again. All runs start from noise, from class means or from Limbeck's own shapes, so that no image of a data set is in
the gallery.
"""

from __future__ import annotations

import argparse
import io
import json
import math
import os
import sys
import zipfile
from pathlib import Path
from typing import Any

from PIL import Image

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "assets" / "gallery"
sys.path.insert(0, str(ROOT))

from engine.presets import PRESETS  # noqa: E402
from tests.benchmarks.results import engine, flags  # noqa: E402

FRAMES = 22  # of a run: enough to see it take form
QUALITY = 78  # of lossy frames; lossless ones of images with many pixels would be ten times as large
SMALL = 9_000  # pixels of a frame up to which it stays lossless

QUICK = {"protocol": "quick", "students": 3}  # where students of the method's own protocol take many minutes
RUNS: dict[str, dict[str, Any]] = {
    "gallery-mnist-dc-1": {**PRESETS["mnist-dc-1"].values, "init": "noise", "minutes": 2, "students": 3},
    "gallery-mnist-dm-10": {**PRESETS["mnist-dm-10"].values, "init": "noise", "minutes": 2, **QUICK},
    "gallery-mnist-dd-1": {**PRESETS["mnist-dd-1"].values, "init": "noise", "minutes": 3, "students": 1},
    "gallery-mnist-frepo-1": {**PRESETS["mnist-frepo-1"].values, "init": "mean", "minutes": 3, "students": 3},
    "gallery-cifar10-dsa-1": {**PRESETS["cifar10-dsa-1"].values, "init": "noise", "minutes": 3, **QUICK},
    "gallery-cifar10-dm-10": {**PRESETS["cifar10-dm-10"].values, "init": "mean", "minutes": 3, **QUICK},
    # Not whitened: the matrix that undoes it would weigh more than all the other runs together.
    "gallery-cifar10-frepo-1": {
        **PRESETS["cifar10-frepo-1"].values,
        "init": "mean",
        "minutes": 3,
        "zca": False,
        "students": 3,
    },
    "gallery-digits-mtt-1": {**PRESETS["digits-mtt-1"].values, "init": "noise", "minutes": 1, **QUICK},
    "gallery-digits-dm-10": {**PRESETS["digits-dm-10"].values, "init": "noise", "minutes": 0.5, **QUICK},
    "gallery-shapes-dm-1": {**PRESETS["shapes-dm-1"].values, "minutes": 1, **QUICK},
}


def distilled(id: str, values: dict[str, Any]) -> str:
    """The run of this title: one that is there, or one that was cut short and goes on, or a new one."""
    for run in engine("runs", "list", "--limit", 1000):
        if run["title"] == id:
            return run["id"] if run["status"] == "done" else engine("runs", "resume", run["id"])["run"]
    return engine("distill", "--title", id, *flags(values))["run"]


def chosen(steps: list[int], many: int) -> set[int]:
    """Up to ``many`` steps, dense at the start, where most happens: evenly spread over the square root of the step."""
    last = max(steps)
    wanted = [last * (i / (many - 1)) ** 2 for i in range(many)]
    return {min(steps, key=lambda step, at=at: abs(step - at)) for at in wanted}


def thinned(content: bytes, title: str) -> bytes:
    """A run zip with fewer and smaller frames, fewer points on its curves, and another title."""
    out = io.BytesIO()
    with (
        zipfile.ZipFile(io.BytesIO(content)) as source,
        zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED, False, 9) as to,
    ):
        events = json.loads(source.read("events.json"))
        keep = chosen([e["step"] for e in events if e["kind"] == "frame"], FRAMES)
        metrics = [e for e in events if e["kind"] == "metric"]
        every = math.ceil(len(metrics) / 200)
        less = {id(e) for i, e in enumerate(metrics) if i % every and i != len(metrics) - 1}
        events = [e for e in events if id(e) not in less and (e["kind"] != "frame" or e["step"] in keep)]
        for member in source.infolist():
            data = source.read(member)
            if member.filename == "events.json":
                data = json.dumps(events).encode()
            elif member.filename == "run.json":
                data = json.dumps({**json.loads(data), "title": title}, indent=1).encode()
            elif member.filename.startswith("frames/"):
                if int(Path(member.filename).stem) not in keep:
                    continue
                data = smaller(data)
            to.writestr(member.filename, data)
    return out.getvalue()


def smaller(frame: bytes) -> bytes:
    """A frame as lossless WebP when that is small, else as lossy WebP."""
    with Image.open(io.BytesIO(frame)) as image:
        image.load()
        sink = io.BytesIO()
        if image.width * image.height <= SMALL:
            image.save(sink, "WEBP", lossless=True, method=4, quality=80)
        else:
            image.save(sink, "WEBP", method=4, quality=QUALITY)
    return sink.getvalue()


def main() -> None:
    """Make what is asked for, one after another."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=sorted(RUNS), default=list(RUNS))
    FOLDER.mkdir(parents=True, exist_ok=True)
    for id in parser.parse_args().only:
        run = distilled(id, RUNS[id])
        aside = FOLDER / f".{id}.zip"
        engine("export", run, "--format", "run", "--out", aside)
        dataset, method = RUNS[id]["dataset"], RUNS[id]["method"]
        aside.write_bytes(thinned(aside.read_bytes(), f"{dataset}, {method}, IPC {RUNS[id]['ipc']}"))
        os.replace(aside, FOLDER / f"{id}.zip")
        print(f"{id}: {(FOLDER / f'{id}.zip').stat().st_size / 1e6:.2f} MB", flush=True)


if __name__ == "__main__":
    main()
