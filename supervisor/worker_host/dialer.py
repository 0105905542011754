"""Connects the host to its front, for ever, and tells the terminal how it goes."""

import asyncio
import contextlib
import logging
from collections.abc import Callable

import zmq
from msgspec import Struct

from gpufc.errors import ConfigError
from gpufc.ids import Epoch
from supervisor.cluster.join import Memory
from supervisor.cluster.keys import KeyPair
from supervisor.cluster.messages import ToHost
from supervisor.worker_host.backoff import Backoff
from supervisor.worker_host.host import WorkerHost
from supervisor.worker_host.uplink import LINGER_S, Ended, Listeners, Trouble, Uplink

logger = logging.getLogger(__name__)

ANSWER_S = 10.0
"""From the first packet to the answer to the hello."""


class Goal(Struct, frozen=True):
    """The front to reach: a ZeroMQ endpoint, its pinned key, and an invitation if there is one."""

    endpoint: str
    front_key: str
    invitation: KeyPair | None = None

    @property
    def address(self) -> str:
        return self.endpoint.removeprefix("tcp://")


class Dialer:
    """`run` holds one connection at a time."""

    def __init__(
        self,
        host: WorkerHost,
        context: "zmq.Context[zmq.Socket[bytes]]",
        goal: Goal,
        memory: Memory,
        say: Callable[[str], None],
    ) -> None:
        self._host = host
        self._context = context
        self._goal = goal
        self._memory = memory
        self._say = say
        self._said = ""
        self._backoff = Backoff()
        self._keys = self._own_keys()

    async def run(self) -> None:
        """Dial until the host has ended: its last messages leave before this returns."""
        self._tell(f"dialling the front at {self._goal.address}")
        while self._host.ending is None:
            ended = await self._attempt(self._keys[0])
            if self._host.ending is not None:
                return
            if ended.trouble is Trouble.KEY_REFUSED and len(self._keys) > 1:
                self._keys.append(self._keys.pop(0))
            self._explain(ended)
            await self._pause()

    def _own_keys(self) -> list[KeyPair]:
        """The host's own key first where the front knows it. A join whose answer was lost has used
        the invitation up, so the own key is tried in every case."""
        own, invitation = self._memory.content.own, self._goal.invitation
        if invitation is None:
            return [own]
        knows = self._memory.knows(self._goal.front_key)
        return [own, invitation] if knows else [invitation, own]

    async def _attempt(self, key: KeyPair) -> Ended:
        """One connection, from its first packet to its end."""
        ends: list[Ended] = []

        def end(ended: Ended) -> None:
            ends.append(ended)
            self._host.changed.set()

        listeners = Listeners(
            on_open=lambda: uplink.send(self._host.hello(self._memory.content.own.public)),
            on_control=self._take,
            on_frame=lambda epoch, data: self._host.take_frame(Epoch(epoch), data),
            on_end=end,
            on_full=self._host.pause,
        )
        try:
            uplink = Uplink(
                self._context, self._goal.endpoint, self._goal.front_key, key, listeners
            )
        except zmq.ZMQError as err:
            return Ended(Trouble.UNREACHABLE, err.strerror or str(err))
        self._host.connect(uplink)
        try:
            return await self._follow(ends)
        finally:
            uplink.close(LINGER_S if self._host.ending is not None else 0.0)
            self._host.disconnect()

    async def _follow(self, ends: list[Ended]) -> Ended:
        host = self._host
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(ANSWER_S):
                await host.until(lambda: ends or host.is_attached or host.refusal is not None)
        if ends:
            return ends[0]
        if host.refusal is not None:
            return Ended(Trouble.REFUSED, host.refusal.reason)
        if not host.is_attached:
            return Ended(Trouble.UNREACHABLE, "no answer")
        self._backoff.reset()
        self._joined()
        await host.until(lambda: ends or host.has_ended or host.is_lease_over)
        return ends[0] if ends else Ended(Trouble.CUT, "the front is silent")

    def _take(self, message: ToHost) -> None:
        self._host.take(message)

    def _joined(self) -> None:
        try:
            self._memory.joined(self._goal.address, self._goal.front_key)
        except ConfigError as err:
            self._say(f"warning: {err}; after a restart this host needs a new join file")
        self._keys = self._own_keys()
        self._tell(f"joined the front at {self._goal.address} as {self._host.name}")

    async def _pause(self) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._backoff.next_s(is_holding=self._host.n_workers > 0)):
                await self._host.until(lambda: self._host.ending is not None)

    def _explain(self, ended: Ended) -> None:
        address = self._goal.address
        match ended.trouble:
            case Trouble.UNREACHABLE:
                text = f"the front at {address} cannot be reached: {ended.detail}"
            case Trouble.NO_FRONT:
                text = f"{address}: {ended.detail}"
            case Trouble.KEY_REFUSED:
                text = (
                    f"the front at {address} does not know this host: the join file has been used, "
                    "its time is over, or the host was forgotten; "
                    "`gpufc-supervisor hosts invite FILE` makes another one there"
                )
            case Trouble.REFUSED:
                text = f"the front at {address} refused this host: {ended.detail}"
            case Trouble.CUT | Trouble.PROTOCOL:
                text = f"connection to {address} lost: {ended.detail}"
                if self._host.n_workers:
                    text += f"; {self._host.n_workers} workers end unless it is back in time"
        self._tell(f"{text}; trying again")

    def _tell(self, text: str) -> None:
        """Say something once, not at each attempt."""
        logger.info("%s", text)
        if text != self._said:
            self._said = text
            self._say(text)
