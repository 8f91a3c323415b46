"""Images in the style of others: phase and amplitude exchanged, or the statistics of a teacher's features carried over.

Used to make cue-conflict stimuli (the shape of one class, the texture of another) and to stylise a training set, so
that texture no longer tells the class (Geirhos et al. 2019).
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Literal, Protocol

import torch
import torch.nn as nn
import torch.nn.functional as F
from torch import Tensor

from engine.accel import Accel
from engine.data.base import Dataset
from engine.errors import Refused

Style = Literal["fourier", "adain", "gram"]
Tell = Callable[[float], None]
LAYERS = 3  # convolutions of the teacher that are looked at
BATCH = 100
STEPS = 12  # on each image of a training set, of which there are thousands


class Teacher(Protocol):
    """What lends its features: a trained student, or anything alike."""

    @property
    def module(self) -> nn.Module:
        """The network."""
        ...

    def prepare(self, pixels: Tensor) -> Tensor:
        """Images in [0, 1] into the space of the network, differentiably."""
        ...


def partners(labels: Tensor, seed: int) -> Tensor:
    """For each image the index of one of another class: every other class is as likely, and every image in it."""
    generator = torch.Generator().manual_seed(seed)
    classes = labels.unique()
    if len(classes) < 2:
        raise Refused("Styles of another class need images of at least two classes.")
    own = torch.searchsorted(classes, labels)
    other = (own + torch.randint(1, len(classes), labels.shape, generator=generator)) % len(classes)
    within = torch.rand(labels.shape, generator=generator)
    out = torch.empty_like(labels)
    for position, c in enumerate(classes):
        members = torch.nonzero(labels == c).flatten()
        mine = other == position
        out[mine] = members[(within[mine] * len(members)).long()]
    return out


def fourier(images: Tensor, others: Tensor) -> Tensor:
    """The phase spectra of ``images`` with the amplitude spectra of ``others``, channel by channel.

    Both (N, C, H, W), uint8 or floating; the result is float32 on their scale and may leave it. Where things are in an
    image lies mostly in the phase, how strong each spatial frequency is in the amplitude (Oppenheim & Lim 1981).
    """
    phase = torch.fft.rfft2(images.float()).angle()
    amplitude = torch.fft.rfft2(others.float()).abs()
    return torch.fft.irfft2(torch.polar(amplitude, phase), s=images.shape[-2:])


def to_bytes(images: Tensor) -> Tensor:
    """Floating images in 0..255 as uint8; what lies outside is cut."""
    return images.round().clamp(0, 255).byte()


def adain(content: Tensor, style: Tensor) -> Tensor:
    """Features (N, C, H, W) of the content with the channels' means and deviations of the style (Huang & Belongie 2017,
    equation 8)."""
    (mean, std), (style_mean, style_std) = _moments(content), _moments(style)
    return style_std * (content - mean) / std + style_mean


def gram(features: Tensor) -> Tensor:
    """(N, C, H, W) features to (N, C, C) products of channels, averaged over places (Gatys et al. 2016)."""
    flat = features.flatten(2)
    return flat @ flat.transpose(1, 2) / flat.shape[-1]


def transfer(
    images: Tensor,
    styles: Tensor,
    teacher: Teacher,
    technique: Literal["gram", "adain"] = "gram",
    steps: int = 40,
    accel: Accel | None = None,
    tell: Tell | None = None,
) -> Tensor:
    """``images`` in the style of ``styles``, both (N, C, H, W) uint8: pixels moved by Adam until the features fit.

    The features are those of the teacher's first convolutions before normalisation (a normalised one has lost the
    statistics that make a style) and the pixels themselves. ``gram``: the content's features of the second convolution
    and the style's Gram matrices (Gatys et al. 2016, equation 7). ``adain``: content features that carry the style's
    statistics, and the style's means and deviations in every layer (Huang & Belongie 2017, equations 8 and 11 to 13,
    with pixels that are moved in the place of a decoder). ``tell`` hears the fraction done and may raise to stop.
    Deterministic. Raises ``Refused`` where the teacher has no convolutions.
    """
    return _move(images, images, styles, teacher, technique, steps, 1.0, accel, tell)


def textures(
    styles: Tensor, teacher: Teacher, seed: int, steps: int = 40, accel: Accel | None = None, tell: Tell | None = None
) -> Tensor:
    """Images (N, C, H, W) uint8 synthesised from noise with the Gram matrices of ``styles``: their texture, without
    where anything is (Gatys et al. 2015)."""
    generator = torch.Generator().manual_seed(seed)
    start = torch.randint(0, 256, styles.shape, generator=generator, dtype=torch.uint8)
    return _move(start, styles, styles, teacher, "gram", steps, 0.0, accel, tell)


def _move(
    start: Tensor,
    images: Tensor,
    styles: Tensor,
    teacher: Teacher,
    technique: Literal["gram", "adain"],
    steps: int,
    content_weight: float,
    accel: Accel | None,
    tell: Tell | None,
) -> Tensor:
    device = next(teacher.module.parameters()).device
    done = []
    for first in range(0, len(images), BATCH):
        part = slice(first, first + BATCH)
        content, style = (x[part].to(device).float() / 255 for x in (images, styles))
        with torch.no_grad():
            wanted, look = (_features(teacher, x, accel) for x in (content, style))
        deep = min(2, len(wanted) - 1)
        target = adain(wanted[deep], look[deep]) if technique == "adain" else wanted[deep]
        grams = [gram(f) for f in look] if technique == "gram" else []
        pixels = (start[part].to(device).float() / 255).requires_grad_()
        optimiser = torch.optim.Adam([pixels], lr=0.04)
        for step in range(steps):
            now = _features(teacher, pixels, accel)
            # Sums over images of per-image means, so that no image depends on those it shares a batch with
            loss = content_weight * _relative(now[deep], target)
            for layer, features in enumerate(now):
                if technique == "gram":
                    loss = loss + 2 * _relative(gram(features), grams[layer])
                else:
                    for mine, theirs in zip(_moments(features), _moments(look[layer]), strict=True):
                        loss = loss + _relative(mine, theirs)
            (pixels.grad,) = torch.autograd.grad(loss, [pixels])
            optimiser.step()
            with torch.no_grad():
                pixels.clamp_(0, 1)
            if tell:
                tell((first + len(content) * (step + 1) / steps) / len(images))
        done.append(to_bytes(255 * pixels.detach()).cpu())
    return torch.cat(done)


def _features(teacher: Teacher, pixels: Tensor, accel: Accel | None) -> list[Tensor]:
    """The pixels, and what the teacher's first convolutions make of them, each (N, C, H, W) float32."""
    convolutions = [m for m in teacher.module.modules() if isinstance(m, nn.Conv2d)][:LAYERS]
    if not convolutions:
        raise Refused("Style transfer needs a teacher with convolutions, such as a convnet.")
    seen: list[Tensor] = [pixels]
    hooks = [m.register_forward_hook(lambda *a: seen.append(a[2].float())) for m in convolutions]
    try:
        with accel.autocast() if accel else contextlib.nullcontext():
            teacher.module(teacher.prepare(pixels))
    finally:
        for hook in hooks:
            hook.remove()
    return seen


