"""The attribution methods: Captum's, in pixel space, so that students with different normalisation compare."""

from __future__ import annotations

import contextlib
import copy
import warnings
from collections.abc import Callable, Iterator
from functools import lru_cache

import numpy as np
import torch
import torch.nn.functional as F
from captum.attr import (
    DeepLift,
    FeatureAblation,
    GradientShap,
    GuidedBackprop,
    InputXGradient,
    IntegratedGradients,
    LayerGradCam,
    NoiseTunnel,
    Occlusion,
    Saliency,
)
from scipy import ndimage
from sklearn.cluster import KMeans
from torch import Tensor, nn
from torchvision.transforms.v2 import functional as V

from engine.accel import seeded
from engine.data.base import Dataset
from engine.errors import Refused
from engine.networks.edge_popup import MaskedConv2d
from engine.networks.vit import PATCH, ViT
from engine.probes.attribution.asked import network_of
from engine.probes.attribution.specs import METHOD_INFO, _Method
from engine.students.kept import Student

TOGETHER = 100  # images that are passed through a student at once
DISTRIBUTION = 5  # baselines that GradientSHAP draws from
LEAST_PLACES = 4  # side of the feature maps that Grad-CAM weighs, at least


class Pixels(nn.Module):
    """A student as a function of pixels: (N, C, H, W) in [0, 1] to (N, K) logits.

    ``beat`` is called before every pass, and may raise to give up.
    """

    def __init__(self, student: Student, beat: Callable[[], object] | None = None):
        super().__init__()
        self.student = student
        self.module: nn.Module = student.module
        self.beat = beat

    def forward(self, pixels: Tensor) -> Tensor:
        """Normalise (and whiten), then classify."""
        if self.beat:
            self.beat()
        return self.module(self.student.prepare(pixels)).float()


def check(method: str, student: Student, spec: _Method) -> str:
    """Nothing when the method is right for the student; else why it is not. ``Refused`` when it is right for none."""
    if spec.smooth and not METHOD_INFO[method].gradient:
        over = ", ".join(m.id for m in METHOD_INFO.values() if m.gradient)
        raise Refused(f"SmoothGrad averages gradients: it goes over {over}, not over {method}.")
    if method == "occlusion" and spec.stride > spec.window:
        raise Refused(
            f"A window of {spec.window} pixels that moves by {spec.stride} leaves pixels out; the stride may be at "
            "most the window."
        )
    if method == "occlusion" and spec.window > student.facts["size"]:
        raise Refused(f"The window must be smaller than the image, whose side is {student.facts['size']} pixels.")
    return METHOD_INFO[method].valid_for(network_of(student))


# ---- attribution -----------------------------------------------------------------------------------------------------


