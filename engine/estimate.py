"""What a run will need: memory and time, told before it starts (torch-free).

Memory is counted from the activations that a step keeps for its backward pass; a gradient of a gradient keeps about
three times as many. It is meant to be right within a factor of two: enough to refuse what cannot work.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from engine.data.catalogue import DATASETS
from engine.methods import METHODS
from engine.spec import RunSpec
from engine.students.architecture import Architecture
from engine.students.protocols import protocol_for

PROGRAM = 0.9e9  # bytes of a worker with torch, its threads and compiled programs, before any image
SECOND_ORDER = 3.0  # times the activations of an ordinary backward pass
# Multiply-adds a second of a training step in fp32 on a core of a 2.8 GHz Xeon; normalisation layers take half the time
MACS_PER_CORE = {"convnet": 30e9, "convnet-wide": 55e9}
FIXED_MACS = {"alexnet": 245e6, "vgg11": 153e6, "resnet18": 556e6, "resnet18-bn": 556e6, "vit": 52e6}  # 32×32, an image
STEP = 0.002  # seconds of a training step beyond its multiply-adds, which is all there is to small networks
PATH = 0.6  # of the machine's memory for the activations of all steps gone back through; with more, each is taken twice
COMFORT = 0.9  # share of the machine's memory that a run may take


@dataclass(frozen=True)
class Estimate:
    """``memory`` of the run and of the ``machine`` in bytes; ``students`` in seconds, None where it is not known."""

    memory: float
    machine: float
    students: float | None

    @property
    def fits(self) -> bool:
        """Whether the machine's memory suffices."""
        return self.memory <= COMFORT * self.machine

    def sentence(self) -> str:
        """For people, before they start."""
        text = f"Needs about {_gigabytes(self.memory)} of memory"
        if self.students is not None:
            text += f", and about {duration(self.students)} for the students afterwards"
        return text + "."

    def refusal(self) -> str:
        """Why the run is refused, and what to do."""
        return (
            f"This run would need about {_gigabytes(self.memory)} of memory, but the machine has "
            f"{_gigabytes(self.machine)}. Choose fewer images per class (ipc), a narrower network (width), or fewer "
            "real images at once (batch_real)."
        )


def keeps_path(spec: RunSpec) -> bool:
    """Whether a step keeps the activations of all the training steps that it goes back through."""
    return _memory(spec)[1]


def estimate(spec: RunSpec) -> Estimate:
    """What ``spec`` will need on this machine."""
    return Estimate(_memory(spec)[0], machine_memory(), _students(spec))


def _memory(spec: RunSpec) -> tuple[float, bool]:
    """Bytes of memory of a run, and whether those are with the activations of all the steps it goes back through."""
    spec = _as_seen(spec)
    classes, channels, size, images = _data(spec)
    pixels = 4.0 * channels * size**2
    kept, widest, weights, _ = _network(spec.network, spec.width, spec.depth, channels, size, classes)
    load = METHODS[spec.method].load(spec, spec.parameters, classes)
    second = SECOND_ORDER * load.second * kept
    keeps = load.steps * second <= PATH * machine_memory()
    memory = PROGRAM + load.weights * weights
    memory += load.backward * kept + (load.steps if keeps else 1) * second + load.forward * 2 * widest
    memory += images * pixels / 4 + 6 * classes * spec.ipc * pixels
    return memory, keeps


def _as_seen(spec: RunSpec) -> RunSpec:
    """The run with as many images per class as networks see, each stored one being several of these."""
    return spec.model_copy(update={"ipc": spec.ipc * getattr(spec.parameters, "factor", 1) ** 2})


def _data(spec: RunSpec) -> tuple[int, int, int, int]:
    """Classes, channels, side and training images of a run's dataset; a guess where it is not of the catalogue."""
    info = DATASETS.get(spec.dataset)
    return (len(info.classes), info.channels, info.size, info.train) if info else (10, 3, spec.size, 20_000)