def _moments(features: Tensor) -> tuple[Tensor, Tensor]:
    """Means and deviations over places: (N, C, 1, 1) each."""
    return features.mean((2, 3), keepdim=True), (features.var((2, 3), keepdim=True, correction=0) + 1e-5).sqrt()


def _relative(value: Tensor, target: Tensor) -> Tensor:
    """Squared error of each image over the target's mean square, summed over images."""
    over = tuple(range(1, target.ndim))
    return ((value - target).square().mean(over) / (target.square().mean(over) + 1e-6)).sum()


def stylised(
    data: Dataset, style: Style, seed: int, accel: Accel, tell: Tell | None = None, teacher: Teacher | None = None
) -> Tensor:
    """The training images of ``data``, each in the style of one of another class: (N, C, H, W) uint8, labels unchanged.

    ``fourier`` exchanges amplitudes; ``adain`` and ``gram`` need a ``teacher``. The same seed gives the same images.
    Raises ``Refused``.
    """
    images, chosen = data.train_images, partners(data.train_labels, seed)
    if style == "fourier":
        done = []
        for first in range(0, len(images), 2000):
            part = slice(first, first + 2000)
            done.append(to_bytes(fourier(images[part].to(accel.device), images[chosen[part]].to(accel.device))).cpu())
            if tell:
                tell(min(1.0, (first + 2000) / len(images)))
        return torch.cat(done)
    if style not in ("adain", "gram"):
        raise Refused(f"There is no style “{style}”; choose fourier, adain or gram.")
    if teacher is None:
        raise Refused(f"The style {style} needs a teacher network whose features it can use; or choose fourier.")
    return transfer(images, images[chosen], teacher, style, STEPS, accel, tell)