def attribute(
    student: Student,
    pixels: Tensor,
    targets: Tensor,
    spec: _Method,
    data: Dataset | None = None,
    beat: Callable[[], object] | None = None,
) -> Tensor:
    """Attribution of the logits ``targets`` (N,) of images (N, C, H, W) to their pixels, of the images' shape.

    ``data`` is needed for the baseline ``mean``. The same spec gives the same values. In logits; saliency in logits
    per unit of the pixel range, and Grad-CAM in its layer's own unit. ``student`` and images lie on one device.
    ``beat`` is called before every pass of the student, and may raise to give up.
    """
    model = Pixels(student, beat)
    method, each = spec.method, max(TOGETHER, len(pixels))
    base = baseline(pixels, spec, data)
    # Captum draws with torch and with numpy
    with seeded(spec.seed), _numpy_seeded(spec.seed), warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # Captum says that it sets hooks
        if method == "occlusion":
            out = Occlusion(model).attribute(
                pixels,
                (pixels.shape[1], spec.window, spec.window),
                strides=(pixels.shape[1], spec.stride, spec.stride),
                baselines=base,
                target=targets,
                perturbations_per_eval=max(1, TOGETHER // len(pixels)),
            )
        elif method == "feature-ablation":
            out = torch.cat([_ablate(model, x, b, t, spec) for x, b, t in _each(pixels, base, targets)])
        elif method == "gradcam":
            out = _grad_cam(model, pixels, targets)
        elif method == "gradientshap":
            # one by one: Captum draws the baselines of every image from all of them
            out = torch.cat([_shap(model, x, t, spec, data) for x, t in _each(pixels, targets)])
        elif method == "guided-gradcam":
            out = _guided(model, pixels, targets, spec)
        else:
            more: dict[str, object] = {"target": targets}
            if method == "saliency":
                explainer, more = Saliency(model), more | {"abs": False}
            elif method == "inputxgradient":
                explainer = InputXGradient(model)
            elif method == "integrated-gradients":
                explainer = IntegratedGradients(model)
                more |= {"baselines": base, "n_steps": spec.steps, "internal_batch_size": each}
            else:
                model.module = _apart(model.module)
                explainer, more = DeepLift(model), more | {"baselines": base}
            if spec.smooth:
                at_once = min(spec.samples, max(1, TOGETHER // len(pixels)))
                explainer = NoiseTunnel(explainer)
                more |= {"nt_samples": spec.samples, "nt_samples_batch_size": at_once, "stdevs": float(spec.noise)}
            out = explainer.attribute(pixels, **more)
    return out.detach()


def to_maps(method: str, attribution: Tensor) -> np.ndarray:
    """Attributions (N, C, H, W) as maps (N, H, W) float64: summed over channels, where channels are attributed to
    apart; of saliency the absolute values."""
    if method in ("occlusion", "feature-ablation", "gradcam"):  # places are covered or weighed in all channels at once
        maps = attribution.mean(1)
    else:
        maps = (attribution if METHOD_INFO[method].signed else attribution.abs()).sum(1)
    return maps.cpu().double().numpy()


def completeness_gap(
    student: Student, pixels: Tensor, targets: Tensor, attribution: Tensor, spec: _Method, data: Dataset | None
) -> list[float | None]:
    """For each image |sum of the attribution - (f(x) - f(b))| / |f(x) - f(b)|; None where it is not defined.

    Sundararajan et al. 2017, proposition 1. Of GradientSHAP f(b) is the mean over its baselines, which its samples
    only approach.
    """
    if not METHOD_INFO[spec.method].complete or spec.smooth:
        return [None] * len(pixels)
    gaps: list[float | None] = []
    model, base = Pixels(student), baseline(pixels, spec, data)
    with torch.no_grad():
        for x, b, t, a in _each(pixels, base, targets, attribution):
            b = distribution(x, spec, data) if spec.method == "gradientshap" else b
            rise = float(model(x)[0, t] - model(b)[:, t].mean())
            gaps.append(abs(float(a.double().sum()) - rise) / abs(rise) if abs(rise) > 1e-6 else None)
    return gaps


class _Copy(nn.Module):
    """The same values as another tensor."""

    def forward(self, x: Tensor) -> Tensor:
        return x.clone()


def _apart(module: nn.Module) -> nn.Module:
    """A network of the same weights with a copy before each max-pooling.

    Captum hooks tensors: where a pooling follows a ReLU at once, both hook the same one, the ReLU is never told what
    the rule of the pooling made of the gradient, and the values do not add up.
    """
    twin = copy.copy(module)
    twin._modules = {
        name: nn.Sequential(_Copy(), part) if isinstance(part, nn.MaxPool2d) else _apart(part)
        for name, part in module._modules.items()
        if part is not None
    }
    return twin


def _shap(model: Pixels, pixels: Tensor, target: Tensor, spec: _Method, data: Dataset | None) -> Tensor:
    """GradientSHAP of one image; many samples a part at a time."""
    explainer, bases = GradientShap(model), distribution(pixels, spec, data)
    total = torch.zeros_like(pixels)
    for done in range(0, spec.samples, TOGETHER):
        part = min(TOGETHER, spec.samples - done)
        out = explainer.attribute(pixels, bases, n_samples=part, stdevs=float(spec.noise), target=target)
        total += out.detach() * (part / spec.samples)
    return total


def _each(*tensors: Tensor) -> Iterator[tuple[Tensor, ...]]:
    return zip(*(tensor.split(1) for tensor in tensors), strict=True)


@contextlib.contextmanager
def _numpy_seeded(seed: int) -> Iterator[None]:
    before = np.random.get_state()
    np.random.seed(seed)
    try:
        yield
    finally:
        np.random.set_state(before)


# ---- baselines -------------------------------------------------------------------------------------------------------


def baseline(pixels: Tensor, spec: _Method, data: Dataset | None = None) -> Tensor:
    """What an image without information is taken to be, for each of (N, C, H, W): of the same shape."""
    if spec.baseline == "blurred":
        return blurred(pixels)
    if spec.baseline == "black":
        return torch.zeros_like(pixels)
    if spec.baseline == "noise":
        generator = torch.Generator().manual_seed(spec.seed)
        return torch.rand(pixels.shape[1:], generator=generator).to(pixels).expand_as(pixels).contiguous()
    if data is None:
        raise Refused("The mean baseline needs the students' dataset.")
    return mean_image(data).to(pixels).expand_as(pixels).contiguous()


def blurred(pixels: Tensor, strength: float = 1.0) -> Tensor:
    """Images (N, C, H, W) under a Gaussian of standard deviation 5 at 32 pixels: what is where can no longer be told,
    yet they are not constant, so that instance-wise normalisation stays well away from dividing by nothing."""
    size = pixels.shape[-1]
    kernel = size - 1 if size % 2 == 0 else size
    return V.gaussian_blur(pixels, [kernel, kernel], [strength * 5 * size / 32] * 2)


def distribution(pixels: Tensor, spec: _Method, data: Dataset | None = None) -> Tensor:
    """The baselines (M, C, H, W) that GradientSHAP draws from for one image: several blurs or noises, or the one."""
    if spec.baseline == "blurred":
        return torch.cat([blurred(pixels, s) for s in np.linspace(0.6, 1.4, DISTRIBUTION)])
    if spec.baseline == "noise":
        generator = torch.Generator().manual_seed(spec.seed)
        return torch.rand(DISTRIBUTION, *pixels.shape[1:], generator=generator).to(pixels)
    return baseline(pixels, spec, data)


@lru_cache(maxsize=4)
def mean_image(data: Dataset) -> Tensor:
    """The average (1, C, H, W) of at most 5,000 training images, in [0, 1]."""
    step = max(1, len(data.train_images) // 5000)
    return data.train_images[::step].float().mean(0, keepdim=True) / 255


# ---- Grad-CAM --------------------------------------------------------------------------------------------------------


class _Grid(nn.Module):
    """Tokens (N, T, D) as feature maps (N, D, h, w)."""

    def forward(self, tokens: Tensor) -> Tensor:
        side = round(tokens.shape[1] ** 0.5)
        return tokens.transpose(1, 2).unflatten(2, (side, side))


class _Tokens(nn.Module):
    """Feature maps as tokens again."""

    def forward(self, maps: Tensor) -> Tensor:
        return maps.flatten(2).transpose(1, 2)


def _grad_cam(model: Pixels, pixels: Tensor, targets: Tensor) -> Tensor:
    """Grad-CAM (N, C, H, W), enlarged bilinearly and shared evenly among the channels."""
    layer: nn.Module
    if isinstance(model.module, ViT):
        # The tokens after the last layer lie on a grid: as maps they can be weighed like those of a convolution.
        vit, layer = copy.copy(model.module), _Grid()
        vit._modules = {**vit._modules, "body": nn.Sequential(*model.module.body, layer, _Tokens())}
        model = Pixels(model.student, model.beat)
        model.module = vit
        start, pace = (PATCH - 1) / 2, float(PATCH)
    else:
        layer = _maps_of(model, pixels)
        start, pace = _centres(model.module, layer)
    small = LayerGradCam(model, layer).attribute(pixels, target=targets, relu_attributions=True).detach()
    large = _enlarged(small, (pixels.shape[2], pixels.shape[3]), start, pace)
    return large.expand_as(pixels).contiguous()


def _guided(model: Pixels, pixels: Tensor, targets: Tensor, spec: _Method) -> Tensor:
    """Guided back-propagation times Grad-CAM (Selvaraju et al. 2017, section 3.2), over noisy copies where asked.

    Captum's own stretches the small map over the whole image, wherever its places lie.
    """
    edges = GuidedBackprop(model)
    copies = spec.samples if spec.smooth else 1
    total = torch.zeros_like(pixels)
    for _ in range(copies):
        x = pixels + spec.noise * torch.randn_like(pixels) if spec.smooth else pixels
        total += edges.attribute(x, targets).detach() * _grad_cam(model, x, targets)
    return total / copies


def _centres(module: nn.Module, layer: nn.Module) -> tuple[float, float]:
    """Where in the image the places of a layer's feature maps lie: the first one's centre, in pixels from the first
    pixel's centre, and the pixels from one to the next (the arithmetic of receptive fields)."""
    start, pace = 0.0, 1.0
    for step in _steps(module):
        if isinstance(step, nn.Conv2d | nn.MaxPool2d | nn.AvgPool2d | MaskedConv2d):
            kernel, stride, padding = _shape(step)
            start += pace * ((kernel - 1) / 2 - padding)
            pace *= stride
        if step is layer:
            break
    return start, pace


def _steps(module: nn.Module) -> Iterator[nn.Module]:
    """The parts of a network in the order in which an image passes them; of a residual block the longer branch."""
    for name, part in module.named_children():
        if name != "shortcut":
            if next(part.children(), None) is None:
                yield part
            else:
                yield from _steps(part)


def _shape(step: nn.Conv2d | nn.MaxPool2d | nn.AvgPool2d | MaskedConv2d) -> tuple[int, int, int]:
    """Kernel, stride and padding of a convolution or pooling; all are square here."""
    if isinstance(step, MaskedConv2d):
        return step.weight.shape[-1], 1, step.padding
    kernel, stride, padding = (
        int(v[0] if isinstance(v, tuple) else v) for v in (step.kernel_size, step.stride, step.padding)
    )
    return kernel, stride, padding


def _enlarged(small: Tensor, size: tuple[int, int], start: float, pace: float) -> Tensor:
    """Maps (N, 1, h, w) whose places lie at ``start`` + i · ``pace``, at every pixel (N, 1, H, W): bilinear between
    places, and constant beyond the outermost."""

    def places(length: int, count: int) -> Tensor:
        pixels = torch.arange(length, dtype=small.dtype, device=small.device)
        return (2 * (pixels - start) / pace + 1) / count - 1  # as ``grid_sample`` counts

    down, across = (places(n, count) for n, count in zip(size, small.shape[2:], strict=True))
    grid = torch.stack(torch.meshgrid(across, down, indexing="xy"), -1).expand(len(small), -1, -1, -1)
    return F.grid_sample(small, grid, padding_mode="border", align_corners=False)


def _maps_of(model: Pixels, pixels: Tensor) -> nn.Module:
    """The last ReLU whose output still has places, at least ``LEAST_PLACES`` to a side."""
    found: list[nn.Module] = []

    def look(module: nn.Module, _: object, output: Tensor) -> None:
        if output.ndim == 4 and min(output.shape[2:]) >= min(LEAST_PLACES, pixels.shape[-1] // 4):
            found.append(module)

    hooks = [m.register_forward_hook(look) for m in model.modules() if isinstance(m, nn.ReLU)]
    try:
        with torch.no_grad():
            model(pixels[:1])
    finally:
        for hook in hooks:
            hook.remove()
    if not found:
        raise Refused("This student has no layer in which places are kept, so there is nothing for Grad-CAM to weigh.")
    return found[-1]


# ---- superpixels -----------------------------------------------------------------------------------------------------


def _ablate(model: Pixels, pixels: Tensor, base: Tensor, target: Tensor, spec: _Method) -> Tensor:
    patches = torch.from_numpy(superpixels(pixels[0].cpu().numpy(), spec.superpixels)).to(pixels.device)
    mask = patches.expand(1, pixels.shape[1], -1, -1).contiguous()
    return FeatureAblation(model).attribute(
        pixels, baselines=base, target=target, feature_mask=mask, perturbations_per_eval=TOGETHER
    )


def superpixels(image: np.ndarray, count: int) -> np.ndarray:
    """About ``count`` connected patches of similar colour in an image (C, H, W) in [0, 1]: (H, W) int64 from 0. Fewer
    where they would have less than four pixels each.

    After SLIC (Achanta et al. 2012): k-means on colour and place, from centres on a regular grid; then pixels that
    are cut off from their patch's largest piece go to the nearest one.
    """
    channels, height, width = image.shape
    across = min(max(2, round(count**0.5)), max(2, min(height, width) // 2))  # of at least four pixels each
    side = height / across  # of a patch, about
    rows, columns = np.mgrid[:height, :width]
    colour = image.reshape(channels, -1).T / np.sqrt(channels)
    places = np.stack([rows.ravel(), columns.ravel()], 1) / side
    compactness = 0.3  # a whole patch's side counts as much as this difference in colour
    points = np.concatenate([colour, compactness * places], 1)
    ticks = ((np.arange(across) + 0.5) * side).astype(int)
    start = points[(ticks[:, None] * width + ticks[None, :]).ravel()]
    labels = KMeans(len(start), init=start, n_init=1, max_iter=10).fit_predict(points).reshape(height, width)
    kept = np.zeros((height, width), bool)
    for label in np.unique(labels):
        pieces, number = ndimage.label(labels == label)
        sizes = np.bincount(pieces.ravel())[1 : number + 1]
        kept |= pieces == 1 + sizes.argmax()
    nearest = ndimage.distance_transform_edt(~kept, return_distances=False, return_indices=True)
    return np.unique(labels[tuple(nearest)], return_inverse=True)[1].reshape(height, width).astype(np.int64)
