"""A Ray cluster of several nodes on this machine: `python -m tests.fakes.ray_cluster N [FOLDER]`.

Without FOLDER it has neither token nor durable storage. Prints its address, then obeys lines of
stdin: `kill node ID`, `kill machine PID`, `kill raylet PID` (of the node's raylet), `kill head`,
`start head`. Each is answered with a line. The cluster ends with its stdin.
"""

import os
import signal
import sys
from typing import Any

TOKEN = "0" * 64
"""Any text: the cluster is reached from this machine only."""

SETTINGS = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_AUTH_MODE": "token",
    "RAY_AUTH_TOKEN": TOKEN,
    "RAY_gcs_storage": "rocksdb",
    "RAY_gcs_rpc_server_reconnect_timeout_s": "600",
    "RAY_process_group_cleanup_enabled": "1",
    "RAY_worker_niceness": "0",
}

OPEN = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_AUTH_MODE": "disabled"}


def main() -> None:
    n_nodes, *folder = int(sys.argv[1]), *sys.argv[2:]
    os.environ.update(SETTINGS | {"RAY_gcs_storage_path": folder[0]} if folder else OPEN)
    from ray.cluster_utils import Cluster

    cluster = Cluster(
        initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False}
    )
    for _ in range(n_nodes):
        cluster.add_node(num_cpus=1)
    print(cluster.address, flush=True)
    for line in sys.stdin:
        match line.split():
            case ["kill", "node", node]:
                (found,) = (one for one in cluster.worker_nodes if one.node_id == node)
                cluster.remove_node(found, allow_graceful=False)
            case ["kill", "machine", pid]:
                cluster.remove_node(_node_of(cluster, int(pid)), allow_graceful=False)
            case ["kill", "raylet", pid]:  # and reap it: Ray takes a zombie for a living one
                _node_of(cluster, int(pid)).kill_raylet(check_alive=False)
            case ["kill", "head"]:
                cluster.head_node.kill_gcs_server(check_alive=False)
            case ["start", "head"]:
                cluster.head_node.start_gcs_server()
        print("done", flush=True)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    cluster.shutdown()


def _node_of(cluster: Any, raylet: int) -> Any:
    """The node whose raylet this is."""
    return next(
        node
        for node in cluster.worker_nodes
        if node.all_processes["raylet"][0].process.pid == raylet
    )


if __name__ == "__main__":
    main()
