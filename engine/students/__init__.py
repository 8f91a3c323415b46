"""Students: networks trained on a synthetic set under a named protocol, and tested on real images.

``PROTOCOLS`` is here without torch; the rest is loaded when first asked for, so that pages can name protocols.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from engine.students.protocols import PROTOCOLS, Protocol

if TYPE_CHECKING:
    from engine.students.evaluation import Evaluation, evaluate, evaluate_slices
    from engine.students.train import train_student, train_students

__all__ = [
    "PROTOCOLS",
    "Evaluation",
    "Protocol",
    "evaluate",
    "evaluate_slices",
    "train_student",
    "train_students",
]

_HOMES = {
    "Evaluation": "evaluation",
    "evaluate": "evaluation",
    "evaluate_slices": "evaluation",
    "train_student": "train",
    "train_students": "train",
}


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(f"engine.students.{_HOMES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
