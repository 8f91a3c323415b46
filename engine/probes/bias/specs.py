"""Texture or shape: what the probes can be asked (torch-free)."""

from __future__ import annotations

from engine.probes.base import ProbeInfo

BIAS: tuple[ProbeInfo, ...] = ()
