"""A few lines of plain PyTorch that train a student on an exported set, as the protocol says (torch-free).

They need neither Limbeck nor anything of it, unless the test images are Limbeck's own. What they print is the accuracy
that Limbeck measured, up to the spread over seeds.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open

from engine import words
from engine.data.catalogue import DATASETS
from engine.errors import Refused
from engine.strategies import STRATEGIES, flips, named
from engine.students.protocols import Protocol, protocol_for

SOURCES = {"mnist": "MNIST", "fashion-mnist": "FashionMNIST", "kmnist": "KMNIST", "usps": "USPS", "svhn": "SVHN",
           "cifar10": "CIFAR10", "cifar100": "CIFAR100"}  # torchvision's names  # fmt: skip


@dataclass(frozen=True)
class About:
    """What the lines depend on: the set's JSON, the shape of its images as they are trained on (decoded), what its
    labels are, its learned step sizes, and the name of the file, by whose ending it is read."""

    meta: dict[str, Any]
    shape: tuple[int, int, int, int]
    labels: str  # hard, soft (probabilities) or learned (neither)
    step_sizes: tuple[float, ...]
    file: str

    @property
    def protocol(self) -> Protocol:
        """The protocol that the set was made for."""
        return self.under(self.meta["protocol"])

    def under(self, name: str) -> Protocol:
        """A protocol as it runs on this set."""
        rate = sum(self.step_sizes) / len(self.step_sizes) if self.step_sizes else None
        return protocol_for(name, self.meta["dataset"], learned=self.labels == "learned", rate=rate)


def about(folder: Path, file: str) -> About:
    """What the lines for the set saved in ``folder`` depend on. Raises ``Refused`` where there is none."""
    try:
        meta = json.loads((folder / "synthetic.json").read_text())
        meta = {**meta, **{name: meta[name] for name in ("dataset", "classes", "protocol", "mean", "std")}}
        with safe_open(folder / "synthetic.safetensors", "numpy") as tensors:
            count, *rest = tensors.get_slice("images").get_shape()
            labels = tensors.get_tensor("labels")
            sizes = tensors.get_tensor("step_sizes").tolist() if "step_sizes" in tensors.keys() else []
    except FileNotFoundError:
        raise Refused("There is no synthetic set to train on yet; wait for the run to finish.") from None
    except (OSError, ValueError, LookupError, TypeError, SafetensorError):
        raise Refused("The synthetic set cannot be read, so there are no lines that train on it.") from None
    kind = "hard"
    if labels.ndim == 2:
        whole = bool((labels >= 0).all()) and bool((np.abs(labels.sum(1) - 1) < 1e-3).all())
        kind = "soft" if whole else "learned"
    return About(meta, (count * meta.get("factor", 1) ** 2, *rest), kind, tuple(sizes), file)


def snippet(set: About, evaluation: dict[str, Any] | None = None) -> str:
    """The lines, for the protocol of ``evaluation`` and with its number as a comment, or else for the set's own.

    Raises ``Refused`` where a few lines will not do: initial networks that have learned something first, and ``.pt``
    files of sets that were distilled in whitened space, which that format cannot say.
    """
    protocol = set.under(evaluation["protocol"] if evaluation else set.meta["protocol"])
    papers = set.file.endswith(".pt")
    start = set.meta.get("start") if protocol.own_steps else None
    if papers and ("zca_base" in set.meta or protocol.own_steps):
        raise Refused("A .pt cannot hold all that training on this set takes; export it as .npz or .safetensors.")
    if protocol.own_steps and (start is None or start["initial"] == "random-pretrained"):
        raise Refused(
            "This set's steps begin at networks that have learned something first, which a few lines cannot make; "
            "“python -m engine evaluate” can."
        )
    code = [
        *_reading(set),
        *_decoding(set),
        *_testing(set),
        *_network(set, protocol, start),
        *_augmenting(set, protocol),
        *(_following(set) if protocol.own_steps else _training(set, protocol)),
        "with torch.no_grad():",
        "    said = torch.cat([net(part).argmax(1) for part in x.split(500)])",
        'print(f"{(said == y).float().mean():.1%} of the test images right")'
        + (f"  # Limbeck: {words.measured(evaluation)}" if evaluation else ""),
    ]
    about = f"# A student of {words.dataset_title(set.meta['dataset'])} under the {protocol.title} protocol"
    text = "\n".join([about, *_imports(code), *code]) + "\n"
    return re.sub(r"\n{4,}", "\n\n\n", text)  # two empty lines around a function, whatever stands beside it


def example() -> str:
    """The lines for a common case: CIFAR-10, ten images each, by distribution matching, under DC's protocol."""
    info = DATASETS["cifar10"]
    meta = {
        "dataset": info.id, "classes": list(info.classes), "protocol": "dc", "mean": [0.4914, 0.4822, 0.4465],
        "std": [0.2023, 0.1994, 0.201],
    }  # fmt: skip
    return snippet(About(meta, (100, 3, 32, 32), "hard", (), "set.safetensors"))


