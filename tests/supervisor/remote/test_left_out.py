"""A front without a cluster pays nothing for it."""

import subprocess
import sys


def test_without_a_cluster_nothing_of_it_is_imported() -> None:
    code = (
        "import sys, supervisor.app, supervisor.control.server;"
        "print([n for n in sys.modules if n.startswith(('supervisor.remote',"
        " 'supervisor.cluster', 'supervisor.worker_host', 'supervisor.control.hosts'))])"
    )
    found = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    assert found.stdout.strip() == "[]"
