"""A store in memory, shared by the fronts of a test, each by a connection that can fail."""

import asyncio
from collections.abc import Callable

from supervisor.cells.port import Away, Refused


class Server:
    """The messages, as JetStream would keep them. It knows of none behind `known`, if that is set:
    a new leader that has yet to read its own log."""

    def __init__(self) -> None:
        self.messages: list[tuple[int, str, bytes]] = []
        self.last = 0
        self.known: int | None = None
        self.listeners: list[Connection] = []

    def of(self, subject: str) -> list[tuple[int, bytes]]:
        last = self.last if self.known is None else self.known
        return [(no, data) for no, name, data in self.messages if name == subject and no <= last]

    def append(self, subject: str, data: bytes, expected: int) -> int:
        there = self.of(subject)
        if (there[-1][0] if there else 0) != expected:
            raise Refused("wrong last sequence")
        self.last += 1
        self.messages.append((self.last, subject, data))
        return self.last


class Connection:
    """Implements `Store`. `lose_answers` more appends are stored without an answer."""

    def __init__(self, server: Server, most_bytes: int = 1 << 20) -> None:
        self.server = server
        self.is_connected = True
        self.most_bytes = most_bytes
        self.lose_answers = 0
        self.n_appends = 0
        self._heard: Callable[[bytes], None] = lambda _data: None

    def cut(self) -> None:
        self.is_connected = False

    def mend(self) -> None:
        self.is_connected = True

    async def _reach(self) -> None:
        await asyncio.sleep(0)
        if not self.is_connected:
            raise Away("cut")

    async def append(self, subject: str, data: bytes, expected: int) -> int:
        await self._reach()
        number = self.server.append(subject, data, expected)
        self.n_appends += 1
        if self.lose_answers:
            self.lose_answers -= 1
            raise Away("no answer")
        return number

    async def read(self, subject: str, after: int = 0) -> list[tuple[int, bytes]]:
        await self._reach()
        return [(no, data) for no, data in self.server.of(subject) if no > after]

    async def purge(self, subject: str, before: int | None = None) -> None:
        await self._reach()
        self.server.messages = [
            (no, name, data)
            for no, name, data in self.server.messages
            if name != subject or (before is not None and no >= before)
        ]

    async def runs(self) -> list[str]:
        await self._reach()
        names = {name for _, name, _ in self.server.messages}
        return [name.removeprefix("log.") for name in names if name.startswith("log.")]

    def beat(self, data: bytes) -> None:
        if self.is_connected:
            for other in self.server.listeners:
                if other.is_connected:
                    other._heard(data)

    def listen(self, heard: Callable[[bytes], None]) -> None:
        self._heard = heard
        self.server.listeners.append(self)

    def start(self) -> None:
        pass

    async def close(self) -> None:
        self.cut()
