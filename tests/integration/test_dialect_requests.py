"""Requests in the forms that public clients send, to the scripted engine: `tests.clients.requests`.

The scripted engine keeps to constraints, so that demanded calls and schemas are checked, too.
"""

from collections.abc import Iterator

import pytest

from tests.clients.requests.every import ALL
from tests.clients.requests.sending import ask
from tests.integration.fake_service import FAKE
from tests.service import Service, service

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    environ = FAKE | {
        "GPUFC_ALIASES": "claude-*",
        "GPUFC_FAKE_SCRIPT": "step_ms=0",
        "GPUFC_N_CTX": "4096",
    }
    folder = tmp_path_factory.mktemp("requests") / "run"
    with service(folder, environ=environ) as started:
        yield started


@pytest.mark.parametrize("name", ALL)
async def test_a_client_s_request_gets_what_the_client_needs(running: Service, name: str) -> None:
    await ask(running.url, ALL[name])
