"""Messages that a worker must never send: garbage, oversize, duplicate, of another epoch.

A scripted engine sends them on the real link, so that tests see the front's answer.
"""

from collections.abc import Callable

from msgspec.structs import replace

from engine_worker.backend.fake.faults import Link
from engine_worker.channel import Channel
from gpufc import wire
from gpufc.errors import LinkError
from gpufc.ids import Epoch
from gpufc.protocol import MAX_MESSAGE_BYTES, Delta, FromWorker, Loading, Step

GARBAGE = b"\xc1 this is no message"
"""0xC1 is the only byte that msgpack never uses."""


class FakeChannel(Channel):
    """A channel that keeps its last message of the kinds that a worker repeats."""

    _latest: Step | Loading | None = None

    def send(self, message: FromWorker) -> None:
        if isinstance(message, Step | Loading):
            self._latest = message
        super().send(message)

    def misspeak(self, fault: str) -> None:
        """Send one of `vocabulary.MISSPEAKS`. From any thread, in order with `send`."""
        self.send_bytes(_WORDS[fault](self))

    def _repeatable(self) -> Step | Loading:
        if self._latest is None:
            raise LinkError("no message has been sent that could be repeated")
        return self._latest

    def _again(self) -> bytes:
        return wire.encode(self._repeatable())

    def _of_another_epoch(self) -> bytes:
        """Wrong tokens at the right position, which only the epoch gives away."""
        latest = self._repeatable()
        if isinstance(latest, Step):
            latest = replace(latest, deltas=tuple(map(_next, latest.deltas)))
        return wire.encode(replace(latest, epoch=Epoch(latest.epoch - 1)))


def _next(delta: Delta) -> Delta:
    return replace(delta, position=delta.position + len(delta.tokens), text="?" * 8)


_WORDS: dict[str, Callable[[FakeChannel], bytes]] = {
    "garbage": lambda _: GARBAGE,
    "oversize": lambda _: bytes(MAX_MESSAGE_BYTES + 1),
    "duplicate": FakeChannel._again,
    "old_epoch": FakeChannel._of_another_epoch,
}


def link_of(channel: Channel) -> Link:
    """A scripted engine's channel, which can send forbidden messages."""
    if not isinstance(channel, FakeChannel):
        raise TypeError("only a scripted engine's channel can misspeak")
    return channel