# ---- the parts ------------------------------------------------------------------------------------------------------


def _imports(code: list[str]) -> list[str]:
    """What the lines use, and nothing else."""
    text = "\n".join(code)
    found = ["import math"] if "math." in text else []
    found += ["import numpy as np"] if "np." in text else []
    found += ["import torch"] + (["import torch.nn.functional as F"] if "F." in text else [])
    found += ["import torchvision"] if "torchvision." in text else []
    found += ["from safetensors.torch import load_file"] if "load_file(" in text else []
    if "load_digits(" in text:
        found += ["from sklearn.datasets import load_digits", "from sklearn.model_selection import train_test_split"]
    return [*found, "from torch import nn", "", "torch.manual_seed(0)"]


def _reading(set: About) -> list[str]:
    name = json.dumps(set.file, ensure_ascii=False)
    if set.file.endswith(".pt"):
        return [f"images, labels = torch.load({name})"]
    read = f"load_file({name})"
    if set.file.endswith(".npz"):
        read = f'{{k: torch.from_numpy(v) for k, v in np.load({name}).items() if k != "about"}}'
    return [f"data = {read}", 'images, labels = data["images"], data["labels"]']


def _decoding(set: About) -> list[str]:
    """Several pictures in one: each is cut out and enlarged; those of a ``.pt`` have been."""
    factor, side = set.meta.get("factor", 1), set.shape[-1]
    if factor == 1 or set.file.endswith(".pt"):
        return []
    edges = [round(i * side / factor) for i in range(factor + 1)]
    return [
        f"edges = {edges}  # each image is a grid of {factor} × {factor} smaller ones, which are cut out and enlarged",
        "cuts = [slice(*ends) for ends in zip(edges, edges[1:])]",
        "parts = [images[:, :, rows, columns] for rows in cuts for columns in cuts]",
        f'parts = [F.interpolate(part, ({side}, {side}), mode="bilinear") for part in parts]',
        f"images, labels = torch.stack(parts, 1).flatten(0, 1), labels.repeat_interleave({factor**2}, 0)",
    ]


def _testing(set: About) -> list[str]:
    """The test images in the space of the set's."""
    name, mean, std = set.meta["dataset"], *([float(f"{v:.9g}") for v in set.meta[k]] for k in ("mean", "std"))
    if name == "digits":
        lines = [
            "raw = load_digits()",
            "x = torch.from_numpy(raw.images).float()[:, None] * 255 / 16",
            'x, y = F.interpolate(x, size=16, mode="bilinear").round(), torch.from_numpy(raw.target)',
            "kept = sorted(train_test_split(range(1797), test_size=360, stratify=raw.target, random_state=0)[1])",
            "x, y = x[kept], y[kept]",
        ]
    elif name in SOURCES:
        which = 'split="test"' if name == "svhn" else "train=False"
        place = {"cifar10": ".permute(0, 3, 1, 2)", "cifar100": ".permute(0, 3, 1, 2)", "svhn": ""}.get(
            name, "[:, None]"
        )
        lines = [
            f'test = torchvision.datasets.{SOURCES[name]}("data", {which}, download=True)',
            f"x, y = torch.as_tensor(test.data){place}, "
            f"torch.as_tensor(test.{'labels' if name == 'svhn' else 'targets'})",
        ]
    else:
        lines = [
            "from engine.data import load  # images of your own or Limbeck's: run this in its folder",
            f"test = load({json.dumps(name, ensure_ascii=False)}, {set.shape[-1]})",
            "x, y = test.test_images, test.test_labels",
        ]
    if len(mean) == 1:
        lines.append(f"x = (x / 255 - {mean[0]}) / {std[0]}")
    else:
        lines.append(f"mean, std = torch.tensor([{mean}, {std}]).view(2, -1, 1, 1)")
        lines.append("x = (x / 255 - mean) / std")
    if "zca_base" in set.meta:
        lines += [
            'flat, U = x.flatten(1) - data["zca.centre"], data["zca.components"]  # ZCA whitening, as of the images',
            f'x = ({set.meta["zca_base"]!r} * flat + (flat @ U * data["zca.gains"]) @ U.T).view_as(x)',
        ]
    return [*lines, ""]


