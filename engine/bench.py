"""How fast this machine distils and trains students: each pair of variants in one process, in turn.

Rows: one step as the papers take it (eager fp32, fresh real images) against one step here; training a student eager in
fp32 against what the accelerator picks (compiled, bf16 where fast); seeds one after another against one batched
ensemble. Random images: only shapes matter here. ``python -m engine bench`` prints them.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from engine.accel import Accel, compiling, pick_accel
from engine.data.base import Dataset
from engine.distill import make_distiller
from engine.errors import Refused
from engine.networks import make_network
from engine.spec import build_spec
from engine.students.train import place, place_parameter, program


@dataclass(frozen=True)
class Row:
    """One comparison: the rates of the plain and of the chosen variant in ``unit`` (medians over turns)."""

    what: str
    plain: str
    plain_rate: float
    other: str
    other_rate: float
    unit: str = "images/s"

    @property
    def gain(self) -> float:
        """How many times faster ``other`` is."""
        return self.other_rate / self.plain_rate


def machine(accel: Accel) -> str:
    """The machine and how it computes, in one line."""
    name = platform.processor() or platform.machine()
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        name = next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        pass
    return f"{name}, {os.cpu_count()} cores; torch {torch.__version__}; {accel.describe()}"


def alternate(variants: list[Callable[[], Any]], images: int, seconds: float, accel: Accel) -> list[float]:
    """Images/s of each variant: medians over rounds in which the variants take turns, after one warm-up call each."""

    def timed(variant: Callable[[], Any]) -> float:
        began = time.perf_counter()
        variant()
        if accel.device.type == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter() - began

    for variant in variants:
        timed(variant)
    times: list[list[float]] = [[] for _ in variants]
    end = time.perf_counter() + seconds * len(variants)
    while time.perf_counter() < end or len(times[0]) < 3:
        for own, variant in zip(times, variants, strict=True):
            own.append(timed(variant))
    return [images / statistics.median(own) for own in times]


def compare_compiled(
    accel: Accel, network: str = "convnet", channels: int = 3, size: int = 32, batch: int = 256, seconds: float = 3.0
) -> list[Row]:
    """Forward, and forward with backward: eager fp32 against compiled (with bf16 where this machine has it).

    Empty where the accelerator does not compile.
    """
    if not accel.compile:
        return []
    plain = replace(accel, bf16=False, compile=False)
    images, targets = _batch(accel, channels, size, batch)
    parameters = _parameters(network, channels, size, images, 0)
    width = 128
    eager, fast = (program(network, channels, size, 10, width, "cross-entropy", False, a) for a in (plain, accel))
    for function in (fast.fast_step, fast.fast_logits):
        function.background = False  # compile now, not while being timed
    how = "compiled" + (", bf16" if accel.bf16 else "")

    def without_gradients(function: Callable[..., Any]) -> Callable[[], Any]:
        def call() -> None:
            with torch.no_grad():
                function(parameters, images)

        return call

    forward = alternate([without_gradients(eager.logits), without_gradients(fast.fast_logits)], batch, seconds, accel)
    steps = [lambda: eager.step(parameters, images, targets), lambda: fast.fast_step(parameters, images, targets)]
    both = alternate(steps, batch, seconds, accel)
    label = f"{network} {channels}×{size}×{size}, batch {batch}"
    for function in (fast.fast_step, fast.fast_logits):
        function.background = True
    if fast.fast_step.failed or fast.fast_logits.failed:
        how = "eager (compilation failed)"
    return [
        Row(f"{label}: forward", "eager fp32", forward[0], how, forward[1]),
        Row(f"{label}: forward and backward", "eager fp32", both[0], how, both[1]),
    ]


def compare_ensemble(
    accel: Accel,
    network: str = "convnet",
    channels: int = 3,
    size: int = 32,
    batch: int = 100,
    seeds: int = 3,
    seconds: float = 3.0,
) -> Row:
    """One training step of several seeds, eager: one after another against one batched ensemble."""
    images, targets = _batch(accel, channels, size, batch)
    alone = [_parameters(network, channels, size, images, seed) for seed in range(seeds)]
    stacked = {name: torch.stack([p[name] for p in alone]).contiguous() for name in alone[0]}
    one, many = (program(network, channels, size, 10, 128, "cross-entropy", e, accel) for e in (False, True))
    every, labels = torch.stack([images] * seeds), torch.stack([targets] * seeds)
    rates = alternate(
        [
            lambda: [one.step(parameters, images, targets) for parameters in alone],
            lambda: many.step(stacked, every, labels),
        ],
        batch * seeds,
        seconds,
        accel,
    )
    what = f"{network} {channels}×{size}×{size}, batch {batch}, {seeds} students: forward and backward"
    return Row(what, "one by one", rates[0], "ensemble", rates[1])


def _batch(accel: Accel, channels: int, size: int, batch: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(batch, channels, size, size, generator=generator)
    return place(images, accel), torch.randint(10, (batch,), generator=generator).to(accel.device)


def _parameters(network: str, channels: int, size: int, images: torch.Tensor, seed: int) -> dict[str, torch.Tensor]:
    made = make_network(network, channels, size, 10, seed=seed)
    return {name: place_parameter(p.detach(), images, False) for name, p in made.named_parameters()}


# ---- distillation steps ----

# name -> (method, values, the paper's variant, ours)
STEPS: dict[str, tuple[str, dict[str, Any], dict[str, Any], dict[str, Any]]] = {
    "dm": ("dm", {"ipc": 10}, {"variant": "plain", "batch_real": 256}, {"variant": "bank"}),
    "dc": ("dc", {"ipc": 1}, {"variant": "plain", "batch_real": 256}, {"variant": "bank"}),
    "frepo": ("frepo", {"ipc": 10, "batch_real": 1024}, {"reuse": 1, "advance": 1}, {}),
}


def random_dataset(channels: int = 3, size: int = 32, classes: int = 10, count: int = 5000) -> Dataset:
    """Random pixels in the shape of a dataset."""
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(256, (count, channels, size, size), generator=generator, dtype=torch.uint8)
    labels = torch.arange(count) % classes
    names = tuple(f"class {c}" for c in range(classes))
    return Dataset("random", "Random pixels", names, images, labels, images[:10], labels[:10], (0.5,) * 3, (0.25,) * 3)


def compare_step(name: str, accel: Accel, seconds: float = 20.0) -> Row:
    """One distillation step, plain and eager in fp32 as in the paper against ours once compiled; steps/s.

    Ours is timed over many steps, so that what it does only now and then (a look at the real images) counts.
    """
    method, values, paper, ours = STEPS[name]
    data = random_dataset()

    def start(own: dict[str, Any], how: Accel) -> Any:
        distiller = make_distiller(method)
        distiller.setup(build_spec("distill", dataset="random", method=method, **values, **own), data, how)
        return distiller

    plain, fast = start(paper, replace(accel, bf16=False, compile=False)), start(ours, accel)
    end = time.perf_counter() + 240
    while time.perf_counter() < end:  # until nothing has been compiling for a while
        for _ in range(20):
            fast.step()
        if not compiling():
            break
    many = 20
    plain_rate, fast_rate = alternate([plain.step, lambda: [fast.step() for _ in range(many)]], 1, seconds, accel)
    label = f"{method}, IPC {values['ipc']}, ConvNet-3-128, 32×32 colour: one step"
    return Row(label, "paper, eager fp32", plain_rate, "ours", fast_rate * many, "steps/s")


def main(args: argparse.Namespace) -> None:
    """The table of ``python -m engine bench``; ``args`` has json, quick and only."""
    names = ("machine", "students", "ensemble", *STEPS)
    if args.only and args.only not in names:
        raise Refused(f"There is no measurement “{args.only}”; choose one of {', '.join(names)}.")
    accel = pick_accel()
    seconds = 1.0 if args.quick else 5.0
    rows: list[Row] = []
    for name in names:
        if args.only not in (None, name) or (args.quick and args.only is None and name in STEPS):
            continue
        if name == "machine":  # its one line is printed with every measurement
            continue
        if name == "students":
            rows += compare_compiled(accel, seconds=seconds)
        elif name == "ensemble":
            rows.append(compare_ensemble(accel, channels=1, size=28, batch=10, seconds=seconds))
            rows.append(compare_ensemble(accel, seconds=seconds))
        else:
            rows.append(compare_step(name, accel, 4 * seconds))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1024 if platform.system() == "Linux" else 1024**2)
    if args.json:
        out = [vars(row) | {"gain": row.gain} for row in rows]
        print(json.dumps({"machine": machine(accel), "peak_memory_mib": peak, "rows": out}))
        return
    print(machine(accel))
    for row in rows:
        print(
            f"{row.what}: {row.plain} {row.plain_rate:.3g} {row.unit}, {row.other} {row.other_rate:.3g} {row.unit} "
            f"(×{row.gain:.2f})"
        )
    print(f"peak memory {peak:.0f} MiB")
