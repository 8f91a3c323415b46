"""Mistakes of ours: a sentence for people, the rest for whoever repairs it (torch-free)."""

from __future__ import annotations

import contextlib
import secrets
import time
import traceback

from engine.home import limbeck_home

LOG = "errors.log"
LOG_LIMIT = 5_000_000  # bytes after which it starts afresh
LONGEST = 50_000  # characters of one error


def record(error: BaseException, doing: str) -> str:
    """Write an unexpected error into ``LIMBECK_HOME/errors.log``; the short id that it has there.

    ``doing``: what the program was about, in a line. Never raises: where nothing can be written, the id leads nowhere.
    """
    id = secrets.token_hex(3)
    with contextlib.suppress(Exception):
        path = limbeck_home() / LOG
        fresh = not path.exists() or path.stat().st_size > LOG_LIMIT
        trace = "".join(traceback.format_exception(error))[-LONGEST:]
        with path.open("w" if fresh else "a", encoding="utf-8", errors="backslashreplace") as file:
            file.write(f"{time.strftime('%Y-%m-%d %H:%M:%S')} {id} {doing[:2000]}\n{trace}\n")
    return id
