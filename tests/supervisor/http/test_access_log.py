"""The access log: each request once, with its times, and no more of it than wanted."""

import asyncio
import logging

import pytest
from msgspec import structs

from gpufc.config import Config, LogLevel, ServerConfig
from tests.supervisor.dispatch.fakes import until
from tests.supervisor.http.conftest import Service

LOGGER = "access"


async def started(**server: object) -> Service:
    made = Service(Config(server=structs.replace(ServerConfig(), **server)))
    await made.start()
    return made


def lines(caplog: pytest.LogCaptureFixture, event: str) -> list[logging.LogRecord]:
    found = [record for record in caplog.records if record.name == LOGGER]
    return [record for record in found if record.getMessage().startswith(event)]


async def test_a_request_is_one_line_without_query_and_headers(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(LogLevel.INFO.upper(), LOGGER)
    service = await started()
    try:
        headers = {"Authorization": "Bearer sesame"}
        async with service.http.get("/livez?token=sesame", headers=headers) as response:
            request_id = response.headers["X-Request-Id"]
    finally:
        await service.stop()
    (line,) = lines(caplog, "request_answered")
    assert f"request={request_id} " in line.getMessage()
    assert "route=GET /livez status=200 seconds=0." in line.getMessage()
    assert "sesame" not in caplog.text


async def test_a_generation_tells_its_tokens_and_times_and_not_its_prompt(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(LogLevel.INFO.upper(), LOGGER)
    service = await started()
    try:
        service.fleet.start_worker()
        await service.post("/v1/completions", {"prompt": "open sesame", "max_tokens": 2})
    finally:
        await service.stop()
    (line,) = lines(caplog, "request_answered")
    for field in ("model=", "queue_s=0.", "prompt_s=0.", "generated_tokens=", "replays=0"):
        assert f" {field}" in line.getMessage()
    assert "sesame" not in caplog.text
    assert line.levelno == logging.INFO


async def test_prompts_are_logged_only_when_the_operator_wants_them(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(LogLevel.INFO.upper(), LOGGER)
    service = await started(log_prompts=True, access_log=False)
    try:
        answer = asyncio.create_task(
            service.post("/v1/completions", {"prompt": "open sesame", "max_tokens": 2})
        )
        await until(lambda: lines(caplog, "request_prompt"))
        answer.cancel()
    finally:
        await service.stop()
    (line,) = lines(caplog, "request_prompt")
    assert "open sesame" in line.getMessage()
    assert lines(caplog, "request_answered") == []
