"""Probe ``adaptation``: a few distilled images carry networks from one dataset to another.

Networks pre-trained on a source are fine-tuned to a target with the same classes by a few steps of gradient descent on
images that were distilled for exactly that: unrolled distillation whose initial weights are drawn from networks
pre-trained on the source (Wang et al. 2018, "Dataset distillation", section 4.3, whose MNIST, USPS and SVHN these are).
Judged on networks that no image was distilled with, beside as many steps on as many real images of the target, with
the step size that serves them best on held-out images.
"""

from __future__ import annotations

import copy
from typing import Any

from torch import Tensor, nn

from engine.baselines import make_baseline
from engine.data import load
from engine.data.base import Dataset
from engine.distill.dd import Method
from engine.distill.pretrained import begin, source_dataset
from engine.errors import Refused
from engine.probes.answerer import Work
from engine.probes.applications.specs import AdaptationSpec
from engine.probes.applications.steps import HELD_OUT, descend, distil, said
from engine.probes.desk import Answer
from engine.probes.robustness.common import mean_interval, sheet
from engine.spec import build_spec

RATES = (0.003, 0.01, 0.03, 0.1, 0.3)  # step sizes that real images may choose from
WAYS = {"before": "Before", "distilled": "Distilled", "random": "Random real", "kmeans-real": "k-means, nearest real"}


def answer(spec: AdaptationSpec, work: Work) -> Answer:
    """See ``AdaptationSpec``. Table ``networks``: accuracy of each held-out network on the target's test images,
    before and after each way of adapting; ``summary`` with 95 % intervals over networks."""
    if spec.source == spec.dataset:
        raise Refused("Source and target are the same dataset; choose two with the same classes.")
    work.tell(0.0, f"Loading {spec.dataset} and {spec.source}.")
    data = load(spec.dataset)
    source_dataset(spec.source, data)  # refuses what does not fit before anything is computed
    least = min(len(members) for members in data.by_class)
    if spec.ipc > least:
        raise Refused(f"The smallest class of {data.title} has {least} images; choose at most as many per class.")
    run = build_spec(
        "distill", dataset=spec.dataset, method="dd", network="lenet", ipc=spec.ipc, init="real", steps=spec.steps,
        initial="random-pretrained", distill_steps=spec.descents, distill_epochs=1, shared=True, lr_step=0.02,
        lr_img=0.01, batch_real=256, source=spec.source, source_steps=spec.source_steps, pool=spec.pool,
        halve=max(1, spec.steps // 3), seed=spec.seed,
    )  # fmt: skip
    distiller = Method()
    distiller.setup(run, data, work.accel)
    made = distil(distiller, spec.steps, lambda f, s: work.tell(0.75 * f, s))
    networks = [begin(distiller.start, distiller.build, HELD_OUT + i, data, work.accel) for i in range(spec.networks)]
    found = {"distilled": (made.images, made.labels, made.step_sizes.tolist())}
    chosen_rates: dict[str, float] = {}
    for kind in ("random", "kmeans-real"):
        work.tell(0.78, f"{WAYS[kind]} images.")
        real = make_baseline(kind, data, spec.ipc, seed=spec.seed)
        spare = begin(distiller.start, distiller.build, HELD_OUT - 1, data, work.accel)
        chosen_rates[kind] = best_rate(spare, real.images, real.hard_labels, spec.descents, data)
        found[kind] = (real.images, real.hard_labels, [chosen_rates[kind]] * spec.descents)
    rows: list[dict[str, Any]] = []
    for number, network in enumerate(networks):
        work.tell(0.8 + 0.2 * number / len(networks), f"Network {number + 1} of {len(networks)}.")
        after = {kind: descend(copy.deepcopy(network), *given) for kind, given in found.items()}
        for kind, judged in {"before": network, **after}.items():
            rows.append(
                {
                    "network": number,
                    "way": kind,
                    "accuracy": _accuracy(judged, data, data.test_images, data.test_labels),
                }
            )
    summary = []
    for kind in WAYS:
        mean, low, high = mean_interval([row["accuracy"] for row in rows if row["way"] == kind])
        summary.append({"way": kind, "mean": mean, "low": low, "high": high, "networks": len(networks)})
    means = {row["way"]: 100 * row["mean"] for row in summary}
    facts = {
        "ways": WAYS,
        "rates": {"distilled": made.step_sizes.tolist(), **chosen_rates},
        "headline": f"{spec.descents} steps on {len(made.images)} distilled images: from {means['before']:.1f} to "
        f"{means['distilled']:.1f} % on {data.title}; on as many random real images to {means['random']:.1f} %.",
        "source": spec.source,
        "target": data.title,
    }
    shown = [made.to_display()[made.hard_labels == c][:5] for c in range(len(data.classes))]
    images = {"images": work.picture("images", sheet(shown), 3)}
    return Answer({"summary": summary, "networks": rows}, facts, images)


def best_rate(network: nn.Module, images: Tensor, labels: Tensor, steps: int, data: Dataset) -> float:
    """The step size of ``RATES`` after whose steps most of the held-out training images are recognised."""
    held, truth = data.train_images[data.held_out], data.train_labels[data.held_out]
    tried = {
        r: _accuracy(descend(copy.deepcopy(network), images, labels, [r] * steps), data, held, truth) for r in RATES
    }
    return max(tried, key=lambda rate: tried[rate])


def _accuracy(network: nn.Module, data: Dataset, images: Tensor, labels: Tensor) -> float:
    return float((said(network, data, images) == labels).double().mean())
