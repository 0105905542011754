"""A front over a fake fleet, in the network of a stand-in control server."""

import contextlib
import ssl
from collections.abc import AsyncIterator
from typing import Any

import pytest
import trustme

from gpufc.config import AdmissionConfig, Config, FabricConfig, FleetConfig
from supervisor.fabric.client import NetworkClient
from supervisor.http.edge.context import SERVICES
from tests.fakes.control_server import CLIENT_ID, ControlServer, control_server
from tests.supervisor.http.conftest import Service

NAME = "control.example"


class Certificates:
    """A certificate authority and the TLS of a server that it vouches for."""

    def __init__(self) -> None:
        self.authority = trustme.CA()
        self.leaf = self.authority.issue_cert(NAME, "localhost", "127.0.0.1")
        self.tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.leaf.configure_cert(self.tls)


@pytest.fixture(scope="session")
def certificates() -> Certificates:
    return Certificates()


@pytest.fixture(scope="session")
def ca_file(certificates: Certificates, tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("ca") / "ca.pem"
    certificates.authority.cert_pem.write_to_path(str(path))
    return str(path)


def fabric(server: ControlServer, **fields: Any) -> FabricConfig:
    given = {
        "server_addr": "127.0.0.1",
        "control_port": server.port,
        "proxy_port": server.proxy_port or 1,
        "client_id": CLIENT_ID.hex(),
    }
    return FabricConfig(**(given | fields))


class Machine:
    """A front that listens, and its network client. `worker` answers."""

    def __init__(self, service: Service, client: NetworkClient) -> None:
        self.service = service
        self.client = client
        self.worker = service.fleet.start_worker()


@contextlib.asynccontextmanager
async def machine(
    server: ControlServer,
    *,
    slots: int = 4,
    fleet: FleetConfig | None = None,
    **fields: Any,
) -> AsyncIterator[Machine]:
    """A machine that wants to join. It waits next to nothing before it tries again."""
    admission = AdmissionConfig(max_concurrent_requests=slots)
    config = Config(
        admission=admission,
        fabric=fabric(server, **fields),
        fleet=fleet or FleetConfig(),
    )
    service = Service(config)
    await service.start()
    client = NetworkClient(config, service.app[SERVICES], service.runner, dice=lambda: 0.0)
    try:
        made = Machine(service, client)
        client.start()
        yield made
    finally:
        await client.stop()
        await service.stop()


@pytest.fixture
async def server() -> AsyncIterator[ControlServer]:
    async with control_server() as started:
        yield started


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Waits of the session that are too short for people."""
    monkeypatch.setattr("supervisor.fabric.session.LEAST_WAIT_S", 0.01)
    monkeypatch.setattr("supervisor.fabric.session.TAKEN_WAIT_S", 0.01)
