"""A Ray cluster of several nodes on this machine: `python -m tests.fakes.ray_cluster N [FOLDER]`.

Without FOLDER it has neither token nor durable storage. Prints its address, then obeys lines of
stdin: `kill node ID`, `kill machine PID`, `kill raylet PID` (of the node's raylet), `kill head`,
`start head`, `add node`. Each is answered with a line. The cluster ends with its stdin.
"""

import os
import signal
import sys
import threading
import time
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

OPEN = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_AUTH_MODE": "disabled",
    "RAY_worker_niceness": "0",
}


def main() -> None:
    n_nodes, *folder = int(sys.argv[1]), *sys.argv[2:]
    os.environ.update(SETTINGS | {"RAY_gcs_storage_path": folder[0]} if folder else OPEN)
    clusters = [_with_head()]
    cluster, address = clusters[0], clusters[0].address
    for _ in range(n_nodes):
        cluster.add_node(num_cpus=1)
    threading.Thread(target=_reap, args=(clusters,), daemon=True).start()
    print(address, flush=True)
    for line in sys.stdin:
        match line.split():
            case ["kill", "node", node]:
                (found,) = (one for one in cluster.worker_nodes if one.node_id == node)
                cluster.remove_node(found, allow_graceful=False)
            case ["kill", "machine", pid]:
                cluster.remove_node(_node_of(cluster, int(pid)), allow_graceful=False)
            case ["kill", "raylet", pid]:
                _node_of(cluster, int(pid)).kill_raylet(check_alive=False)
            case ["kill", "head"]:
                cluster.head_node.kill_gcs_server(check_alive=False)
            case ["start", "head"] if folder:
                cluster.head_node.start_gcs_server()
            case ["start", "head"]:  # it has forgotten its nodes, which end
                cluster.global_state.disconnect()  # or this process ends, too
                cluster = _with_head(gcs_server_port=int(address.rpartition(":")[2]))
                clusters.append(cluster)
            case ["add", "node"]:
                cluster.add_node(num_cpus=1)
        print("done", flush=True)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    for cluster in reversed(clusters):
        cluster.shutdown()


def _with_head(**arguments: int) -> Any:
    """A cluster without nodes."""
    from ray.cluster_utils import Cluster

    arguments |= {"num_cpus": 0, "include_dashboard": False}
    return Cluster(initialize_head=True, head_node_args=arguments)


def _reap(clusters: list[Any]) -> None:
    """Reap raylets that end. Ray's workers take a zombie for a living one, and go on."""
    while True:
        for node in [node for one in list(clusters) for node in list(one.worker_nodes)]:
            for raylet in node.all_processes.get("raylet", ()):
                raylet.process.poll()
        time.sleep(0.2)


def _node_of(cluster: Any, raylet: int) -> Any:
    """The node whose raylet this is."""
    return next(
        node
        for node in cluster.worker_nodes
        if node.all_processes["raylet"][0].process.pid == raylet
    )


if __name__ == "__main__":
    main()
