"""A control server on a real unix socket, in an event loop of a thread of its own."""

import asyncio
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from supervisor.control.network import add_network
from supervisor.control.server import create_control_app, serve
from tests.supervisor.control.fake_front import FakeFront

Server = tuple[FakeFront, Path, Callable[[], None]]


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    """The front, its socket, and how to end it."""
    front, path = FakeFront(), tmp_path / "control.sock"
    started, loop = threading.Event(), asyncio.new_event_loop()
    ending = asyncio.Event()

    async def main() -> None:
        app = create_control_app(front, front)
        add_network(app, front)
        runner = await serve(app, path)
        started.set()
        await ending.wait()
        await runner.cleanup()

    def run() -> None:
        with asyncio.Runner(loop_factory=lambda: loop) as runner:
            runner.run(main())

    thread = threading.Thread(target=run)
    thread.start()
    assert started.wait(60)

    def end() -> None:
        with suppress(RuntimeError):  # it has ended already, and its loop is closed
            loop.call_soon_threadsafe(ending.set)
        thread.join(60)

    yield front, path, end
    end()
