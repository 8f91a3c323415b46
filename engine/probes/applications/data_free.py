"""Probe ``data-free``: students of a trained network whose training images are not there.

Every way makes images without any data and lets a student learn what the teacher says about them (its probabilities):

- *impressions*: images on which the teacher says what it might say about data. Targets for class k are drawn from a
  Dirichlet distribution whose concentration is the similarity of its last layer's weights to those of the other
  classes; each image is found from noise by gradient descent (Nayak et al. 2019, "Zero-shot knowledge distillation").
- *noise*, *other images*: arbitrary transfer sets, uniform noise or another dataset, as many for each class that the
  teacher sees in them as there are (Nayak et al. 2021, "Effectiveness of arbitrary transfer sets").
- *generator*: a small network makes images on which student and teacher disagree, the student learns to agree (Fang et
  al. 2019, "Data-free adversarial distillation"); what it had learned before is retained by a memory of earlier images
  on which it is judged one gradient step ahead (Patel, Mopuri & Qiu 2023, "Learning to retain while acquiring").

Beside them students of the distilled or selected set that is named, if any, with the same number of images.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call, grad

from engine.accel import seeded
from engine.data import load
from engine.data.base import Dataset
from engine.errors import Refused
from engine.networks import make_network
from engine.probes.answerer import Work
from engine.probes.applications.specs import DataFreeSpec
from engine.probes.desk import Answer
from engine.probes.robustness.common import adapt, mean_interval, same_dataset, shape, sheet
from engine.runs.imports import read_set
from engine.students.kept import Student
from engine.students.train import train_student
from engine.synthetic import SyntheticSet

WAYS = {
    "impressions": "Data impressions",
    "noise": "Noise",
    "other": "Other images",
    "generator": "Generator",
    "set": "The set named",
}
TEMPERATURE = 20.0  # at which impressions are sought and teachers are listened to, as in the papers
CODE = 64  # numbers from which the generator makes an image
AHEAD = 0.05  # step by which the student looks ahead at what it would forget


def answer(spec: DataFreeSpec, work: Work) -> Answer:
    """See ``DataFreeSpec``. Table ``students``: the test accuracy of each; ``summary`` with 95 % intervals."""
    (teacher,), data = same_dataset(spec.teacher, work)
    ways = [way for way in ("impressions", "noise", "other", "generator") if way in spec.ways]
    count, classes = spec.images * len(data.classes), len(data.classes)
    rows: list[dict[str, Any]] = []
    images: dict[str, str] = {}
    named = read_set(work.store.result_folder(spec.source) or Path(spec.source).expanduser()) if spec.source else None
    if named is not None and (named.images.shape[1:] != data.train_images.shape[1:] or named.classes != data.classes):
        raise Refused(f"The set does not stand for {data.title}, which the teacher knows; choose another, or none.")
    order = [*ways, *(["set"] if named is not None else [])]
    for number, way in enumerate(order):

        def tell(fraction: float, said: str = "", number: int = number, way: str = way) -> None:
            work.tell((number + fraction) / len(order), f"{WAYS[way]}: {said}")

        for student in range(spec.students):
            seed = 1000 * spec.seed + student
            share = student / spec.students
            if way == "generator":
                module, made = adversarial(
                    teacher, data, spec.rounds, seed, lambda f, s=share: tell(s + f / spec.students, "in a duel.")
                )
                shown = made
            else:
                if way == "set":
                    assert named is not None
                    chosen, shown = named, named.to_display()
                else:
                    tell(share, "making images.")
                    shown = _images(way, teacher, data, spec, seed, tell, share)
                    chosen = _listened(shown, teacher, data)
                module = train_student(chosen, data, "dc" if spec.long else "quick", seed=seed, accel=work.accel)
                prepare = chosen.prepare
            with torch.no_grad():
                ready = data.normalise if way == "generator" else prepare
                said = torch.cat([module(ready(part)).argmax(1).cpu() for part in data.test_images.split(500)])
            accuracy = float((said == data.test_labels).double().mean())
            rows.append(
                {"way": way, "student": student, "accuracy": accuracy, "images": count if way != "set" else len(shown)}
            )
            if student == 0:
                per = max(1, len(shown) // classes)
                picked = [shown[c * per : c * per + 8] for c in range(classes)]
                images[way] = work.picture(way, sheet(picked), 2)
    summary = []
    for way in order:
        mean, low, high = mean_interval([row["accuracy"] for row in rows if row["way"] == way])
        summary.append({"way": way, "mean": mean, "low": low, "high": high})
    facts = {
        "ways": {way: WAYS[way] for way in order},
        "teacher": teacher.name,
        "teacher_accuracy": teacher.facts.get("accuracy"),
        "headline": "; ".join(f"{WAYS[r['way']]} {100 * r['mean']:.1f} %" for r in summary),
    }
    return Answer({"summary": summary, "students": rows}, facts, images)


# ---- transfer sets --------------------------------------------------------------------------------------------------


def _images(
    way: str, teacher: Student, data: Dataset, spec: DataFreeSpec, seed: int, tell: Callable[..., None], share: float
) -> Tensor:
    """uint8 images (N, C, H, W) of a transfer set, class after class where there are classes."""
    generator = torch.Generator().manual_seed(seed)
    count = spec.images * len(data.classes)
    if way == "impressions":
        targets = torch.cat(
            [dirichlet(concentration(teacher, c), spec.images, seed + 7919 * c) for c in range(len(data.classes))]
        )
        return impressions(
            teacher, targets, (data.channels, data.size), spec.steps, seed,
            lambda f: tell(share + f / spec.students, "looking for images."),
        )  # fmt: skip
    pool_size = 8 * count
    if way == "noise":
        pool = torch.randint(0, 256, (pool_size, data.channels, data.size, data.size), generator=generator).byte()
    else:
        if spec.other == data.name:
            raise Refused("The other dataset is the teacher's own; choose one that it does not know.")
        other = load(spec.other)
        at = torch.randperm(len(other.train_images), generator=generator)[:pool_size]
        pool = adapt(other.train_images[at], *shape(teacher))
    return balanced(pool, teacher.logits(pool).argmax(1), len(data.classes), spec.images, generator)


def balanced(pool: Tensor, said: Tensor, classes: int, each: int, generator: torch.Generator) -> Tensor:
    """``each`` images for every class that the teacher sees in the pool; classes it sees too rarely are filled up from
    the others at random."""
    order = torch.randperm(len(pool), generator=generator)
    chosen = [order[said[order] == c][:each] for c in range(classes)]
    missing = classes * each - sum(len(part) for part in chosen)
    rest = order[~torch.isin(order, torch.cat(chosen))][:missing]
    return pool[torch.cat([*chosen, rest])]


def _listened(images: Tensor, teacher: Student, data: Dataset) -> SyntheticSet:
    """Images with what the teacher says about them at the temperature, as soft labels."""
    labels = (teacher.logits(images) / TEMPERATURE).softmax(1)
    return SyntheticSet(data.normalise(images), labels, data.name, data.classes, data.mean, data.std, "summarised")


# ---- impressions ----------------------------------------------------------------------------------------------------


def concentration(teacher: Student, c: int) -> Tensor:
    """The Dirichlet concentration (K,) of class ``c``: cosine similarities of the last layer's weights, brought into
    (0, 1]."""
    weights = [m for m in teacher.module.modules() if isinstance(m, nn.Linear)][-1].weight.detach().float().cpu()
    unit = F.normalize(weights, dim=1)
    similar = unit @ unit[c]
    return ((similar - similar.min()) / (similar.max() - similar.min())).clamp_min(1e-2)


def dirichlet(alpha: Tensor, count: int, seed: int) -> Tensor:
    """``count`` softmax vectors (N, K), half of them with the concentration as it is, half with a tenth of it."""
    with seeded(seed):
        parts = [torch.distributions.Dirichlet(scale * alpha).sample((n,)) for scale, n in
                 ((1.0, count - count // 2), (0.1, count // 2)) if n]  # fmt: skip
    return torch.cat(parts)


def impressions(
    teacher: Student, targets: Tensor, form: tuple[int, int], steps: int, seed: int, tell: Callable[[float], None]
) -> Tensor:
    """uint8 images on which the teacher's softmax at the temperature is ``targets`` (N, K), found from noise."""
    channels, size = form
    with seeded(seed):
        x = torch.rand(len(targets), channels, size, size)
    x.requires_grad_()
    optimiser = torch.optim.Adam([x], lr=0.05)
    teacher.module.requires_grad_(False)
    for step in range(steps):
        optimiser.zero_grad()
        for part in torch.arange(len(targets)).split(250):
            logits = teacher.module(teacher.prepare(x[part])).float()
            F.cross_entropy(logits / TEMPERATURE, targets[part].to(logits), reduction="sum").backward()
        optimiser.step()
        with torch.no_grad():
            x.clamp_(0, 1)
        tell((step + 1) / steps)
    return (x.detach() * 255).round().byte()


