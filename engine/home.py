"""Where things live on disk (torch-free)."""

import contextlib
import os
import secrets
from collections.abc import Iterator
from pathlib import Path

from engine.errors import Refused


def limbeck_home() -> Path:
    """Folder of runs, caches and the store: ``LIMBECK_HOME``, or ``~/.limbeck``. Created when missing.

    Raises ``Refused`` where that cannot be.
    """
    given = os.environ.get("LIMBECK_HOME") or "~/.limbeck"
    try:
        home = Path(given).expanduser().resolve()
        home.mkdir(parents=True, exist_ok=True)
        return home
    except (OSError, RuntimeError) as error:
        reason = getattr(error, "strerror", None) or "whose home that is, nobody knows"
        raise Refused(f"{given!r:.200} cannot be the folder of runs ({reason}); set LIMBECK_HOME to another.") from None


def data_folder() -> Path | None:
    """The folder named by ``LIMBECK_DATA``, or None when it is unset or not a folder."""
    value = os.environ.get("LIMBECK_DATA")
    folder = Path(value).expanduser().resolve() if value else None
    return folder if folder and folder.is_dir() else None


def cache_folder(name: str) -> Path:
    """``LIMBECK_HOME/cache/<name>``, created when missing."""
    folder = limbeck_home() / "cache" / name
    folder.mkdir(parents=True, exist_ok=True)
    return folder


@contextlib.contextmanager
def aside(path: Path) -> Iterator[Path]:
    """A hidden name beside ``path`` to write to. It becomes ``path`` when the block ends well, and is removed else.

    Whoever reads ``path`` meanwhile, or after the writer was killed, finds the file as it was before; a disk that fills
    gets back what was written.
    """
    part = path.with_name(f".{path.name[-60:]}.{secrets.token_hex(4)}")
    try:
        yield part
        os.replace(part, path)
    except BaseException:
        part.unlink(missing_ok=True)
        raise
