"""A Ray cluster of several nodes on this machine, each with a disk of its own as far as Limbeck can tell."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

OBJECTS = 80_000_000  # bytes of shared memory a node


@contextlib.contextmanager
def cluster(folder: Path, nodes: int) -> Iterator[tuple[Any, list[Any]]]:
    """A head without CPUs and ``nodes`` nodes of one core each; the cluster and its nodes."""
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    os.environ["RAY_worker_niceness"] = "0"  # at Ray's own 15, other tests on the same cores would starve the nodes
    from ray.cluster_utils import Cluster

    few: dict[str, Any] = {"include_dashboard": False, "object_store_memory": OBJECTS}
    made = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, **few})
    try:
        yield made, [add(made, folder / f"node{i}") for i in range(nodes)]
    finally:
        made.shutdown()


def add(made: Any, home: Path) -> Any:
    """One more node."""
    home.mkdir(parents=True)
    variables = {"LIMBECK_HOME": str(home)}
    return made.add_node(num_cpus=1, include_dashboard=False, object_store_memory=OBJECTS, env_vars=variables)
