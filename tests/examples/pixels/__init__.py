"""A method of one's own: the class means of the pixels. What forms, flags and links know of it (never torch)."""

from engine.methods import Load, MethodInfo
from engine.table import Frozen, field


class PixelParameters(Frozen):
    """Class means of pixels."""

    lr_img: float = field(0.1, "Image learning rate", "lr", "Step size of SGD on the pixels.", ge=1e-4, le=1e2)
    batch_real: int = field(64, "Real images per class", "br", "How many estimate a class mean.", True, ge=1, le=2048)


METHOD = MethodInfo(
    id="pixels",
    name="Pixel means",
    paper="none: an example",
    idea="Move the synthetic images until their mean is that of the real images of their class.",
    equation=r"\min_S\sum_c\Big\|\tfrac1{|T_c|}\sum_{x\in T_c}x-\tfrac1{|S_c|}\sum_{s\in S_c}s\Big\|^2",
    parameters=PixelParameters,
    protocol="dc",
    network="no network",
    real="mean image of each class",
    synthetic="mean image of each class",
    compared="squared distance",
    moved="pixels",
    module="tests.examples.pixels.method",
    load=lambda spec, own, classes: Load(backward=classes * spec.ipc, forward=own.batch_real),
)
