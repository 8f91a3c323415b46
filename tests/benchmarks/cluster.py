"""How long a sweep of twelve small runs takes on one node of a Ray cluster, and on two.

    python tests/benchmarks/cluster.py [--rounds N] [--steps N] [--json FILE]

The nodes are processes of this machine with one core each, so it must have two and nothing else to do. One and two
nodes take turns. The time is from the first run queued to the last one done, with the program loaded on every node, as
it is from the second sweep on. What came back from the nodes, in bytes a run, is measured too, and what the head spent
on it: seconds of a core in the driver's process.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from engine import cluster as ours  # noqa: E402
from engine.runs.executor import LocalExecutor  # noqa: E402
from engine.runs.store import Store  # noqa: E402
from engine.spec import build_spec  # noqa: E402
from tests.cluster.nodes import cluster  # noqa: E402

SWEEP = [{"ipc": ipc, "lr_img": rate, "seed": seed} for ipc in (1, 2) for rate in (0.5, 1.0) for seed in (0, 1, 2)]


def sweep(store: Store, steps: int) -> tuple[float, int]:
    """Seconds that the twelve runs take, and the bytes they leave."""
    shared = {"dataset": "digits", "method": "dm", "steps": steps, "students": 0, "width": 32, "depth": 2}
    began = time.perf_counter()
    ids = [store.submit("distill", build_spec("distill", **shared, **cell)) for cell in SWEEP]
    while not all(store.run(id).status == "done" for id in ids):
        assert not [r.message for r in store.runs(statuses=("failed", "interrupted"))]
        time.sleep(0.05)
    took = time.perf_counter() - began
    return took, sum(f.stat().st_size for id in ids for f in store.folder(id).rglob("*") if f.is_file())


def measure(nodes: int, steps: int) -> dict[str, float]:
    with tempfile.TemporaryDirectory() as folder, cluster(Path(folder), nodes) as (made, _):
        os.environ["LIMBECK_RAY"] = made.address
        os.environ["LIMBECK_HOME"] = f"{folder}/head"
        os.environ["LIMBECK_COMPILE"] = "0"
        store = Store()
        executor = LocalExecutor(store, slots=1, module=ours.runs_module())
        executor.start()
        try:
            sweep(store, 1)
            before = spent()
            seconds, size = sweep(store, steps)
            head = spent() - before
        finally:
            executor.shutdown()
    figures = {"seconds": round(seconds, 2), "bytes_per_run": round(size / len(SWEEP)), "head": round(head, 2)}
    return {"nodes": nodes, **figures}


def spent() -> float:
    """Seconds of a core that the driver has used."""
    ours = [Path(f"/proc/{p}/stat") for p in Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()]
    stats = [
        s.read_text().rsplit(")")[-1].split()
        for s in ours
        if b"engine.cluster.runs" in s.with_name("cmdline").read_bytes()
    ]
    return sum(int(fields[11]) + int(fields[12]) for fields in stats) / os.sysconf("SC_CLK_TCK")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    rows = []
    for _ in range(args.rounds):
        for nodes in (1, 2):
            rows.append(measure(nodes, args.steps))
            print(rows[-1], flush=True)
    one, two = ([r["seconds"] for r in rows if r["nodes"] == n] for n in (1, 2))
    ratios = [b / a for a, b in zip(one, two, strict=True)]
    print(f"two nodes take {min(ratios):.0%} to {max(ratios):.0%} of the time of one")
    if args.json:
        args.json.write_text(json.dumps({"rows": rows, "ratios": ratios}, indent=1))


if __name__ == "__main__":
    main()