def shuffle_patches(images: Tensor, grid: int, seed: int) -> Tensor:
    """Images (N, C, H, W) cut into ``grid`` × ``grid`` patches that are put together in random order.

    What does not fill a patch at the right and bottom is left as it was.
    """
    n, c, height, width = images.shape
    a, b = height // grid, width // grid
    generator = torch.Generator().manual_seed(seed)
    order = torch.rand(n, grid * grid, generator=generator).argsort(1).to(images.device)
    inner = images[:, :, : a * grid, : b * grid]
    patches = inner.reshape(n, c, grid, a, grid, b).permute(0, 2, 4, 1, 3, 5).reshape(n, grid * grid, c, a, b)
    patches = patches[torch.arange(n).unsqueeze(1), order].reshape(n, grid, grid, c, a, b)
    out = images.clone()
    out[:, :, : a * grid, : b * grid] = patches.permute(0, 3, 1, 4, 2, 5).reshape(n, c, a * grid, b * grid)
    return out


def greyscale(images: Tensor) -> Tensor:
    """Colour images (N, 3, H, W) uint8 without their colours (ITU-R 601 weights); grey ones as they are."""
    if images.shape[1] == 1:
        return images
    weights = torch.tensor([0.299, 0.587, 0.114], device=images.device).view(1, 3, 1, 1)
    return to_bytes((images.float() * weights).sum(1, keepdim=True)).expand(-1, 3, -1, -1).contiguous()


def edges(images: Tensor) -> Tensor:
    """Outlines of (N, C, H, W) uint8 images, by Sobel's filter: dark on white, or white on black for grey images."""
    channels = images.shape[1]
    grey = greyscale(images)[:, :1].float()
    across = torch.tensor([[-1.0, 0.0, 1.0], [-2.0, 0.0, 2.0], [-1.0, 0.0, 1.0]], device=images.device)
    filters = torch.stack([across, across.T]).unsqueeze(1)
    strength = F.conv2d(F.pad(grey, (1, 1, 1, 1), mode="replicate"), filters).norm(dim=1, keepdim=True)
    strength = 255 * (strength / strength.amax((1, 2, 3), keepdim=True).clamp_min(1e-6))
    return to_bytes(strength if channels == 1 else 255 - strength).expand(-1, channels, -1, -1).contiguous()


def silhouettes(masks: Tensor, channels: int) -> Tensor:
    """(N, H, W) bool masks as black figures on white; as white ones on black where images are grey."""
    figure = masks.unsqueeze(1) if channels == 1 else ~masks.unsqueeze(1)
    return (255 * figure.byte()).expand(-1, channels, -1, -1).contiguous()
