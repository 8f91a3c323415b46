"""More machines: runs and questions to probes on an existing Ray cluster (torch-free, and Ray only where it is used).

With ``LIMBECK_RAY`` set, the processes that the executors keep alive are drivers instead of workers: each takes from
the store (or from the desk) what a worker would take, has it done on a node of the cluster, and writes what comes back
where a worker would have written it. No page, no command and no method knows the difference.

    runs.py       takes runs from the store           questions.py  takes questions from the desk
    driver.py     places errands, polls, retries      node.py       does one errand on a node, in a home of its own
    parcel.py     what travels: files and rows

Nodes need this program's dependencies, the datasets (their own ``LIMBECK_DATA``, or a network), and no disk in common.
"""

from __future__ import annotations

import os
import re

from engine.errors import Refused

VARIABLE = "LIMBECK_RAY"
_ADDRESS = re.compile(r"^(auto|(ray://)?[A-Za-z0-9._-]{1,253}:[0-9]{1,5})$")


def address() -> str:
    """The cluster that was asked for, or nothing. ``Refused`` when it is no address of one."""
    given = os.environ.get(VARIABLE, "").strip()
    if given and not _ADDRESS.fullmatch(given):
        raise Refused(
            f"{VARIABLE} is {given[:80]!r}, which is no address of a Ray cluster; give auto, HOST:PORT or "
            "ray://HOST:PORT, or unset it to compute on this machine."
        )
    return given


def runs_module() -> str:
    """What an executor of runs executes: workers on this machine, or the driver of a cluster."""
    return "engine.cluster.runs" if address() else "engine.runs.worker"


def questions_module() -> str:
    """The same for questions to probes."""
    return "engine.cluster.questions" if address() else "engine.probes.answerer"
