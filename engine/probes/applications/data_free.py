"""Probe ``data-free``: students of a trained network whose training images are not there.

Every way makes images without any data and lets a student learn what the teacher says about them, at a temperature
(Hinton, Vinyals & Dean 2015):

- *impressions*: images on which the teacher says what it might say about data. Targets for class k are drawn from a
  Dirichlet distribution whose concentration is the similarity of its last layer's weights to those of the other
  classes; each image is found from noise by gradient descent (Nayak et al. 2019, "Zero-shot knowledge distillation in
  deep networks").
- *noise*, *other images*: arbitrary transfer sets, uniform noise or another dataset, as many for each class that the
  teacher sees in them as there are (Nayak et al. 2021, "Effectiveness of arbitrary transfer sets for data-free
  knowledge distillation").
- *generator*: a small network makes images on which student and teacher disagree, the student learns to agree (Fang et
  al. 2019, "Data-free adversarial distillation"); what it had learned before is retained by a memory of earlier images
  on which it is judged one gradient step ahead (Patel, Mopuri & Qiu 2023, "Learning to retain while acquiring").

Beside them, no longer data-free: as many random real images that the teacher labels, and the set that is named, if any.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call, grad

from engine.accel import seeded
from engine.baselines import make_baseline
from engine.data import load
from engine.data.base import Dataset
from engine.errors import Refused
from engine.networks import make_network
from engine.probes.answerer import Work
from engine.probes.applications.common import Row, accuracy, asked_set, contrast, finish, percent, summarise
from engine.probes.applications.specs import DataFreeSpec
from engine.probes.desk import Answer
from engine.probes.robustness.common import adapt, same_dataset, shape, sheet
from engine.runs.evaluating import check_fit
from engine.students.fit import train_one
from engine.students.kept import Student
from engine.students.train import make_plan

WAYS = {
    "impressions": "Data impressions",
    "noise": "Noise",
    "other": "Another dataset",
    "generator": "Generator",
    "real": "Random real, the teacher's labels",
    "set": "The set named",
}
KINDS = {
    "impressions": "summarised", "noise": "known", "other": "stylised", "generator": "adversarial", "real": "random",
    "set": "distilled",
}  # fmt: skip
CODE = 64  # numbers from which the generator makes an image
AHEAD = 0.05  # step by which the student looks ahead at what it would forget
BATCH, RATE, WIDTH = 64, 1e-3, 32  # of the students
POOL = 8  # times as many arbitrary images as are needed are looked at
SHOWN = 5


def answer(spec: DataFreeSpec, work: Work) -> Answer:
    """See ``DataFreeSpec``. Table ``rows``: the test accuracy of each student; ``summary`` with 95 % intervals."""
    (teacher, *others), data = same_dataset(spec.teacher, work)
    if others:
        raise Refused("Name one teacher.")
    named = asked_set(spec.source, work) if spec.source.strip() else None
    if named is not None:
        check_fit(named, data)
    if spec.other == data.name:
        raise Refused("The other dataset is the teacher's own; choose one that it does not know.")
    last_layer(teacher)  # refuses what has none before anything is computed
    teacher.module.requires_grad_(False)
    rows: list[Row] = []
    images: dict[str, str] = {}
    ways = [way for way in WAYS if way != "set" or named is not None]
    prepare: Callable[[Tensor], Tensor]
    for number, way in enumerate(ways):
        for student in range(spec.students):

            def tell(fraction: float, number: int = number, student: int = student, way: str = way) -> None:
                done = number + (student + fraction) / spec.students
                work.tell(done / len(ways), f"{WAYS[way]}, student {student + 1} of {spec.students}.")

            seed = 1000 * spec.seed + student
            if way == "set":
                assert named is not None
                plan = make_plan(named, data, "quick", "convnet", work.accel)
                module, shown = finish(train_one(plan, seed), tell), named.decoded().to_display()
                prepare = named.prepare
            else:
                module, shown = _taught(way, teacher, data, spec, seed, tell)
                prepare = teacher.prepare
            right = accuracy(module, prepare, data.test_images, data.test_labels)
            rows.append({"repeat": student, "way": way, "accuracy": right, "images": len(shown)})
            if student == 0:
                images[way] = work.picture(way, _sheet(shown, len(data.classes)), 2)
    summary = summarise(rows, ("accuracy",))
    facts = {
        "ways": {way: WAYS[way] for way in ways},
        "kinds": KINDS,
        "shown": list(data.classes),
        "teacher": teacher.name,
        "teacher_accuracy": teacher.facts.get("accuracy"),
        "chance": 1 / len(data.classes),
        "headline": _headline(summary),
    }
    budget = spec.images * len(data.classes)
    notes = [
        f"Every way has {budget} images, but for the generator, which makes new ones all the time: the last of them "
        "are shown. Labels are the teacher's, but for the set named, which has its own."
    ]
    contrasts = [contrast(rows, "accuracy", way, "real") for way in ways if way != "real"]
    return Answer({"summary": summary, "contrasts": contrasts, "rows": rows}, facts, images, tuple(notes))


def _headline(summary: list[Row]) -> str:
    free = [row for row in summary if row["way"] not in ("real", "set")]
    best = max(free, key=lambda row: row["mean"])
    told = [f"Without any data, {WAYS[best['way']].lower()} does best: {percent(best)}"]
    told += [f"{WAYS[row['way']].lower()} {percent(row)}" for row in summary if row["way"] in ("real", "set")]
    return "; ".join(told) + "."


def _sheet(shown: Tensor, classes: int) -> Tensor:
    """Some images of each class, a column each."""
    per = max(1, len(shown) // classes)
    columns = [shown[c * per : c * per + min(per, SHOWN)] for c in range(classes)]
    return sheet([[column[r] for column in columns] for r in range(min(per, SHOWN))])


def _taught(
    way: str, teacher: Student, data: Dataset, spec: DataFreeSpec, seed: int, tell: Callable[[float], None]
) -> tuple[nn.Module, Tensor]:
    """A student that learns from the teacher alone, and the images by which it does."""
    if way == "generator":
        return adversarial(teacher, data, spec.rounds, seed, tell)
    shown = _images(way, teacher, data, spec, seed, lambda f: tell(0.5 * f))
    return listened(teacher, data, shown, spec, seed, lambda f: tell(0.5 + 0.5 * f)), shown


# ---- learning from a teacher ----------------------------------------------------------------------------------------


def listened(
    teacher: Student, data: Dataset, images: Tensor, spec: DataFreeSpec, seed: int, tell: Callable[[float], None]
) -> nn.Module:
    """A student of what the teacher says about uint8 images, in evaluation mode."""
    logits = teacher.logits(images)
    network = make_network("convnet", data.channels, data.size, len(data.classes), WIDTH, seed=seed)
    network = network.to(next(teacher.module.parameters()).device)
    optimiser = torch.optim.Adam(network.parameters(), lr=RATE)
    generator = torch.Generator().manual_seed(seed)
    for step in range(spec.learning):
        chosen = torch.randint(len(images), (BATCH,), generator=generator)
        loss = softened(network(teacher.prepare(images[chosen])), logits[chosen], spec.temperature)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        tell((step + 1) / spec.learning)
    return network.eval()


def softened(logits: Tensor, goal: Tensor, temperature: float) -> Tensor:
    """Cross-entropy of student and teacher at a temperature, times its square, so that gradients keep their size
    (Hinton, Vinyals & Dean 2015, section 2)."""
    return F.cross_entropy(logits / temperature, (goal.to(logits) / temperature).softmax(1)) * temperature**2


# ---- transfer sets --------------------------------------------------------------------------------------------------


def _images(
    way: str, teacher: Student, data: Dataset, spec: DataFreeSpec, seed: int, tell: Callable[[float], None]
) -> Tensor:
    """uint8 images (N, C, H, W) of a transfer set, class after class where there are classes."""
    generator = torch.Generator().manual_seed(seed)
    count, classes = spec.images * len(data.classes), len(data.classes)
    if way == "impressions":
        targets = torch.cat(
            [dirichlet(concentration(teacher, c), spec.images, seed + 7919 * c) for c in range(classes)]
        )
        return impressions(teacher, targets, spec.steps, spec.temperature, seed, tell)
    if way == "real":
        least = min(len(members) for members in data.by_class)
        made = make_baseline("random", data, min(spec.images, least), seed=seed)
        return data.train_images[torch.tensor(made.provenance["indices"])]
    if way == "noise":
        shape_of_all = (POOL * count, data.channels, data.size, data.size)
        pool = torch.randint(0, 256, shape_of_all, generator=generator, dtype=torch.uint8)
    else:
        other = load(spec.other)
        at = torch.randperm(len(other.train_images), generator=generator)[: POOL * count]
        pool = adapt(other.train_images[at], *shape(teacher))
    return pool[balanced(teacher.logits(pool).argmax(1), classes, spec.images, generator)]


def balanced(said: Tensor, classes: int, each: int, generator: torch.Generator) -> Tensor:
    """Indices of ``each`` images for every class that the teacher sees in a pool; classes it sees too rarely are filled
    up from the others at random."""
    order = torch.randperm(len(said), generator=generator)
    chosen = [order[said[order] == c][:each] for c in range(classes)]
    missing = classes * each - sum(len(part) for part in chosen)
    rest = order[~torch.isin(order, torch.cat(chosen))][:missing]
    return torch.cat([*chosen, rest])


# ---- impressions ----------------------------------------------------------------------------------------------------


def last_layer(teacher: Student) -> Tensor:
    """The weights (K, D) of the layer that tells the classes. Raises ``Refused`` where there is none."""
    layers = [m for m in teacher.module.modules() if isinstance(m, nn.Linear)]
    if not layers or len(layers[-1].weight) != len(teacher.classes):
        raise Refused(f"{teacher.name} does not end in a linear layer; choose another teacher.")
    return layers[-1].weight.detach().float().cpu()


def concentration(teacher: Student, c: int) -> Tensor:
    """The Dirichlet concentration (K,) of class ``c``: cosine similarities of the last layer's weights, brought into
    (0, 1]."""
    unit = F.normalize(last_layer(teacher), dim=1)
    similar = unit @ unit[c]
    return ((similar - similar.min()) / (similar.max() - similar.min())).clamp_min(1e-2)


def dirichlet(alpha: Tensor, count: int, seed: int) -> Tensor:
    """``count`` softmax vectors (N, K), half of them with the concentration as it is, half with a tenth of it."""
    with seeded(seed):
        parts = [torch.distributions.Dirichlet(scale * alpha).sample((n,)) for scale, n in
                 ((1.0, count - count // 2), (0.1, count // 2)) if n]  # fmt: skip
    return torch.cat(parts)


def impressions(
    teacher: Student, targets: Tensor, steps: int, temperature: float, seed: int, tell: Callable[[float], None]
) -> Tensor:
    """uint8 images on which the teacher's softmax at the temperature is ``targets`` (N, K), found from noise."""
    channels, size = shape(teacher)
    with seeded(seed):
        x = torch.rand(len(targets), channels, size, size)
    x.requires_grad_()
    optimiser = torch.optim.Adam([x], lr=0.05)
    for step in range(steps):
        optimiser.zero_grad()
        for part in torch.arange(len(targets)).split(250):
            logits = teacher.module(teacher.prepare(x[part])).float()
            F.cross_entropy(logits / temperature, targets[part].to(logits), reduction="sum").backward()
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
    teacher: Student, data: Dataset, rounds: int, seed: int, tell: Callable[[float], None]
) -> tuple[nn.Module, Tensor]:
    """A student of the duel, in evaluation mode, and the generator's last images (uint8).

    A round: the generator takes one step towards disagreement (mean absolute difference of logits), the student five
    towards agreement on new images, each judged also one step ahead on images of earlier rounds.
    """
    device = next(teacher.module.parameters()).device
    with seeded(seed):
        maker = Generator(data.channels, data.size).to(device)
    student = make_network("convnet", data.channels, data.size, len(data.classes), WIDTH, seed=seed).to(device)
    making = torch.optim.Adam(maker.parameters(), lr=1e-3)
    weights = {name: p.detach().clone().requires_grad_() for name, p in student.named_parameters()}
    learning = torch.optim.Adam(list(weights.values()), lr=RATE)
    code = torch.Generator().manual_seed(seed)
    memory: list[Tensor] = []

    def codes(count: int) -> Tensor:
        return torch.randn(count, CODE, generator=code).to(device)

    def disagreement(parameters: dict[str, Tensor], pixels: Tensor, goal: Tensor) -> Tensor:
        return (functional_call(student, parameters, (teacher.prepare(pixels),)) - goal).abs().mean()

    for number in range(rounds):
        making.zero_grad()
        pixels = maker(codes(BATCH))
        goal = teacher.module(teacher.prepare(pixels))
        (-disagreement({k: w.detach() for k, w in weights.items()}, pixels, goal)).backward()
        making.step()
        for _ in range(5):
            with torch.no_grad():
                pixels = maker(codes(BATCH))
                goal = teacher.module(teacher.prepare(pixels))
            learning.zero_grad()
            loss = disagreement(weights, pixels, goal)
            if memory:
                old = memory[int(torch.randint(len(memory), (1,), generator=code))]
                loss = loss + retained(disagreement, weights, (pixels, goal), (old, _said(teacher, old)))
            loss.backward()
            learning.step()
        if number % 5 == 0:
            memory = [*memory[-199:], pixels]
        tell((number + 1) / rounds)
    student.load_state_dict({**student.state_dict(), **{k: w.detach() for k, w in weights.items()}})
    with torch.no_grad():
        last = maker(codes(SHOWN * len(data.classes))).cpu()
    return student.eval(), (last * 255).round().byte()


def _said(teacher: Student, pixels: Tensor) -> Tensor:
    with torch.no_grad():
        return teacher.module(teacher.prepare(pixels))


def retained(
    disagreement: Callable[..., Tensor], weights: dict[str, Tensor], new: Any, old: Any, ahead: float = AHEAD
) -> Tensor:
    """The disagreement on remembered images of a student that has taken a step on the new ones, differentiable by the
    weights before it. ``new`` and ``old``: images and what the teacher says about them."""
    pull = grad(disagreement)(weights, *new)
    return disagreement({name: weight - ahead * pull[name] for name, weight in weights.items()}, *old)
