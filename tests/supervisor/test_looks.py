"""Looks that are repeated for as long as the front runs."""

import asyncio
import contextlib
import logging

import pytest

from supervisor.looks import repeat


async def test_a_look_that_fails_is_told_once_in_a_row_and_the_next_is_taken(
    caplog: pytest.LogCaptureFixture,
) -> None:
    outcomes = [OSError("disk"), OSError("disk"), None, OSError("disk"), ValueError("other"), None]
    over = asyncio.Event()

    async def look() -> None:
        if not outcomes:
            over.set()
        elif (error := outcomes.pop(0)) is not None:
            raise error

    with caplog.at_level(logging.ERROR):
        task = asyncio.create_task(repeat("example", look, 0.0))
        await over.wait()
    assert len(caplog.records) == 3
    assert all("example" in record.getMessage() for record in caplog.records)
    assert not task.done()
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task
