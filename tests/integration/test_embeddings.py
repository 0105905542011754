"""Embeddings and rankings of real processes over the scripted engine, which dies meanwhile."""

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import aiohttp
import numpy as np
import pytest

from engine_worker.backend.fake.embedder import expected_vector
from engine_worker.backend.fake.vocabulary import tokenize
from tests.integration.fake_service import FAKE, complete, fake_text, joined, stream
from tests.service import Gains, Service, service


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    folder = tmp_path_factory.mktemp("embeds") / "run"
    with service(folder, environ=FAKE | {"GPUFC_FAKE_SCRIPT": "step_ms=2"}) as started:
        yield started


@pytest.fixture
def running(shared: Service) -> Service:
    """The one service of this module, with nothing to do and a worker ready."""
    shared.wait_idle()
    return shared


async def embed(
    session: aiohttp.ClientSession, running: Service, given: Any, **fields: Any
) -> tuple[int, dict[str, Any]]:
    body = {"input": given, **fields}
    async with session.post(f"{running.url}/v1/embeddings", json=body) as response:
        return response.status, await response.json()


def require_right(answer: tuple[int, dict[str, Any]], texts: list[str]) -> None:
    status, found = answer
    assert status == 200, found
    expected = [expected_vector(tokenize(text, add_special=True)) for text in texts]
    assert np.array([one["embedding"] for one in found["data"]]) == pytest.approx(
        np.array(expected), abs=1e-6
    )


@pytest.mark.parametrize("fault", ["kill", "segv", "decode_error"])
async def test_embeddings_and_streams_outlive_a_death_that_an_input_causes(
    running: Service, fault: str, tmp_path: Path
) -> None:
    once = tmp_path / "done"
    texts = [f"text {n}" for n in range(100)]
    texts[70] = f"[[{fault}@-1 once={once}]]"
    epoch, gains = running.worker()["epoch"], Gains(running)
    async with aiohttp.ClientSession() as session:
        streamed, answer = await asyncio.gather(
            stream(session, running.url, "bystander", max_tokens=60),
            embed(session, running, texts),
        )
    assert once.exists()
    assert running.worker()["epoch"] > epoch
    assert joined(streamed) == fake_text("bystander", 60)
    require_right(answer, texts)
    assert gains.of("requests", "failed_total") == (0,)


async def test_an_input_that_kills_workers_is_refused_and_the_others_are_answered(
    running: Service,
) -> None:
    async with aiohttp.ClientSession() as session:
        poisoned, good, streamed = await asyncio.gather(
            embed(session, running, ["a", "[[segv@-1]]"]),
            embed(session, running, ["good"]),
            stream(session, running.url, "bystander", max_tokens=60),
        )
        again = await embed(session, running, ["a", "[[segv@-1]]"])
    for status, found in (poisoned, again):
        assert (status, found["error"]["code"]) == (500, "engine_crash_suspect")
    require_right(good, ["good"])
    assert joined(streamed) == fake_text("bystander", 60)


@pytest.mark.parametrize("kind", ["embeds", pytest.param("ranks", marks=pytest.mark.slow)])
async def test_a_model_that_generates_nothing_is_served_as_such(kind: str, tmp_path: Path) -> None:
    script = FAKE | {"GPUFC_FAKE_SCRIPT": f"{kind}=1"}
    with service(tmp_path / "run", environ=script) as only:
        async with aiohttp.ClientSession() as session:
            status, refused, _ = await complete(session, only.url, "hello")
            assert status == 400
            assert refused["error"]["message"].startswith("This model only")
            embedded = await embed(session, only, ["text"])
            ranking = {"query": "q", "documents": ["a", "b"]}
            async with session.post(f"{only.url}/v1/rerank", json=ranking) as response:
                ranked = response.status, await response.json()
        if kind == "embeds":
            require_right(embedded, ["text"])
            assert ranked[0] == 400
        else:
            assert embedded[0] == 400
            assert ranked[0] == 200
            assert {one["index"] for one in ranked[1]["results"]} == {0, 1}
