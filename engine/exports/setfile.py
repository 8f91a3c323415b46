"""A synthetic set as one ``.npz`` or ``.safetensors`` file for training elsewhere, and back (torch-free).

Either holds the set's tensors by their names, and all that is not a tensor as JSON text under ``about``: an array of
its own in the ``.npz``, a metadata entry in the ``.safetensors``.
"""

from __future__ import annotations

import io
import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import load_file, save, save_file

from engine.errors import Refused

ABOUT = "about"
MAX_BYTES = 2_000_000_000
MAX_ABOUT = 50_000_000
MAX_TENSORS = 2_000


def npz(folder: Path) -> bytes:
    """The set saved in ``folder`` as an ``.npz`` of plain arrays. Raises ``Refused`` where there is none."""
    tensors, about = _saved(folder)
    out = io.BytesIO()
    arrays: dict[str, Any] = {**tensors, ABOUT: np.array(json.dumps(about))}
    np.savez_compressed(out, **arrays)
    return out.getvalue()


def safetensors(folder: Path) -> bytes:
    """The set saved in ``folder`` as one ``.safetensors``. Raises ``Refused`` where there is none."""
    tensors, about = _saved(folder)
    return save(tensors, metadata={ABOUT: json.dumps(about)})


def says_all(path: Path) -> bool:
    """Whether a file claims to hold a whole set as written here, so that it need not be told what it stands for."""
    if path.suffix.lower() == ".safetensors":
        return True
    if path.suffix.lower() != ".npz":
        return False
    try:
        with zipfile.ZipFile(path) as archive:
            return f"{ABOUT}.npy" in archive.namelist()
    except (zipfile.BadZipFile, OSError, ValueError, RuntimeError):
        return False


def unpack(path: Path, folder: Path) -> None:
    """Write what a file made here holds into ``folder`` as a saved set, for ``load_synthetic`` to check.

    Nothing in the file is executed, and nothing is read that claims to be larger than a set can be. Raises ``Refused``
    with a sentence when it cannot be read.
    """
    try:
        if path.stat().st_size > MAX_BYTES:
            raise Refused(f"{path.name} is larger than {MAX_BYTES // 1_000_000} MB; no set is.")
        tensors, about = _open_npz(path) if path.suffix.lower() == ".npz" else _open_safetensors(path)
        json.loads(about)
        save_file(tensors, folder / "synthetic.safetensors")
        (folder / "synthetic.json").write_text(about)
    except Refused:
        raise
    except Exception:  # zip, header, array, JSON, memory: many kinds, and none that means anything to a reader
        raise Refused(f"{path.name} cannot be read as a set that was exported here; export it again.") from None


def _saved(folder: Path) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    try:
        about = json.loads((folder / "synthetic.json").read_text())
        return load_file(folder / "synthetic.safetensors"), about
    except FileNotFoundError:
        raise Refused("There is no synthetic set to export yet; wait for the run to finish.") from None
    except (OSError, ValueError, SafetensorError):
        raise Refused("The synthetic set of this run cannot be read; distil it again.") from None


def _open_npz(path: Path) -> tuple[dict[str, np.ndarray], str]:
    with zipfile.ZipFile(path) as archive:
        members = archive.infolist()
        if len(members) > MAX_TENSORS or sum(member.file_size for member in members) > MAX_BYTES:
            raise Refused(f"{path.name} holds more than a set can; it is not read.")
        if archive.getinfo(f"{ABOUT}.npy").file_size > 4 * MAX_ABOUT:  # NumPy's text takes four bytes a letter
            raise Refused(f"{path.name} says more about itself than a set can; it is not read.")
    with np.load(path, allow_pickle=False) as arrays:
        return {key: np.ascontiguousarray(arrays[key]) for key in arrays if key != ABOUT}, str(arrays[ABOUT])


def _open_safetensors(path: Path) -> tuple[dict[str, np.ndarray], str]:
    with safe_open(path, "numpy") as file:
        about = (file.metadata() or {}).get(ABOUT)
        if about is None:
            raise Refused(
                f"{path.name} does not say what it holds. A set's .safetensors has it in its metadata; of a set that "
                "came in a .zip with a .json, give the .zip."
            )
        if len(about) > MAX_ABOUT or len(file.keys()) > MAX_TENSORS:
            raise Refused(f"{path.name} says more about itself than a set can; it is not read.")
        return {key: file.get_tensor(key) for key in file.keys()}, about