def _network(
    name: str, width: int, depth: int, channels: int, size: int, classes: int
) -> tuple[float, float, float, float]:
    """Bytes of all activations of an image, of the largest two, of the weights; multiply-adds of one image."""
    side = 32 if size == 28 and channels == 1 and name.startswith("convnet") else size
    if name == "mlp":
        weights = 4.0 * (channels * size**2 * 128 + 128 * 128)
        return 4.0 * 512, 4.0 * 256, weights, weights / 4
    if name == "lenet":
        return 4.0 * 3 * 6 * side**2, 4.0 * 12 * side**2, 4.0 * 62_000, 0.65e6
    widths = [width, 2 * width, 4 * width] if name == "convnet-wide" else [width] * depth
    layers = 2 if name == "convnet-wide" else 3  # convolution, (normalisation,) ReLU
    kept = weights = macs = 0.0
    for inputs, outputs in zip([channels, *widths], widths, strict=False):
        kept += 4.0 * side**2 * outputs * (layers + 0.25)
        weights += 4.0 * 9 * inputs * outputs
        macs += 9.0 * inputs * outputs * side**2
        side //= 2
    head = widths[-1] * side**2 * classes
    return kept, 8.0 * widths[0] * size**2, weights + 4 * head, macs + head


def _students(spec: RunSpec) -> float | None:
    """Seconds of all students, from their multiply-adds; None where there are none or nothing is known."""
    spec = _as_seen(spec)
    classes, channels, size, _ = _data(spec)
    learned = bool(getattr(spec.parameters, "learn_labels", False))
    protocol = protocol_for(spec.final_protocol, spec.dataset, learned=learned)
    if not spec.students or spec.device not in ("auto", "cpu") or protocol.network not in MACS_PER_CORE:
        return None
    images = classes * spec.ipc
    macs = _network(protocol.network, protocol.width, 3, channels, size, classes)[3]
    training = 3 * macs * protocol.step_count(images) * min(protocol.batch, images)
    info = DATASETS.get(spec.dataset)
    testing = macs * (info.test if info else 2000)
    return spec.students * (training + testing) / (MACS_PER_CORE[protocol.network] * (os.cpu_count() or 1))


def step_seconds(spec: RunSpec) -> float:
    """Seconds of one step of distilling, very roughly, from its multiply-adds: of the images that it differentiates
    through, three passes' worth, and nine for a gradient of a gradient. What is kept between steps costs nothing."""
    spec = _as_seen(spec)
    classes, channels, size, _ = _data(spec)
    load = METHODS[spec.method].load(spec, spec.parameters, classes)
    macs = _network(spec.network, spec.width, spec.depth, channels, size, classes)[3]
    rate = MACS_PER_CORE.get(spec.network, MACS_PER_CORE["convnet"]) * (os.cpu_count() or 1)
    return STEP + (3 * load.backward + 9 * load.second * load.steps) * macs / rate


def evaluation_seconds(network: Architecture, protocol: str, dataset: str, images: int, students: int) -> float:
    """Seconds that ``students`` of ``network`` take on a set of ``images`` images and on the test images, roughly."""
    info = DATASETS.get(dataset)
    channels, size = (info.channels, info.size) if info else (3, 32)
    chosen = protocol_for(protocol, dataset, network.network)
    if network.network in FIXED_MACS:
        macs = FIXED_MACS[network.network] * (max(size, 28) / 32) ** 2
    else:
        name = network.network.replace("edge-popup", "convnet")
        width, depth = network.width or chosen.width, network.depth or 3
        macs = _network(name, width, depth, channels, size, len(info.classes) if info else 10)[3]
    steps = chosen.step_count(images)
    work = 3 * macs * steps * min(chosen.batch, images) + macs * (info.test if info else 2000)
    rate = MACS_PER_CORE.get(network.network, MACS_PER_CORE["convnet"]) * (os.cpu_count() or 1)
    return students * (work / rate + STEP * steps)


def machine_memory() -> float:
    """Bytes of memory that this machine, or the container it runs in, lets its programs have."""
    found = [float(os.sysconf("SC_PAGE_SIZE")) * os.sysconf("SC_PHYS_PAGES")] if hasattr(os, "sysconf") else []
    for name in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        try:
            found.append(float(Path(name).read_text()))
        except (OSError, ValueError):  # no such limit, or “max”
            continue
    return min(found, default=float("inf"))


def _gigabytes(count: float) -> str:
    return f"{count / 1e9:.1f} GB"


def duration(seconds: float) -> str:
    """Seconds in words, roughly."""
    if seconds < 90:
        return f"{max(5, 5 * round(seconds / 5))} s"
    return f"{round(seconds / 60)} minutes" if seconds < 5400 else f"{seconds / 3600:.1f} hours"