def _network(set: About, protocol: Protocol, start: dict[str, Any] | None) -> list[str]:
    """The student: the protocol's own network, or the one that the set's steps begin at."""
    name = start["network"] if start else protocol.network
    width, depth = (start["width"], start["depth"]) if start else (protocol.width, 3)
    _, channels, side, _ = set.shape
    before: list[str] = []
    if name in ("convnet", "convnet-wide"):
        norm = "nn.GroupNorm(o, o), " if name == "convnet" else ""
        widths = [width] * depth if name == "convnet" else [width, 2 * width, 4 * width]
        full = 32 if channels == 1 and side == 28 else side
        ends = list(zip([channels, *widths], widths, strict=False))
        wider = full != side  # 28 pixels become 32
        blocks = [f"*block({i}, {o}{', 3' if wider and n == 0 else ''})" for n, (i, o) in enumerate(ends)]
        inside, out = f"{', '.join(blocks)}, nn.Flatten()", widths[-1] * (full // 2 ** len(widths)) ** 2
        before = [
            "",
            f"def block(i, o{', padding=1' if wider else ''}):",
            f"    return nn.Conv2d(i, o, 3, padding={'padding' if wider else 1}), {norm}nn.ReLU(), nn.AvgPool2d(2)",
            "",
            "",
        ]
    elif name == "lenet":
        padding, out = 2 if side == 28 else 0, 84
        left = ((side + 2 * padding - 4) // 2 - 4) // 2
        inside = (
            f"\n    nn.Conv2d({channels}, 6, 5, padding={padding}), nn.ReLU(), nn.MaxPool2d(2),"
            "\n    nn.Conv2d(6, 16, 5), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(),"
            f"\n    nn.Linear({16 * left * left}, 120), nn.ReLU(), nn.Linear(120, 84), nn.ReLU()"
        )
    else:
        out = 128
        inside = f"nn.Flatten(), nn.Linear({channels * side * side}, 128), nn.ReLU(), nn.Linear(128, 128), nn.ReLU()"
    head = f"nn.Linear({out}, {len(set.meta['classes'])})"
    if start and start["initial"].startswith("fixed"):
        return [
            *before,
            "net = nn.Sequential()",
            f"net.body, net.head = nn.Sequential({inside}), {head}",
            'net.load_state_dict({k[6:]: v for k, v in data.items() if k.startswith("start.")})',
            "",
        ]
    lines = [*before, f"net = nn.Sequential({inside}, {head})"]
    if start or name == "convnet-wide":
        normal = "xavier_normal_(m.weight)" if start else "normal_(m.weight, std=m.weight[0].numel() ** -0.5)"
        lines += [
            "for m in net:",
            "    if isinstance(m, nn.Conv2d | nn.Linear):",
            f"        nn.init.{normal}",
            "        nn.init.zeros_(m.bias)",
        ]
    return [*lines, ""]


def _augmenting(set: About, protocol: Protocol) -> list[str]:
    """The protocol's augmentation as a function; nothing where it has none."""
    if protocol.augment not in ("dsa", "frepo", "dc"):
        return []
    side = set.shape[-1]
    plan = STRATEGIES[named(protocol.augment, flips(set.meta["dataset"], set.shape[1]))]
    kinds = plan.operations

    def pair(values: tuple[float, float]) -> str:
        return ", ".join(f"{v:.9g}" for v in values)

    lines = [
        "",
        "def augment(x):  # one of these for each batch, with parameters of each image's own",
        f"    n, kind = len(x), {json.dumps(list(kinds))}[torch.randint({len(kinds)}, ())]",
        "    u = lambda low, high: torch.empty(n, 1, 1, 1).uniform_(low, high)",
    ]
    if "flip" in kinds:
        lines += ['    if kind == "flip":', "        return torch.where(u(0, 1) < 0.5, x.flip(3), x)"]
    if "color" in kinds:
        lines += [
            '    if kind == "color":',
            f"        x = x + u(-{plan.brightness:g}, {plan.brightness:g})",
            "        grey = x.mean(1, keepdim=True)",
            f"        x = (x - grey) * u({pair(plan.saturation)}) + grey",
            "        middle = x.mean((1, 2, 3), keepdim=True)",
            f"        return (x - middle) * u({pair(plan.contrast)}) + middle",
        ]
    if "cutout" in kinds:
        cut = int(side * plan.cutout + 0.5)
        lines += [
            '    if kind == "cutout":',
            f"        left, top = torch.randint({side - cut % 2 + 1}, (2, n, 1, 1)) - {cut // 2}",
            f"        i, j = torch.arange({side}), torch.arange({side})[:, None]",
            f"        hole = (i >= left) & (i < left + {cut}) & (j >= top) & (j < top + {cut})",
            "        return x.masked_fill(hole[:, None], 0)",
        ]
    reach = int(side * plan.shift + 0.5)
    rows = {
        "crop": f"[one, no, w(), no, one, w()]  # by whole pixels, at most {reach}",
        "scale": f"[u({pair(plan.scale)}), no, no, no, u({pair(plan.scale)}), no]",
        "rotate": "[a.cos(), -a.sin(), no, a.sin(), a.cos(), no]",
        "translate": f"[one, no, u(-{2 * plan.shift:g}, {2 * plan.shift:g}), no, one, "
        f"u(-{2 * plan.shift:g}, {2 * plan.shift:g})]",
        "zoom": "[f, no, u(-1, 1) * (1 - f), no, f, u(-1, 1) * (1 - f)]",
    }
    lines.append("    one, no = torch.ones(n, 1, 1, 1), torch.zeros(n, 1, 1, 1)")
    if "crop" in kinds:
        lines.append(f"    w = lambda: torch.randint(-{reach}, {reach + 1}, (n, 1, 1, 1)) * {2 / side:.9g}")
    if "rotate" in kinds:
        lines.append(f"    a = u(-{plan.rotate:g}, {plan.rotate:g}) * math.pi / 180")
    if "zoom" in kinds:
        lines.append(f"    f = u({pair(plan.scale)})")
    outside = 'padding_mode="border", ' if plan.edges else ""
    for kind in (k for k in rows if k in kinds):
        lines += [f'    if kind == "{kind}":', f"        rows = {rows[kind]}"]
    lines += [
        "    grid = F.affine_grid(torch.cat(rows, 1).view(n, 2, 3), x.shape, align_corners=False)",
        f"    return F.grid_sample(x, grid, {outside}align_corners=False)",
        "",
        "",
    ]
    return lines


def _training(set: About, protocol: Protocol) -> list[str]:
    """The optimiser, its schedule and the loop."""
    count, classes = set.shape[0], len(set.meta["classes"])
    total, restart = protocol.step_count(count), protocol.restart(count)
    lines: list[str] = []
    labels, squared = "labels", protocol.loss == "squared" or set.labels == "learned"
    loss = "F.mse_loss({}, {}) / 2" if squared else "F.cross_entropy({}, {})"
    if squared and set.labels == "hard":
        lines.append(f"labels = (F.one_hot(labels, {classes}) - {1 / classes:.9g}) / {(classes / 10) ** 0.5:.9g}")
    images = "images"
    if count > protocol.batch:
        lines += [
            "",
            "def batches():",
            "    while True:",
            f"        yield from torch.randperm({count}).split({protocol.batch})",
            "",
            "",
            "batch = batches()",
        ]
        images, labels = "images[now]", "labels[now]"
    if protocol.augment:
        images = f"augment({images})"
    if protocol.optimiser == "adam":
        decay = f", weight_decay={protocol.weight_decay:g}" if protocol.weight_decay else ""
        optimiser = f"torch.optim.Adam(net.parameters(), {{}}{decay})"
    else:
        optimiser = (
            f"torch.optim.SGD(net.parameters(), {{}}, momentum={protocol.momentum:g}, "
            f"weight_decay={protocol.weight_decay:g})"
        )
    step = [f"loss = {loss.format(f'net({images})', labels)}", "opt.zero_grad()", "loss.backward()", "opt.step()"]
    step = (["now = next(batch)"] if count > protocol.batch else []) + step
    if restart is not None:
        lines += [
            f"for rate, steps in (({protocol.rate:g}, {restart}), ({protocol.rate / 10:g}, {total - restart})):",
            f"    opt = {optimiser.format('rate')}",
            "    for _ in range(steps):",
            *(f"        {line}" for line in step),
        ]
        return lines
    lines.append(f"opt = {optimiser.format(f'{protocol.rate:g}')}")
    lines.append(f"for t in range({total}):")
    if protocol.schedule == "cosine":
        warm = min(protocol.warmup, total // 2)
        falling = f"(1 + math.cos(math.pi * (t - {warm}) / {total - warm})) / 2"
        rising = f"(t + 1) / {warm} if t < {warm} else {falling}" if warm else falling
        step.insert(0, f'opt.param_groups[0]["lr"] = {protocol.rate:g} * ({rising})')
    return [*lines, *(f"    {line}" for line in step)]


def _following(set: About) -> list[str]:
    """The very steps that the set was made for."""
    loss = "F.mse_loss({}) / 2" if set.labels == "learned" else "F.cross_entropy({})"
    turns = set.meta.get("turns", 1)
    return [
        'for t, size in enumerate(data["step_sizes"]):',
        f"    now = slice(t % {turns}, None, {turns})",
        f"    loss = {loss.format('net(images[now]), labels[now]')}",
        "    slopes = torch.autograd.grad(loss, list(net.parameters()))",
        "    with torch.no_grad():",
        "        for weight, slope in zip(net.parameters(), slopes):",
        "            weight -= size * slope",
    ]
