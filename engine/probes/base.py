"""What describes a probe (torch-free)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel

from engine.runs.store import Store


def _as_it_is(spec: BaseModel, store: Store) -> BaseModel:
    return spec


@dataclass(frozen=True)
class ProbeInfo:
    """A probe as pages, help texts and the command line show it.

    ``spec``: its table of parameters, made with ``engine.table.field``. ``module``: where ``answer(spec, work)`` is; it
    may import torch, and is imported only where questions are answered. ``named(spec, store)``: the same question with
    ids for words that mean whatever there is now, so that it is another question once there is more.
    """

    id: str
    title: str
    about: str
    spec: type[BaseModel]
    module: str
    named: Callable[[Any, Store], BaseModel] = _as_it_is
