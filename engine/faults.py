"""What goes wrong without anybody's input being at fault: a sentence for people (torch-free).

Either this machine does not play along (a full disk, a folder that may not be written): ``outside`` says so and what to
do. Or it is a mistake of ours: ``record`` keeps what whoever repairs it needs, under an id that people are shown.
"""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import shutil
import sqlite3
import time
import traceback
from collections.abc import Iterator

from engine.errors import Refused
from engine.home import limbeck_home

LOG = "errors.log"
LOG_LIMIT = 5_000_000  # bytes after which it starts afresh
LONGEST = 50_000  # characters of one error
ANOTHER = "Change that, or set LIMBECK_HOME to another folder."
SCARCE = 50_000_000  # bytes left on a disk that is as good as full


def outside(error: BaseException, then: str = "try again") -> str:
    """The sentence for an error that this machine is to blame for, empty for any other.

    ``then``: what to do once the cause is removed.
    """
    for link in _chain(error):
        if _full(link):
            return f"The disk is full. Free some space, then {then}."
    for link in _chain(error, implied=False):
        code, number = _code(link), link.errno if isinstance(link, OSError) else None
        if isinstance(link, OSError) and number in (errno.EROFS, errno.EACCES, errno.EPERM):
            what = f"“{link.filename}”" if link.filename else "A file that is needed"
            return f"{what} cannot be used ({link.strerror}). Change that, or set LIMBECK_HOME, then {then}."
        if code in (sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_PERM):
            return f"{_store()} cannot be written ({link}). Change that, or set LIMBECK_HOME, then {then}."
        if code in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
            return (
                f"{_store()} is damaged ({link}). Move it away, and a new one is begun; the results of runs stay in "
                "their folders, from which “python -m engine import” takes them in again."
            )
        if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
            return f"{_store()} has been kept busy for seconds by another process; {then} in a moment."
        if number in (errno.EMFILE, errno.ENFILE):
            return f"There are too many open files on this machine; end other programs, then {then}."
        if number == errno.EIO or code == sqlite3.SQLITE_IOERR:
            return f"The disk that holds the runs does not work as it should ({link}); look after it, then {then}."
    return ""


def hindrance() -> str:
    """What keeps runs from being written where they are kept, as a sentence; empty when nothing does."""
    with contextlib.suppress(Refused):  # whoever needs the folder hears about that
        home = limbeck_home()
        if not os.access(home, os.W_OK):
            return f"Nothing can be computed, as the folder of runs, “{home}”, cannot be written. {ANOTHER}"
        if _free() < SCARCE:
            return f"Only {_free() / 1e6:.0f} MB are free on the disk that holds the runs: free some space."
    return ""


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


def _chain(error: BaseException | None, implied: bool = True) -> Iterator[BaseException]:
    """An error and those it came from, as a traceback shows them; ``implied``: also where nobody said “from”."""
    while error is not None:
        yield error
        error = error.__cause__ or (error.__context__ if implied and not error.__suppress_context__ else None)


def _full(error: BaseException) -> bool:
    """Whether it says that a disk has no room left."""
    if isinstance(error, OSError):
        return error.errno in (errno.ENOSPC, errno.EDQUOT)
    if _code(error) == sqlite3.SQLITE_IOERR:  # as it says when its shared memory does not fit
        return _free() < 1_000_000
    return _code(error) == sqlite3.SQLITE_FULL or "(os error 28)" in str(error)  # safetensors passes on words only


def _code(error: BaseException) -> int | None:
    """SQLite's primary result code."""
    code = getattr(error, "sqlite_errorcode", None)
    return None if code is None else code & 0xFF


def _free() -> int:
    """Bytes free on the disk of the runs; plenty where that cannot be told."""
    try:
        return shutil.disk_usage(limbeck_home()).free
    except (OSError, Refused):
        return 10**15


def _store() -> str:
    try:
        return f"The store of runs, “{limbeck_home() / 'store.sqlite'}”,"
    except Refused:
        return "The store of runs"
