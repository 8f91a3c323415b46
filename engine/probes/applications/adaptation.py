"""Probe ``adaptation``: a few distilled images carry networks from one dataset to another.

Networks pre-trained on a source are fine-tuned to a target with the same classes by a few steps of gradient descent on
images that were distilled for exactly that: unrolled distillation whose initial weights are drawn from networks
pre-trained on the source (Wang et al. 2018, "Dataset distillation", its section on different initialisations, whose
MNIST, USPS and SVHN these are). Judged on networks that no image was distilled with, beside as many steps on as many
real images of the target, with the step size that serves them best on held-out images.
"""

from __future__ import annotations

import copy

from torch import Tensor, nn

from engine.baselines import make_baseline
from engine.data import load
from engine.data.base import Dataset
from engine.distill.dd import Method
from engine.distill.pretrained import begin, source_dataset
from engine.errors import Refused
from engine.probes.answerer import Work
from engine.probes.applications.common import (
    HELD_OUT,
    Row,
    accuracy,
    contrast,
    descend,
    enough,
    percent,
    picture,
    points,
    summarise,
    unrolled,
)
from engine.probes.applications.specs import AdaptationSpec
from engine.probes.desk import Answer
from engine.spec import build_spec

RATES = (0.003, 0.01, 0.03, 0.1, 0.3, 1.0)  # step sizes that real images may choose from
WAYS = {
    "before": "Before", "random": "Random real", "kmeans-real": "k-means, nearest real", "distilled": "Distilled",
}  # fmt: skip
KINDS = {"before": "full", "random": "random", "kmeans-real": "selected", "distilled": "distilled"}


def answer(spec: AdaptationSpec, work: Work) -> Answer:
    """See ``AdaptationSpec``. Table ``rows``: accuracy of each held-out network on the target's test images, before
    and after each way of adapting; ``summary`` with 95 % intervals over networks, ``contrasts`` paired by network."""
    if spec.source == spec.dataset:
        raise Refused("Source and target are the same dataset; choose two with the same classes.")
    work.tell(0.0, f"Loading {spec.dataset} and {spec.source}.")
    data = load(spec.dataset)
    source = source_dataset(spec.source, data)  # refuses what does not fit before anything is computed
    enough(data, spec.ipc)
    run = build_spec(
        "distill", dataset=spec.dataset, method="dd", network=spec.network, ipc=spec.ipc, init="real", steps=spec.steps,
        initial="random-pretrained", distill_steps=spec.descents, distill_epochs=1, shared=True, lr_step=0.02,
        lr_img=0.05, batch_real=256, source=spec.source, source_steps=spec.source_steps, pool=spec.pool,
        halve=max(1, spec.steps // 3), seed=spec.seed,
    )  # fmt: skip
    distiller = Method()
    distiller.setup(run, data, work.accel)
    made = unrolled(distiller, spec.steps, lambda f, s: work.tell(0.75 * f, s))
    assert made.step_sizes is not None

    def network(seed: int) -> nn.Module:
        return begin(distiller.start, distiller.build, seed, data, work.accel)

    given = {"distilled": (made.images, made.hard_labels, made.step_sizes.tolist())}
    rates: dict[str, list[float]] = {"distilled": made.step_sizes.tolist()}
    for way in ("random", "kmeans-real"):
        work.tell(0.78, f"{WAYS[way]} images.")
        real = make_baseline(way, data, spec.ipc, seed=spec.seed)
        rate = best_rate(network(HELD_OUT - 1), real.images, real.hard_labels, spec.descents, data)
        rates[way] = [rate] * spec.descents
        given[way] = (real.images, real.hard_labels, rates[way])
    rows: list[Row] = []
    for number in range(spec.networks):
        work.tell(0.8 + 0.2 * number / spec.networks, f"Network {number + 1} of {spec.networks}.")
        before = network(HELD_OUT + number)
        for way in WAYS:
            after = before if way == "before" else descend(copy.deepcopy(before), *given[way])
            right = accuracy(after, data.normalise, data.test_images, data.test_labels)
            rows.append({"repeat": number, "way": way, "accuracy": right})
    summary = summarise(rows, ("accuracy",))
    contrasts = [contrast(rows, "accuracy", "distilled", other) for other in ("before", "random", "kmeans-real")]
    facts = {
        "ways": WAYS,
        "kinds": KINDS,
        "rates": rates,
        "images": len(made.images),
        "networks": spec.networks,
        "shown": list(data.classes),
        "source": source.title,
        "target": data.title,
        "chance": 1 / len(data.classes),
        "headline": _headline(summary, contrasts, len(made.images), spec, source, data),
    }
    return Answer(
        {"summary": summary, "contrasts": contrasts, "rows": rows}, facts, {"images": picture(work, "images", made)},
        ("Classes are matched by their number: the first class of the source is taken for the first of the target.",),
    )  # fmt: skip


def _headline(
    summary: list[Row], contrasts: list[Row], images: int, spec: AdaptationSpec, source: Dataset, data: Dataset
) -> str:
    found = {row["way"]: row for row in summary}
    more = {row["contrast"]: row for row in contrasts}
    steps = "One step" if spec.descents == 1 else f"{spec.descents} steps"
    return (
        f"{steps} on {images} distilled images take networks that know {source.title} from "
        f"{percent(found['before'])} to {percent(found['distilled'])} on {data.title}: "
        f"{points(more['distilled - random'])} against random real images."
    )


def best_rate(network: nn.Module, images: Tensor, labels: Tensor, steps: int, data: Dataset) -> float:
    """The step size of ``RATES`` after whose steps most of the held-out training images are recognised."""
    held, truth = data.train_images[data.held_out], data.train_labels[data.held_out]

    def worth(rate: float) -> float:
        adapted = descend(copy.deepcopy(network), images, labels, [rate] * steps)
        return accuracy(adapted, data.normalise, held, truth)

    return max(RATES, key=worth)
