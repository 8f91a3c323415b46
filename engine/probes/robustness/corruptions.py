"""Common corruptions at three severities (Hendrycks & Dietterich, "Benchmarking Neural Network Robustness to Common
Corruptions and Perturbations", ICLR 2019).

Severities 1, 2, 3 have the strengths of severities 1, 3, 5 of CIFAR-10-C, the version for small images; turning and
moving are added, with the border continued outwards. Sides other than 32 get the same strengths relative to
the side; smaller ones are blurred as those of 32 are.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
import torchvision.transforms.v2.functional as V
from PIL import Image
from torch import Tensor
from torchvision.transforms import InterpolationMode


@dataclass(frozen=True)
class Corruption:
    """A corruption: ``strengths`` at severities 1, 2, 3; ``make(images, strength, generator)`` on (N, C, H, W) floating
    images in [0, 1], whose result is clipped to [0, 1]. ``unit`` says what a strength is."""

    id: str
    name: str
    unit: str
    strengths: tuple[float, float, float]
    make: Callable[[Tensor, float, torch.Generator], Tensor]


def corrupt(images: Tensor, id: str, severity: int, seed: int = 0) -> Tensor:
    """uint8 images (N, C, H, W) under corruption ``id`` at ``severity`` 1 to 3; the same noise for the same seed."""
    made = CORRUPTIONS[id]
    generator = torch.Generator().manual_seed(seed)
    out = made.make(images.float() / 255, made.strengths[severity - 1], generator)
    return (out.clamp(0, 1) * 255).round().byte()


def _gaussian(images: Tensor, sigma: float, generator: torch.Generator) -> Tensor:
    return images + sigma * torch.randn(images.shape, generator=generator)


def _shot(images: Tensor, photons: float, generator: torch.Generator) -> Tensor:
    return torch.poisson(images * photons, generator=generator) / photons


def _impulse(images: Tensor, rate: float, generator: torch.Generator) -> Tensor:
    hit = torch.rand(images.shape, generator=generator) < rate
    salt = (torch.rand(images.shape, generator=generator) < 0.5).float()
    return torch.where(hit, salt, images)


def _blur(images: Tensor, sigma: float, _: torch.Generator) -> Tensor:
    sigma = sigma * max(1.0, images.shape[-1] / 32)  # less than 0.4 pixels would leave an image as it is
    kernel = 2 * max(1, round(4 * sigma)) + 1
    return V.gaussian_blur(images, [kernel, kernel], [sigma, sigma])


def _contrast(images: Tensor, factor: float, _: torch.Generator) -> Tensor:
    mean = images.mean((2, 3), keepdim=True)
    return mean + factor * (images - mean)


def _brightness(images: Tensor, shift: float, _: torch.Generator) -> Tensor:
    """The value of HSV is raised, as in the paper, so that colours keep their hue and saturation."""
    value = images.amax(1, keepdim=True)
    grey = torch.where(value > 0, images / value.clamp_min(1e-6), torch.ones_like(images))
    return grey * (value + shift).clamp(0, 1)


def _jpeg(images: Tensor, quality: float, _: torch.Generator) -> Tensor:
    out = []
    for image in (images * 255).round().byte():
        file = io.BytesIO()
        V.to_pil_image(image).save(file, "JPEG", quality=int(quality))
        out.append(V.pil_to_tensor(Image.open(file)))
    return torch.stack(out).float() / 255


def _pixelate(images: Tensor, scale: float, _: torch.Generator) -> Tensor:
    side = images.shape[-1]
    small = V.resize(images, [max(1, round(side * scale))] * 2, InterpolationMode.BILINEAR, antialias=True)
    return F.interpolate(small, size=(side, side), mode="nearest-exact")


def _turn(images: Tensor, degrees: float, generator: torch.Generator) -> Tensor:
    """Each by ``degrees`` to a random side."""
    side = images.shape[-1]
    reach = side // 4 + 1
    signs = torch.randint(2, (len(images),), generator=generator) * 2 - 1
    padded = F.pad(images, [reach] * 4, mode="replicate")
    out = torch.empty_like(images)
    for sign in (-1, 1):
        turned = V.rotate(padded[signs == sign], float(sign * degrees), InterpolationMode.BILINEAR)
        out[signs == sign] = V.center_crop(turned, [side, side])
    return out


def _move(images: Tensor, share: float, generator: torch.Generator) -> Tensor:
    """Each by ``share`` of its side in one of eight directions."""
    side = images.shape[-1]
    reach = max(1, round(share * side))
    eight = torch.tensor([(y, x) for y in (-1, 0, 1) for x in (-1, 0, 1) if (x, y) != (0, 0)])
    moves = eight[torch.randint(8, (len(images),), generator=generator)] * reach + reach
    padded = F.pad(images, [reach] * 4, mode="replicate")
    return torch.stack(
        [image[:, y : y + side, x : x + side] for image, (y, x) in zip(padded, moves.tolist(), strict=True)]
    )


CORRUPTIONS: dict[str, Corruption] = {
    c.id: c
    for c in (
        Corruption("gaussian-noise", "Gaussian noise", "standard deviation", (0.04, 0.08, 0.10), _gaussian),
        Corruption("shot-noise", "Shot noise", "photons at white", (500, 100, 50), _shot),
        Corruption("impulse-noise", "Impulse noise", "share of values", (0.01, 0.03, 0.07), _impulse),
        Corruption("blur", "Gaussian blur", "pixels of 32", (0.4, 0.7, 1.0), _blur),
        Corruption("contrast", "Contrast", "factor", (0.75, 0.4, 0.15), _contrast),
        Corruption("brightness", "Brightness", "added", (0.05, 0.15, 0.30), _brightness),
        Corruption("jpeg", "JPEG", "quality", (80, 58, 40), _jpeg),
        Corruption("pixelate", "Pixelate", "share of the side", (0.95, 0.85, 0.65), _pixelate),
        Corruption("rotation", "Rotation", "degrees", (10, 20, 30), _turn),
        Corruption("shift", "Shift", "share of the side", (1 / 16, 1 / 8, 3 / 16), _move),
    )
}
