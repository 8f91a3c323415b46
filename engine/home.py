"""Where things live on disk (torch-free)."""

import os
from pathlib import Path


def limbeck_home() -> Path:
    """Folder of runs, caches and the store: ``LIMBECK_HOME``, or ``~/.limbeck``. Created when missing."""
    home = Path(os.environ.get("LIMBECK_HOME") or Path.home() / ".limbeck").expanduser().resolve()
    home.mkdir(parents=True, exist_ok=True)
    return home


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
