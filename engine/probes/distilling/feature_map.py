"""Probe ``feature-map``: where the synthetic images lie among real ones, step by step.

Features of real test images are laid out in two dimensions by the two directions in which they differ most (principal
components); the synthetic images of each frame are put into the same plane. The plane shows only a share of how images
differ, which is told.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from engine.data.base import Dataset
from engine.networks import make_network
from engine.probes.answerer import Work
from engine.probes.desk import Answer
from engine.probes.distilling.common import asked_run, frame_images
from engine.probes.distilling.specs import FeatureMapSpec
from engine.runs.studying import finished_full
from engine.spec import RunSpec

BATCH = 250


def answer(spec: FeatureMapSpec, work: Work) -> Answer:
    """See ``FeatureMapSpec``."""
    run, data, steps = asked_run(work, spec.run)
    features, name = _features(spec, run, data, work)
    chosen = _chosen(data, spec)
    work.tell(0.1, "Placing the real images")
    real = features(data.test_images[chosen])
    centre = real.mean(0)
    # The columns of v are the principal components; their signs are arbitrary, so they are fixed
    _, spread, v = np.linalg.svd(real - centre, full_matrices=False)
    plane = v[:2].T * np.sign(v[:2].sum(1) + 1e-12)
    share = float((spread[:2] ** 2).sum() / (spread**2).sum())
    labels = data.test_labels[chosen].tolist()
    points: list[dict[str, Any]] = [
        {"kind": "real", "step": None, "image": int(i), "class": data.classes[c], "x": float(x), "y": float(y)}
        for i, c, (x, y) in zip(chosen, labels, (real - centre) @ plane, strict=True)
    ]
    places = np.unique(np.linspace(0, len(steps) - 1, min(spec.frames, len(steps))).round().astype(int))
    for n, step in enumerate(steps[i] for i in places):
        work.tell(0.2 + 0.8 * n / len(places), "Placing the synthetic images")
        images = frame_images(work.store, spec.run, step, run.ipc)
        for i, (x, y) in enumerate((features(images) - centre) @ plane):
            of = data.classes[i // run.ipc]
            points.append({"kind": "synthetic", "step": step, "image": i, "class": of, "x": float(x), "y": float(y)})
    return Answer(tables={"points": points}, facts={"network": name, "share": share, "classes": list(data.classes)})


def _features(
    spec: FeatureMapSpec, run: RunSpec, data: Dataset, work: Work
) -> tuple[Callable[[Tensor], np.ndarray], str]:
    """Features (N, D) of uint8 images under a network, and what network that is."""
    student = finished_full(work.store, data.name, run.size, work.accel) if spec.network == "auto" else None
    if student is not None:
        module, prepare, name = student.module, student.prepare, student.facts["name"]
    else:
        module = make_network("convnet", data.channels, data.size, len(data.classes), seed=spec.seed)
        module = module.to(work.accel.device).eval()

        def prepare(pixels: Tensor) -> Tensor:
            return data.normalise(pixels * 255).to(work.accel.device)

        name = "a random ConvNet"

    def features(images: Tensor) -> np.ndarray:
        with torch.no_grad():
            parts = [module.features(prepare(part.float() / 255)).float().cpu() for part in images.split(BATCH)]
        return torch.cat(parts).numpy().astype(np.float64)

    return features, name


def _chosen(data: Dataset, spec: FeatureMapSpec) -> np.ndarray:
    """Indices of random test images, as many of each class."""
    draw = np.random.default_rng(spec.seed)
    labels = data.test_labels.numpy()
    members = (np.flatnonzero(labels == c) for c in range(len(data.classes)))
    return np.concatenate([draw.choice(m, min(len(m), spec.images), replace=False) for m in members])