# ---- generator ------------------------------------------------------------------------------------------------------


class Generator(nn.Module):
    """Numbers (N, 64) to images (N, C, H, W) in [0, 1]: a linear layer, two enlargements with 3×3 convolutions."""

    def __init__(self, channels: int, size: int, width: int = 32):
        super().__init__()
        self.side, self.width, self.size = -(-size // 4), width, size
        self.begin = nn.Linear(CODE, 2 * width * self.side**2)
        self.body = nn.Sequential(
            nn.BatchNorm2d(2 * width), nn.Upsample(scale_factor=2),
            nn.Conv2d(2 * width, 2 * width, 3, padding=1), nn.BatchNorm2d(2 * width), nn.LeakyReLU(0.2),
            nn.Upsample(scale_factor=2),
            nn.Conv2d(2 * width, width, 3, padding=1), nn.BatchNorm2d(width), nn.LeakyReLU(0.2),
            nn.Conv2d(width, channels, 3, padding=1), nn.Sigmoid(),
        )  # fmt: skip

    def forward(self, code: Tensor) -> Tensor:
        """(N, 64) standard normal numbers to images."""
        out = self.body(self.begin(code).view(len(code), 2 * self.width, self.side, self.side))
        return out[..., : self.size, : self.size]


def adversarial(
    teacher: Student, data: Dataset, rounds: int, seed: int, tell: Callable[[float], None], batch: int = 64
) -> tuple[nn.Module, Tensor]:
    """A student of the duel, in evaluation mode, and the generator's last images (uint8).

    A round: the generator takes one step towards disagreement (mean absolute difference of logits), the student five
    towards agreement on new images, each judged also one step ahead on images of earlier rounds.
    """
    with seeded(seed):
        maker = Generator(data.channels, data.size)
        student = make_network("convnet", data.channels, data.size, len(data.classes), 32, seed=seed)
    making = torch.optim.Adam(maker.parameters(), lr=1e-3)
    weights = {name: p.detach().clone().requires_grad_() for name, p in student.named_parameters()}
    learning = torch.optim.SGD(list(weights.values()), lr=0.03, momentum=0.9, weight_decay=5e-4)
    teacher.module.requires_grad_(False)
    code = torch.Generator().manual_seed(seed)
    memory: list[Tensor] = []

    def disagreement(parameters: dict[str, Tensor], pixels: Tensor, goal: Tensor) -> Tensor:
        ready = teacher.prepare(pixels)
        return (functional_call(student, parameters, (ready,)) - goal).abs().mean()

    for number in range(rounds):
        making.zero_grad()
        pixels = maker(torch.randn(batch, CODE, generator=code))
        goal = teacher.module(teacher.prepare(pixels))
        (-disagreement({k: w.detach() for k, w in weights.items()}, pixels, goal)).backward()
        making.step()
        for _ in range(5):
            with torch.no_grad():
                pixels = maker(torch.randn(batch, CODE, generator=code))
                goal = teacher.module(teacher.prepare(pixels))
            learning.zero_grad()
            loss = disagreement(weights, pixels, goal)
            if memory:
                loss = loss + _retained(disagreement, weights, pixels, goal, memory, teacher, code)
            loss.backward()
            learning.step()
        if number % 5 == 0:
            memory = [*memory[-199:], pixels]
        tell((number + 1) / rounds)
    student.load_state_dict({**student.state_dict(), **{k: w.detach() for k, w in weights.items()}})
    with torch.no_grad():
        last = maker(torch.randn(80, CODE, generator=code))
    return student.eval(), (last * 255).round().byte()


def _retained(
    disagreement: Callable[..., Tensor], weights: dict[str, Tensor], pixels: Tensor, goal: Tensor,
    memory: list[Tensor], teacher: Student, code: torch.Generator,
) -> Tensor:  # fmt: skip
    """The disagreement on remembered images of a student that has taken a step on the new ones."""
    old = memory[int(torch.randint(len(memory), (1,), generator=code))]
    with torch.no_grad():
        wanted = teacher.module(teacher.prepare(old))
    pull = grad(disagreement)(weights, pixels, goal)
    ahead = {name: weight - AHEAD * pull[name] for name, weight in weights.items()}
    return disagreement(ahead, old, wanted)
