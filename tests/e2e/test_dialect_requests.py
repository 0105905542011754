"""Requests in the forms that public clients send, to the demo model: `tests.clients.requests`."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.clients.requests.every import ALL
from tests.clients.requests.request import is_refused
from tests.clients.requests.sending import ask
from tests.service import Service, service

pytestmark = [pytest.mark.model, pytest.mark.slow]


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory, model_path: Path) -> Iterator[Service]:
    folder = tmp_path_factory.mktemp("requests") / "run"
    arguments = ("--model-path", str(model_path), "--n-ctx", "2048")
    with service(folder, *arguments, environ={"GPUFC_ALIASES": "claude-*"}) as started:
        yield started


@pytest.mark.parametrize("name", ALL)
async def test_a_client_s_request_gets_what_the_client_needs(running: Service, name: str) -> None:
    request, body = ALL[name], ALL[name].body
    gap = "input_suffix" if request.path == "/infill" else "suffix"
    if isinstance(body, dict) and (request.path == "/infill" or body.get("suffix")):
        # the demo model has no tokens for it
        request = request._replace(status=400, needs=is_refused(gap))
    await ask(running.url, request)
