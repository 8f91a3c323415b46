"""The best of many random sets (Wang et al., Dataset Distillation, 2018: "optimized real images")."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from engine.accel import Accel
from engine.baselines.pick import Picked, random_set
from engine.data.base import Dataset
from engine.networks import make_network

CANDIDATES, KEPT, ROUNDS = 50, 10, 3  # ten of fifty: the best fifth
WIDTH = 32
SCORED = 1000  # training images that a set is tried on, per round
RIDGE = 1e-2  # of the mean of the kernel's diagonal


def make(data: Dataset, ipc: int, seed: int, accel: Accel, progress: Callable[[float], None]) -> Picked:
    """Draw 50 random sets, train a small student on each, keep the fifth that does best on training images.

    These ten are tried twice more, with other students and images, and the one with the best mean accuracy is taken.
    A student is the linear layer of a ConvNet-3 whose other layers stay as they were initialised: it is trained to its
    optimum in one step (ridge regression), so that 50 sets take seconds. All sets of a round meet the same ConvNet and
    the same images, less those that a set holds itself.
    """
    generator = torch.Generator().manual_seed(seed)
    candidates = [random_set(data, ipc, generator) for _ in range(CANDIDATES)]
    scores: dict[int, list[float]] = {candidate: [] for candidate in range(CANDIDATES)}
    alive = list(range(CANDIDATES))
    for round in range(ROUNDS):
        tried = data.distil_indices[torch.randperm(len(data.distil_indices), generator=generator)[:SCORED]]
        used, places = torch.cat([tried, *(candidates[c] for c in alive)]).unique(return_inverse=True)
        # The first round sees the most images; the others together take about as long as half of it.
        span = (0.0, 0.7) if round == 0 else (0.7 + 0.15 * (round - 1), 0.7 + 0.15 * round)

        def within(done: float, span: tuple[float, float] = span) -> None:
            progress(span[0] + done * (span[1] - span[0]))

        features = _features(data, used, 3 * seed + round, accel, within)
        labels = data.train_labels[used]
        tried_at, *sets_at = places.split([len(tried), *(len(candidates[c]) for c in alive)])
        for candidate, at in zip(alive, sets_at, strict=True):
            others = tried_at[~torch.isin(tried_at, at)]
            guesses = ridge(features[at], labels[at], features[others], len(data.classes))
            scores[candidate].append(float((guesses == labels[others]).double().mean()))
        if round == 0:
            alive = sorted(alive, key=lambda candidate: -scores[candidate][0])[:KEPT]
    progress(1.0)
    best = max(alive, key=lambda candidate: sum(scores[candidate]))
    first = [scores[candidate][0] for candidate in range(CANDIDATES)]
    notes = {
        "candidates": CANDIDATES,
        "kept": KEPT,
        "score": sum(scores[best]) / ROUNDS,
        "score_of_all": sum(first) / CANDIDATES,
        "score_of_kept": sum(sum(scores[c]) for c in alive) / (KEPT * ROUNDS),
        "scored_on": f"{min(SCORED, len(data.distil_indices)):,} training images a round, none of them held out",
    }
    return Picked(candidates[best], notes=notes)


def ridge(features: Tensor, labels: Tensor, others: Tensor, classes: int) -> Tensor:
    """Classes (M,) that ridge regression on features (N, D) with labels (N,) predicts for features (M, D)."""
    mean = features.mean(0)
    features, others = features - mean, others - mean
    ridge = RIDGE * features.square().sum(1).mean() + 1e-6
    targets = torch.nn.functional.one_hot(labels, classes).to(features) - 1 / classes
    if len(features) > features.shape[1]:  # the same solution from the smaller of the two systems
        gram = features.T @ features
        gram.diagonal().add_(ridge)
        return (others @ torch.linalg.solve(gram, features.T @ targets)).argmax(1)
    kernel = features @ features.T
    kernel.diagonal().add_(ridge)
    return (others @ features.T @ torch.linalg.solve(kernel, targets)).argmax(1)


@torch.no_grad()
def _features(data: Dataset, indices: Tensor, seed: int, accel: Accel, progress: Callable[[float], None]) -> Tensor:
    """(N, D) float32 features of training images under a freshly initialised ConvNet."""
    network = make_network("convnet", data.channels, data.size, len(data.classes), WIDTH, seed=seed).to(accel.device)
    out = []
    for part in indices.split(256):
        with accel.autocast():
            out.append(network.features(data.normalise(data.train_images[part].to(accel.device))).float().cpu())
        progress(min(1.0, len(out) * 256 / len(indices)))
    return torch.cat(out)
