"""What describes a probe (torch-free)."""

from __future__ import annotations

from dataclasses import dataclass

from pydantic import BaseModel


@dataclass(frozen=True)
class ProbeInfo:
    """A probe as pages, help texts and the command line show it.

    ``spec``: its table of parameters, made with ``engine.table.field``. ``module``: where ``answer(spec, work)`` is; it
    may import torch, and is imported only where questions are answered.
    """

    id: str
    title: str
    about: str
    spec: type[BaseModel]
    module: str
