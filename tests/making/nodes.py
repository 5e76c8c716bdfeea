"""A Ray cluster of this machine: nodes of one processor each, which can be lost."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


class Nodes:
    """A running cluster; `address` to reach it."""

    def __init__(self, cluster: Any) -> None:
        self._cluster, self.address = cluster, str(cluster.address)
        self.workers: list[Any] = []

    def add(self) -> Any:
        self.workers.append(self._cluster.add_node(num_cpus=1))
        self._cluster.wait_for_nodes()
        return self.workers[-1]

    def lose(self) -> None:
        """Kill the node that was added first, as a machine goes down."""
        self._cluster.remove_node(self.workers.pop(0), allow_graceful=False)


@contextmanager
def nodes(n: int) -> Iterator[Nodes]:
    """Give a cluster of n nodes beside the head, which does no work."""
    import ray
    from ray.cluster_utils import Cluster

    with warnings.catch_warnings(action="ignore"):
        cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0})
        try:
            made = Nodes(cluster)
            for _ in range(n):
                made.add()
            yield made
        finally:
            ray.shutdown()
            cluster.shutdown()
