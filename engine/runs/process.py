"""Telling a living process from a dead one whose number was given to another (torch-free)."""

import os
import socket
import subprocess
import sys
import threading
from functools import cache
from pathlib import Path


def birth(pid: int) -> str:
    """When process ``pid`` on this machine started, as an opaque string; empty when it is gone or a zombie."""
    if sys.platform.startswith("linux"):
        try:
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        except OSError:
            return ""
        return "" if fields[0] in "ZX" else fields[19]
    if os.name == "posix":
        line = subprocess.run(["ps", "-o", "stat=,lstart=", "-p", str(pid)], capture_output=True, text=True).stdout
        state, _, started = line.strip().partition(" ")
        return "" if state.startswith("Z") else started.strip()
    return str(pid)


@cache
def machine() -> str:
    """This machine, or rather its process table, as an opaque string without a slash.

    The name of a machine changes with the network it is in, and containers may share one.
    """
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot}-{os.readlink('/proc/self/ns/pid')}".replace("/", "-")
    except OSError:
        return socket.gethostname()


def signature(pid: int) -> str:
    """Machine and birth of a process: with its number, enough to recognise it later."""
    return f"{machine()}/{birth(pid)}"


def here(known: str) -> bool:
    """Whether a signature is that of a process of this machine."""
    return known.rpartition("/")[0] == machine()


def alive(pid: int | None, known: str, heartbeat: float | None, now: float) -> bool:
    """Whether the process that ``pid`` and ``signature`` described still lives.

    On this machine the process table decides at once; a process of another machine that shares the home folder counts
    as gone when it has not written a heartbeat for 10 s, by a clock that may have jumped.
    """
    if not here(known):
        return heartbeat is not None and abs(now - heartbeat) <= 10
    born = known.rpartition("/")[2]
    return pid is not None and born != "" and birth(pid) == born


def leave_with_parent(parent: int, leaving: threading.Event) -> None:
    """Set ``leaving`` once process ``parent`` (0 for none) is no longer this one's parent: it has died. Blocks."""
    while parent and not leaving.wait(1.0):
        if os.getppid() != parent:
            leaving.set()
