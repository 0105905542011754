"""One service over the scripted engine for all clients."""

from collections.abc import Iterator

import pytest

from tests.clients.table import Seen
from tests.integration.fake_service import FAKE
from tests.service import Service, service


@pytest.fixture(scope="session")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """With room for the prompts of agents, of which each byte is a token."""
    environ = FAKE | {"GPUFC_ALIASES": "claude-*", "GPUFC_FAKE_SCRIPT": "step_ms=1"}
    folder = tmp_path_factory.mktemp("clients") / "run"
    with service(folder, "--n-ctx", "200000", environ=environ) as started:
        yield started


@pytest.fixture(scope="session")
def seen() -> Iterator[Seen]:
    """The clients that were seen to work. They are written down at the end if
    `CLIENT_RESULTS` names a file."""
    found = Seen()
    yield found
    found.write()
