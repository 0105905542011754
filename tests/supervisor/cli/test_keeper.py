"""A front's socket and token after its runtime folder has vanished."""

import asyncio
import shutil
import stat
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest
from aiohttp import web

from supervisor.cli import keeper
from supervisor.control import server
from supervisor.http.edge import run_token
from supervisor.runtime_dir import RuntimeDir


class Held:
    """A runtime folder with a served control socket."""

    def __init__(self, folder: Path) -> None:
        self.runtime = RuntimeDir.acquire(str(folder / "r"))
        self.runner: web.AppRunner

    async def serve(self) -> None:
        app = web.Application()
        app.router.add_get("/", self._answer)
        self.runner = await server.serve(app, self.runtime.control_socket)

    async def _answer(self, _request: web.Request) -> web.Response:
        return web.Response(text="here")

    def restore_token(self) -> None:
        if not self.runtime.admin_token.exists():
            run_token.write(self.runtime.admin_token, "token")

    async def ask(self) -> str:
        connector = aiohttp.UnixConnector(str(self.runtime.control_socket))
        async with (
            aiohttp.ClientSession(connector=connector) as session,
            session.get("http://front/") as response,
        ):
            return await response.text()

    def vanish(self) -> None:
        shutil.rmtree(self.runtime.path)

    async def look(self) -> None:
        await keeper.look(self.runtime, self.runner, self.restore_token)


@pytest.fixture
async def held(tmp_path: Path) -> AsyncIterator[Held]:
    held = Held(tmp_path)
    await held.serve()
    yield held
    await held.runner.cleanup()
    held.runtime.cleanup()


async def test_commands_reach_the_front_again(held: Held) -> None:
    held.vanish()
    await held.look()
    assert await held.ask() == "here"
    assert stat.S_IMODE(held.runtime.control_socket.stat().st_mode) == 0o600
    assert held.runtime.admin_token.read_text() == "token"
    assert len(held.runner.sites) == 1


async def test_a_socket_that_is_there_is_left_alone(held: Held) -> None:
    before = held.runtime.control_socket.stat().st_ino
    await held.look()
    assert held.runtime.control_socket.stat().st_ino == before


async def test_a_folder_that_another_front_has_is_left_alone(
    held: Held, caplog: pytest.LogCaptureFixture
) -> None:
    held.vanish()
    second = RuntimeDir.acquire(str(held.runtime.path))
    keeping = asyncio.create_task(
        keeper.keep(held.runtime, held.runner, held.restore_token, look_s=0.001)
    )
    async with asyncio.timeout(60):
        while "another front" not in caplog.text:  # noqa: ASYNC110 - a log has no event
            await asyncio.sleep(0)
    keeping.cancel()
    assert not second.control_socket.exists()
    second.cleanup()


async def test_a_folder_that_was_given_away_is_left_alone(held: Held) -> None:
    held.runtime.let_go()
    held.vanish()
    await held.look()
    assert not held.runtime.path.exists()
