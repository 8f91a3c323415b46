"""The probes there are, and what each can be asked (torch-free)."""

from __future__ import annotations

from engine.probes.applications.specs import APPLICATIONS
from engine.probes.attribution.specs import ATTRIBUTION
from engine.probes.base import ProbeInfo
from engine.probes.bias.specs import BIAS
from engine.probes.distilling.specs import DISTILLING
from engine.probes.robustness.specs import ROBUSTNESS
from engine.probes.whatif.specs import WHATIF

PROBES: dict[str, ProbeInfo] = {
    probe.id: probe for probe in (*ATTRIBUTION, *BIAS, *ROBUSTNESS, *DISTILLING, *WHATIF, *APPLICATIONS)
}
