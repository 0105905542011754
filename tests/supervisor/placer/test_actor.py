"""The name of a host that Ray runs."""

from pathlib import Path

import pytest

from supervisor.placer.actor import HostActor
from supervisor.worker_host.about import machine_name

DEPLOYMENT = "inference-workers-of-a-large-deployment-7c9f8d6b5d"


def test_hosts_on_pods_of_one_deployment_have_names_of_their_own(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    names = set()
    for pod in ("x2x7k", "q9zlm"):
        monkeypatch.setattr("socket.gethostname", lambda pod=pod: f"{DEPLOYMENT}-{pod}")
        for slot in (0, 1000, 1001):
            names.add(machine_name(HostActor("", f"gpufc-{'a' * 16}-{slot}")._name))
    assert len(names) == 6
