"""A front that does not read holds workers up, not the host, and loses no frame."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import zmq

from gpufc.ids import Epoch
from supervisor.cluster import wire
from supervisor.cluster.book import HostBook
from supervisor.cluster.listener import HostListener
from supervisor.cluster.messages import ToHost, Welcome
from supervisor.worker_host import uplink as uplink_module
from supervisor.worker_host.uplink import Ended, Listeners, Trouble, Uplink
from tests.supervisor.cluster.hosts import Recorder, hello

PAYLOAD = bytes(64 * 1024)


class Bench:
    """A listener, and an uplink that joins it."""

    def __init__(self, folder: Path) -> None:
        self.context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self.hosts = Recorder()
        self.book = HostBook(folder / "hosts.json")
        self.listener = HostListener(self.book, self.hosts, "tcp://127.0.0.1:0")
        self.heard: list[ToHost] = []
        self.full: list[bool] = []
        self.ends: list[Ended] = []
        own = self.book.invite()
        self.uplink = Uplink(
            self.context,
            self.listener.endpoint,
            self.book.front.public,
            own,
            Listeners(
                on_open=lambda: self.uplink.send(hello("ab" * 32)),
                on_control=self._take,
                on_frame=lambda epoch, data: None,
                on_end=self._end,
                on_full=self._fill,
            ),
        )

    def _take(self, message: ToHost) -> None:
        self.heard.append(message)
        self.hosts.wake()

    def _end(self, ended: Ended) -> None:
        self.ends.append(ended)
        self.hosts.wake()

    def _fill(self, full: bool) -> None:
        self.full.append(full)
        self.hosts.wake()

    async def joined(self) -> None:
        await self.hosts.until(lambda: self.heard)
        assert isinstance(self.heard[0], Welcome)

    def close(self) -> None:
        self.uplink.close()
        self.listener.close()
        self.context.term()


@pytest.fixture
async def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Bench]:
    monkeypatch.setattr(uplink_module, "SEND_LIMIT", 10)
    bench = Bench(tmp_path)
    yield bench
    bench.close()


async def test_a_front_that_does_not_read_fills_the_uplink_and_gets_everything_later(
    bench: Bench,
) -> None:
    await bench.joined()
    bench.hosts.listen(7)
    bench.listener._reader.pause()
    sent = 0
    while not bench.full:
        bench.uplink.send_raw(wire.relayed(Epoch(7), sent.to_bytes(4) + PAYLOAD))
        sent += 1
        await asyncio.sleep(0)
    assert bench.uplink.is_full
    bench.uplink.send_raw(wire.relayed(Epoch(7), sent.to_bytes(4)))  # such as a last frame
    bench.listener._reader.resume()
    await bench.hosts.until(lambda: len(bench.hosts.frames[Epoch(7)]) == sent + 1)
    numbers = [int.from_bytes(frame[:4]) for frame in bench.hosts.frames[Epoch(7)]]
    assert numbers == list(range(sent + 1))
    await bench.hosts.until(lambda: bench.full[-1] is False)
    assert bench.full == [True, False]
    assert bench.hosts.losses == []


async def test_a_cut_is_told_once_and_nothing_after_it(bench: Bench) -> None:
    await bench.joined()
    bench.hosts.channel.cut("test")
    await bench.hosts.until(lambda: bench.ends)
    bench.uplink.send_raw(wire.relayed(Epoch(7), b"late"))
    assert [ended.trouble for ended in bench.ends] == [Trouble.CUT]


async def test_garbage_from_the_front_ends_the_connection(bench: Bench) -> None:
    await bench.joined()
    channel = bench.listener.channels[0]
    bench.listener.transmit(channel, bytes(8) + b"\xc1")
    await bench.hosts.until(lambda: bench.ends)
    assert bench.ends[0].trouble is Trouble.PROTOCOL
