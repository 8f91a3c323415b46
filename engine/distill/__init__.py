"""Distillation methods, one file each; ``make_distiller`` finds them by id."""

from importlib import import_module

from engine.distill.base import Distiller, Diverged, StepReport
from engine.methods import METHODS

__all__ = ["Distiller", "Diverged", "StepReport", "make_distiller"]


def make_distiller(method: str) -> Distiller:
    """A fresh distiller of ``method``: the class named ``Method`` in ``engine/distill/<method>.py``, or in the module
    that its ``MethodInfo`` names."""
    return import_module(METHODS[method].module or f"engine.distill.{method}").Method()
