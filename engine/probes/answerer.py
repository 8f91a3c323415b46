"""Works out what was asked at the desk: in a resident process for the pages, in the command line's own for it.

``python -m engine.probes.answerer`` imports torch once and waits for questions; ``LIMBECK_PARENT`` names the process
without which it ends.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from engine.accel import Accel, give_memory_back, pick_accel
from engine.errors import Refused
from engine.faults import hindrance, outside
from engine.probes.desk import Answer, Cancelled, Desk, find, write_json
from engine.probes.specs import PROBES
from engine.runs.process import leave_with_parent, signature
from engine.runs.store import Store
from engine.runs.worker import settle
from engine.spec import build_spec


class Work:
    """What a probe's ``answer`` is given: the store, the accelerator, a place for files, and how to say how far it is.

    ``accel`` never compiles: answers should come at once. ``tell(fraction, sentence)`` raises ``Cancelled`` when
    nobody wants the answer any more, so a probe calls it often (it costs next to nothing).
    """

    def __init__(self, store: Store, folder: Path, told: Callable[[float, str], None]):
        self.store, self.folder, self._told = store, folder, told
        self.accel: Accel = pick_accel(compile=False)

    def tell(self, fraction: float, sentence: str = "") -> None:
        """Progress in [0, 1] and what is being done."""
        self._told(min(1.0, max(0.0, fraction)), sentence)

    def picture(self, name: str, image: Any, scale: int = 1) -> str:
        """Save an image as ``<name>.png`` in the answer's folder, enlarged ``scale``-fold; its file name.

        ``image``: uint8 (H, W), (H, W, 3) or (H, W, 4), array or tensor.
        """
        picture = Image.fromarray(image.numpy() if isinstance(image, torch.Tensor) else image)
        if scale > 1:
            picture = picture.resize((picture.width * scale, picture.height * scale), Image.Resampling.NEAREST)
        self.folder.mkdir(parents=True, exist_ok=True)
        picture.save(self.folder / f"{name}.png")
        return f"{name}.png"


def work_out(desk: Desk, store: Store, digest: str, told: Callable[[float, str], None] | None = None) -> Answer | str:
    """Answer a question that was asked at ``desk``; the answer, or the sentence why there is none."""
    folder = desk.root / digest
    last = 0.0

    def tell(fraction: float, sentence: str) -> None:
        nonlocal last
        if told:
            told(fraction, sentence)
        now = time.monotonic()
        if now - last > 0.1:
            last = now
            if (folder / "cancel").exists():
                raise Cancelled
            write_json(folder / "state.json", {**me, "progress": fraction, "message": sentence})

    me = {"pid": os.getpid(), "worker": signature(os.getpid())}
    began = time.perf_counter()
    try:
        write_json(folder / "state.json", {**me, "progress": 0.0, "message": "Starting."})
        question = desk.question(digest)
        probe = find(PROBES, question["probe"])
        spec = build_spec(probe.spec, **question["spec"])
        answer = import_module(probe.module).answer(spec, Work(store, folder, tell))
        answer = dataclasses.replace(answer, seconds=round(time.perf_counter() - began, 3))
        write_json(folder / "answer.json", dataclasses.asdict(answer))
        return answer
    except Cancelled:
        return "Cancelled."
    except Refused as refusal:
        sentence = outside(refusal) or str(refusal)
    except Exception as error:
        with contextlib.suppress(OSError):
            (folder / "log.txt").write_text(traceback.format_exc())
        sentence = outside(error)
        if isinstance(error, MemoryError | torch.OutOfMemoryError):
            sentence = "There was not enough memory. Try fewer images."
        elif not sentence:
            sentence = (
                f"Something went wrong inside the probe ({type(error).__name__}); log.txt in {folder} says where."
            )
    finally:
        (folder / "state.json").unlink(missing_ok=True)
    with contextlib.suppress(OSError):  # a full disk: the question stays where it was, and is tried again
        write_json(folder / "refusal.json", {"sentence": sentence})
    return sentence


def main() -> int:
    """The loop of the resident process."""
    leaving = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: leaving.set())
    settle(niceness=0)  # somebody waits for every answer: before the runs
    store, desk = Store(), Desk()
    parent = int(os.environ.get("LIMBECK_PARENT") or 0)
    threading.Thread(target=leave_with_parent, args=(parent, leaving), daemon=True).start()
    import_module("captum.attr")
    while not leaving.is_set():
        waiting = desk.waiting()
        if waiting:
            work_out(desk, store, waiting[0])
            desk.prune()
            give_memory_back()
            if hindrance():
                leaving.wait(2.0)
        else:
            leaving.wait(0.05)
    return 0


if __name__ == "__main__":
    status = main()
    sys.stderr.flush()
    os._exit(status)
