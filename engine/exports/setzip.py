"""A synthetic set as one file to take away (torch-free: the server's download route makes it)."""

from __future__ import annotations

import io
import json
import zipfile
from pathlib import Path

from engine import words
from engine.errors import Refused
from engine.exports.snippet import about, snippet

PARTS = ("synthetic.safetensors", "synthetic.json")
PAPERS = "papers.pt"  # worth having along; sets that were never a run's result have none

README = """A synthetic training set: {title}

synthetic.safetensors  the tensors: images (N, C, H, W) float32, labels (N,) whole numbers or (N, K) float32
synthetic.json         classes, mean and std of the channels, kind, protocol, and where the set came from
{papers}
The images are in the space a network is trained in: (pixels in [0, 1] - mean) / std{zca_note}.{grid_note} {train}
"""

PAPERS_NOTE = """papers.pt              the tuple (images, labels) as the papers' code reads it{unwhitened}
"""
ZCA_NOTE = ",\nthen whitened by the regularised ZCA transform kept beside them (zca.*)"
GRID_NOTE = " Each image is\na grid of smaller pictures, which are cut out and enlarged first."
TRAIN = """To train a
student on it under its own protocol:

{code}"""


def export_zip(folder: Path) -> bytes:
    """A zip of the set saved in ``folder``: its tensors, its json, and a README that says how to train on it.

    ``papers.pt``, where it lies beside them, comes along. Raises ``Refused`` when there is no set.
    """
    try:
        parts = {name: (folder / name).read_bytes() for name in PARTS}
        meta = json.loads(parts["synthetic.json"])
        size = int.from_bytes(parts["synthetic.safetensors"][:8], "little")
        header = json.loads(parts["synthetic.safetensors"][8 : 8 + size])
        count = header["images"]["shape"][0]
        whitened, grid = "zca_base" in meta, meta.get("factor", 1) != 1
        title = f"{words.count(count, 'image')} that stand for {words.dataset_title(str(meta.get('dataset', '')))}."
        if (folder / PAPERS).is_file():
            parts[PAPERS] = (folder / PAPERS).read_bytes()
        unwhitened = (", not whitened" if whitened else "") + (", enlarged" if grid else "")
        readme = README.format(
            title=title,
            papers=PAPERS_NOTE.format(unwhitened=unwhitened) if PAPERS in parts else "",
            zca_note=ZCA_NOTE if whitened else "",
            grid_note=GRID_NOTE if grid else "",
            train=_train(folder),
        )
    except (FileNotFoundError, NotADirectoryError):
        raise Refused("There is no synthetic set to download yet; wait for the run to finish.") from None
    except (ValueError, LookupError, TypeError, AttributeError, OSError):
        raise Refused("The synthetic set of this run cannot be read; distil it again.") from None
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        # A fixed date: the same set gives the same bytes.
        for name, content in {**parts, "README.txt": readme.encode()}.items():
            info = zipfile.ZipInfo(name)
            info.compress_type = zipfile.ZIP_DEFLATED
            info.external_attr = 0o644 << 16
            archive.writestr(info, content)
    return out.getvalue()


def _train(folder: Path) -> str:
    """The lines that train on the set, or why there are none."""
    try:
        code = snippet(about(folder, "synthetic.safetensors"))
    except Refused as refused:
        return str(refused)
    return TRAIN.format(code="".join(f"    {line}".rstrip() + "\n" for line in code.splitlines()))
