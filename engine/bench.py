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
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch.func import functional_call

from engine.accel import Accel, compiling, pick_accel
from engine.data.base import Dataset
from engine.distill import make_distiller
from engine.distill.images import network_key
from engine.distill.mtt import matching_loss
from engine.errors import Refused
from engine.networks import make_network
from engine.presets import PRESETS
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
    compiled: list[Any] = [fast.fast_step, fast.fast_logits]
    for function in compiled:
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
    for function in compiled:
        function.background = True
    if any(function.failed for function in compiled):
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

# name -> (method, values, the paper's variant, ours); at 1 and 10 images per class, and with the presets' short loops
STEPS: dict[str, tuple[str, dict[str, Any], dict[str, Any], dict[str, Any]]] = {
    f"{method}-{ipc}": (method, {"ipc": ipc, **more}, paper, ours)
    for ipc in (1, 10)
    for method, more, paper, ours in (
        ("dm", {}, {"variant": "plain", "batch_real": 256}, {"variant": "bank"}),
        ("dc", {}, {"variant": "plain", "batch_real": 256}, {}),
        ("dsa", {}, {"variant": "plain", "batch_real": 256}, {}),
        ("datadam", {}, {"variant": "plain", "batch_real": 256}, {"variant": "bank"}),
        ("frepo", {}, {"reuse": 1, "advance": 1, "augment": False}, {}),
        ("dd", {"distill_steps": ipc}, {"batch_real": 1024}, {}),
        ("mtt", {}, {"syn_steps": 50 if ipc == 1 else 30}, {}),
    )
} | {
    f"{method}-10-short": (
        method,
        {"ipc": 10},
        {"variant": "plain", "batch_real": 256, "inner_loop": 50, "lr_net": 0.01},
        {"inner_loop": 5, "lr_net": 0.1},
    )
    for method in ("dc", "dsa")
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

    Where ours takes less into a step than the paper's (fewer real images, fewer steps of a student), the row says so.
    Ours is timed over many steps, so that what it does only now and then (a look at the real images) counts.
    """
    method, values, paper, ours = STEPS[name]
    data = random_dataset()

    def start(own: dict[str, Any], how: Accel) -> Any:
        distiller: Any = make_distiller(method)
        distiller.setup(build_spec("distill", dataset="random", method=method, **values, **own), data, how)
        if method == "mtt":
            distiller.experts = _Trajectory(distiller)
        return distiller

    plain, fast = start(paper, replace(accel, bf16=False, compile=False)), start(ours, accel)
    published = {"dd": partial(_published_dd, plain), "mtt": partial(_published_mtt, plain)}.get(method, plain.step)
    end = time.perf_counter() + 240
    while time.perf_counter() < end:  # until two seconds of steps have left nothing to compile
        began = time.perf_counter()
        while time.perf_counter() < began + 2:
            fast.step()
        if not compiling():
            break
        while compiling() and time.perf_counter() < end:
            time.sleep(0.1)  # the compiler has the machine to itself
    many = 20 if method in ("dm", "dc", "dsa", "datadam", "frepo") and values["ipc"] == 1 or method == "dm" else 5
    plain_rate, fast_rate = alternate([published, lambda: [fast.step() for _ in range(many)]], 1, seconds, accel)
    label = f"{method}, IPC {values['ipc']}, ConvNet-3-128, 32×32 colour: one step"
    fields = paper | ours
    theirs, mine = (
        ", ".join(f"{k} {getattr(own, k)}" for k in fields) for own in (plain.spec.parameters, fast.spec.parameters)
    )
    return Row(label, f"paper ({theirs}), eager fp32", plain_rate, f"ours ({mine})", fast_rate * many, "steps/s")


class _Trajectory:
    """Two random networks as both ends of an expert's segment: only their shapes matter to a step's time."""

    complete, fraction, progress = True, 1.0, ""

    def __init__(self, distiller: Any):
        key = network_key(distiller.spec, distiller.data)
        self.recorded = [0]
        self.ends = [
            {k: p.detach() for k, p in make_network(*key, seed=s).to(distiller.accel.device).named_parameters()}
            for s in (0, 1)
        ]

    def segments(self) -> list[tuple[int, int]]:
        return [(0, 1)]

    def weights(self, expert: int, epoch: int) -> dict[str, torch.Tensor]:
        return self.ends[min(epoch, 1)]


def _unrolled(network: torch.nn.Module, weights: Any, batches: Any, rates: torch.Tensor) -> Any:
    """Gradient descent whose whole graph is kept, as the papers' code does it: the final weights."""
    for (images, labels), rate in zip(batches, rates, strict=True):
        loss = F.cross_entropy(functional_call(network, weights, (images,)), labels)
        gradients = torch.autograd.grad(loss, list(weights.values()), create_graph=True)
        weights = {k: w - rate * g for (k, w), g in zip(weights.items(), gradients, strict=True)}
    return weights


def _published_dd(distiller: Any) -> None:
    """One step of DD by ordinary back-propagation through the steps."""
    network = make_network(*network_key(distiller.spec, distiller.data)).to(distiller.accel.device)
    rates = F.softplus(distiller.raw_rates)
    images, labels, count = distiller.images, distiller.labels, distiller.turns
    turns = [(images[s::count], labels[s::count]) for s in range(count)]
    weights = {k: w.detach().requires_grad_() for k, w in distiller._begin().items()}
    final = _unrolled(network, weights, [turns[t % count] for t in range(len(rates))], rates)
    real, targets = distiller._real()
    distiller.optimiser.zero_grad()
    F.cross_entropy(functional_call(network, final, (real,)), targets).backward()
    distiller.optimiser.step()


def _published_mtt(distiller: Any) -> None:
    """One step of MTT by ordinary back-propagation through the student's steps."""
    network = make_network(*network_key(distiller.spec, distiller.data)).to(distiller.accel.device)
    images, raw = distiller.images.detach().requires_grad_(), distiller.raw.detach().requires_grad_()
    start, target = (distiller.experts.weights(0, epoch) for epoch in (0, 1))
    batches = list(distiller._batches(images))
    weights = {k: w.clone().requires_grad_() for k, w in start.items()}
    final = _unrolled(network, weights, batches, F.softplus(raw).expand(len(batches)))
    matching_loss(final, target, start).backward()
    distiller.images.grad, distiller.raw.grad = images.grad, raw.grad
    distiller.optimiser.step()


# ---- presets ----


def time_to_accuracy(preset: str) -> dict[str, Any]:
    """Distil a preset and tell after how many distilling seconds its live accuracy (held-out images, ``quick``
    protocol) came to 90, 95 and 99 % of the best it reached, and what that was."""
    from engine.runs.store import Store
    from engine.runs.worker import run_job

    with tempfile.TemporaryDirectory() as home:
        store = Store(Path(home))
        spec = build_spec("distill", **{**PRESETS[preset].values, "students": 0})
        id = store.submit("distill", spec, pid=os.getpid())
        queued = store.run(id)
        assert queued is not None
        run_job(store, queued, shares=False)
        run = store.run(id)
        assert run is not None
        if run.status != "done":
            raise Refused(f"The preset {preset} could not be measured: {run.message}")
        curve = [(e.data["seconds"], e.data["accuracy"]) for e in store.events(id, 0, ("accuracy",))]
    best = max(accuracy for _, accuracy in curve)
    reached = {f"{share:.0%}": next(s for s, a in curve if a >= share * best) for share in (0.9, 0.95, 0.99)}
    return {"preset": preset, "best": best, "seconds": reached, "steps": run.step}


def main(args: argparse.Namespace) -> None:
    """The table of ``python -m engine bench``; ``args`` has json, quick and only."""
    names = ("machine", "students", "ensemble", *STEPS, *PRESETS)
    if args.only and args.only not in names:
        raise Refused(f"There is no measurement “{args.only}”; choose one of {', '.join(names)}.")
    accel = pick_accel()
    seconds = 1.0 if args.quick else 5.0
    rows: list[Row] = []
    curves: list[dict[str, Any]] = []
    for name in names:
        if args.only not in (None, name) or (args.quick and args.only is None and name in (*STEPS, *PRESETS)):
            continue
        if name == "machine":  # its one line is printed with every measurement
            continue
        if name in PRESETS:
            if args.only or PRESETS[name].quick:
                curves.append(time_to_accuracy(name))
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
        print(json.dumps({"machine": machine(accel), "peak_memory_mib": peak, "rows": out, "presets": curves}))
        return
    print(machine(accel))
    for row in rows:
        print(
            f"{row.what}: {row.plain} {row.plain_rate:.3g} {row.unit}, {row.other} {row.other_rate:.3g} {row.unit} "
            f"(×{row.gain:.2f})"
        )
    for found in curves:
        times = ", ".join(f"{share} of it after {seconds:.0f} s" for share, seconds in found["seconds"].items())
        print(f"{found['preset']}: {found['best']:.1%} (held-out images, quick protocol) at best; {times}")
    print(f"peak memory {peak:.0f} MiB")
