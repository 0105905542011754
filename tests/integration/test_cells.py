"""Durable requests of several fronts: one is killed, cut off or stopped, and the text is whole."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cells import Nats, Reader, front, nats_server, needs_nats
from tests.integration.fake_service import fake_text

pytestmark = [pytest.mark.slow, needs_nats]

N_TOKENS = 300


@pytest.fixture
def nats(tmp_path: Path) -> Iterator[Nats]:
    with nats_server(tmp_path / "nats") as started:
        yield started


async def test_a_request_goes_on_in_another_front(nats: Nats, tmp_path: Path) -> None:
    with front(tmp_path, "a", nats.address) as a, front(tmp_path, "b", nats.address) as b:
        reader = Reader("hello", N_TOKENS)
        url = b.url
        await reader.read(a.url, 20)
        assert reader.answer_headers["x-gpufc-durable"] == "replicated"
        a.process.kill()
        while not reader.done:
            await reader.read(url)
            assert reader.status == 200, reader.refusal
        assert reader.text == fake_text("hello", N_TOKENS)
