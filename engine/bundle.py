"""A synthetic set as one file to take away (torch-free: the server's download route makes it)."""

from __future__ import annotations

import io
import json
import zipfile
from pathlib import Path
from typing import Any

from engine.errors import Refused

PARTS = ("synthetic.safetensors", "synthetic.json")
PAPERS = "papers.pt"  # worth having along; sets that were never a run's result have none

README = """A synthetic training set: {title}

synthetic.safetensors  the tensors: images (N, C, H, W) float32, labels (N,) whole numbers or (N, K) float32
synthetic.json         classes, mean and std of the channels, kind, protocol, and where the set came from
{papers}
The images are in the space a network is trained in: (pixels in [0, 1] - mean) / std{zca_note}. Prepare test images the
same way.{grid_note} To train on it:

    import json, torch
    from safetensors.torch import load_file
    set, about = load_file("synthetic.safetensors"), json.load(open("synthetic.json"))
    images, labels = set["images"], set["labels"]{grid_code}
    net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.LazyLinear(len(about["classes"])))  # or a network of yours
    opt = torch.optim.SGD(net.parameters(), lr=0.01, momentum=0.9, weight_decay=5e-4)
    for epoch in range(300):
        opt.zero_grad()
        {loss}
        opt.step()
{course}{zca_code}"""

PAPERS_NOTE = """papers.pt              the tuple (images, labels) as the papers' code reads it{unwhitened}
"""
GRID_NOTE = " Each image is\na grid of smaller pictures, which are cut out and enlarged first."
GRID_CODE = """
    side, factor = images.shape[-1], about["factor"]
    edges = [round(i * side / factor) for i in range(factor + 1)]
    cuts = [slice(*ends) for ends in zip(edges, edges[1:])]
    parts = [images[:, :, rows, columns] for rows in cuts for columns in cuts]
    parts = [torch.nn.functional.interpolate(part, (side, side), mode="bilinear") for part in parts]
    images, labels = torch.stack(parts, 1).flatten(0, 1), labels.repeat_interleave(factor**2, 0)"""
ZCA_NOTE = ",\nthen whitened by the regularised ZCA transform kept beside them (zca.*)"
ZCA_CODE = """
Whitening of normalised test images x (N, C, H, W):

    flat = x.flatten(1) - set["zca.centre"]
    U, gains, base = set["zca.components"], set["zca.gains"], about["zca_base"]
    x = (base * flat + (flat @ U * gains) @ U.T).view(x.shape)
"""
COURSE = """
But these images were made for {count} steps of plain gradient descent and give an ordinary optimiser little. The steps
begin at {start}:

    for t, size in enumerate(set["step_sizes"]):
        seen = slice(t % about["turns"], None, about["turns"])
        loss = torch.nn.functional.cross_entropy(net(images[seen]), labels[seen])
        slopes = torch.autograd.grad(loss, list(net.parameters()))
        with torch.no_grad():
            for weight, slope in zip(net.parameters(), slopes):
                weight -= size * slope
"""
STARTS = {
    "fixed": "the weights start.* of one {network}, and at no others",
    "random": "any {network} with Xavier-normal weights and zero biases",
    "random-pretrained": "any {network} that has learned {source} for {source_steps} steps",
}
HARD = "torch.nn.functional.cross_entropy(net(images), labels).backward()"
SOFT = "(torch.nn.functional.mse_loss(net(images), labels) / 2).backward()  # learned labels: squared error"


def export_zip(folder: Path) -> bytes:
    """A zip of the set saved in ``folder``: its tensors, its json, and a README that says how to train on it.

    ``papers.pt``, where it lies beside them, comes along. Raises ``Refused`` when there is no set.
    """
    try:
        parts = {name: (folder / name).read_bytes() for name in PARTS}
        meta = json.loads(parts["synthetic.json"])
        size = int.from_bytes(parts["synthetic.safetensors"][:8], "little")
        header = json.loads(parts["synthetic.safetensors"][8 : 8 + size])
        count, soft = header["images"]["shape"][0], len(header["labels"]["shape"]) == 2
        whitened, dataset = "zca_base" in meta, meta.get("dataset", "a dataset")
        grid = meta.get("factor", 1) != 1
        course = _course(meta["start"], header["step_sizes"]["shape"][0]) if "start" in meta else ""
        if (folder / PAPERS).is_file():
            parts[PAPERS] = (folder / PAPERS).read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        raise Refused("There is no synthetic set to download yet; wait for the run to finish.") from None
    except (ValueError, LookupError, TypeError, AttributeError, OSError):
        raise Refused("The synthetic set of this run cannot be read; distil it again.") from None
    unwhitened = (", not whitened" if whitened else "") + (", enlarged" if grid else "")
    readme = README.format(
        title=f"{count} images that stand for {dataset}.",
        papers=PAPERS_NOTE.format(unwhitened=unwhitened) if PAPERS in parts else "",
        zca_note=ZCA_NOTE if whitened else "",
        zca_code=ZCA_CODE if whitened else "",
        grid_note=GRID_NOTE if grid else "",
        grid_code=GRID_CODE if grid else "",
        loss=SOFT if soft else HARD,
        course=course,
    )
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        # A fixed date: the same set gives the same bytes.
        for name, content in {**parts, "README.txt": readme.encode()}.items():
            info = zipfile.ZipInfo(name)
            info.compress_type = zipfile.ZIP_DEFLATED
            info.external_attr = 0o644 << 16
            archive.writestr(info, content)
    return out.getvalue()


def _course(start: dict[str, Any], count: int) -> str:
    """How to follow the steps that a set was made for."""
    kind = "fixed" if start["initial"].startswith("fixed") else start["initial"]
    return COURSE.format(count=count, start=STARTS[kind].format(**start))
