"""The life of the connection to the control server: events in, actions out. Pure.

    off ─Started─▶ connecting ─Opened─▶ login ─LoginResult─▶ online
     ▲                 ▲                  │                    │
     │                 │ deadline         ▼                    │
     └──Stopped── waiting ◀──Closed── closing ◀────────────────┘

Time and dice are arguments. The old socket is fully closed (`Closed`) before the next `Connect`: a
second login under one id makes the server forget the first session.
"""

from collections import deque
from enum import StrEnum

from msgspec import Struct

from supervisor.fabric.messages import Command, LoginResult, PullModelResult

CONNECT_S = 20.0
LOGIN_S = 20.0
STATUS_EVERY_S = 240.0
"""The server forgets a machine's models after 300 s."""

ANSWER_S = 30.0
"""Each `ModelStatus` is answered. A server that does not answer in this time is gone."""

BEAT_EVERY_S = 120.0
BEAT_AGAIN_S = 10.0
"""After a heartbeat that could not be sent. A machine without heartbeats counts as offline."""

LEAST_WAIT_S, LONGEST_WAIT_S = 1.0, 60.0
TAKEN_WAIT_S = 5.0
"""The server needs a moment to see that the last session's connection is closed."""

TAKEN = "already registered"
UNKNOWN_ID = "invalid client"


class Phase(StrEnum):
    OFF = "off"
    CONNECTING = "connecting"
    LOGIN = "login"
    ONLINE = "online"
    CLOSING = "closing"
    WAITING = "waiting"


class Started(Struct, frozen=True):
    """The operator wants the machine in the network."""


class Stopped(Struct, frozen=True):
    """The operator wants the machine out of the network."""


class Opened(Struct, frozen=True):
    """The connection stands, TLS included."""


class Received(Struct, frozen=True):
    """A message that is no task."""

    message: Command


class Closed(Struct, frozen=True):
    """The socket is closed, whatever the reason. Comes once for each `Connect`."""

    reason: str


class ModelsChanged(Struct, frozen=True):
    """Other models are served than at the last `ModelStatus`."""


class BeatFailed(Struct, frozen=True):
    """The last heartbeat did not reach the server."""


class Ticked(Struct, frozen=True):
    """Time has passed, at least up to `Session.deadline`."""


Event = Started | Stopped | Opened | Received | Closed | ModelsChanged | BeatFailed | Ticked


class Connect(Struct, frozen=True):
    pass


class SendLogin(Struct, frozen=True):
    pass


class SendStatus(Struct, frozen=True):
    pass


class Beat(Struct, frozen=True):
    """Send a heartbeat, on a connection of its own."""


class Join(Struct, frozen=True):
    """The server may send tasks from now on, until the connection ends."""


class Close(Struct, frozen=True):
    """End the connection, its tasks first."""

    reason: str


class Ignore(Struct, frozen=True):
    """A message that belongs to no conversation of ours."""

    message: Command


Action = Connect | SendLogin | SendStatus | Beat | Join | Close | Ignore


class Session:
    """Invariant: there is a connection, between its `Connect` and its `Closed`, in every phase but
    `off` and `waiting`. Only `handle` changes anything.
    """

    def __init__(self) -> None:
        self.phase = Phase.OFF
        self.last_error = ""
        self._is_wanted = False
        self._attempts = 0
        self._least_wait_s = LEAST_WAIT_S
        self._until: float | None = None
        self._next_status = self._next_beat = 0.0
        self._answers_due: deque[float] = deque()

    @property
    def deadline(self) -> float | None:
        """When the next `Ticked` is due; None for never."""
        if self.phase is not Phase.ONLINE:
            return self._until
        return min(self._next_status, self._next_beat, *list(self._answers_due)[:1])

    @property
    def awaits_answer(self) -> bool:
        """Whether the server has a `ModelStatus` that it has not answered."""
        return self.phase is Phase.ONLINE and bool(self._answers_due)

    def handle(self, event: Event, now: float, dice: float) -> list[Action]:
        """What to do about an event. `dice` is random, at least 0 and below 1."""
        match event:
            case Started():
                self._is_wanted = True
                return self._connect(now) if self.phase is Phase.OFF else []
            case Stopped():
                return self._stop()
            case Opened() if self.phase is Phase.CONNECTING:
                self._enter(Phase.LOGIN, now + LOGIN_S)
                return [SendLogin()]
            case Received(message):
                return self._received(message, now)
            case Closed(reason):
                return self._closed(reason, now, dice)
            case ModelsChanged() if self.phase is Phase.ONLINE:
                return self._status(now)
            case BeatFailed() if self.phase is Phase.ONLINE:
                self._next_beat = min(self._next_beat, now + BEAT_AGAIN_S)
                return []
            case Ticked():
                return self._ticked(now)
            case Opened() | ModelsChanged() | BeatFailed():
                return []  # of a session that is over

    def _connect(self, now: float) -> list[Action]:
        self._enter(Phase.CONNECTING, now + CONNECT_S)
        self._least_wait_s = LEAST_WAIT_S
        return [Connect()]

    def _stop(self) -> list[Action]:
        self._is_wanted = False
        self._attempts = 0
        if self.phase is Phase.WAITING:
            self._enter(Phase.OFF, None)
        if self.phase in {Phase.OFF, Phase.CLOSING}:
            return []
        return self._close("leaving the network")

    def _received(self, message: Command, now: float) -> list[Action]:
        match message:
            case LoginResult(success=True) if self.phase is Phase.LOGIN:
                self._enter(Phase.ONLINE, None)
                self._answers_due.clear()
                self._next_beat = now + BEAT_EVERY_S
                return [Join(), *self._status(now), Beat()]
            case LoginResult(error=error) if self.phase is Phase.LOGIN:
                return self._refused(error or "the server gives no reason")
            case PullModelResult() if self.phase is Phase.ONLINE:
                self._attempts = 0  # only a server that answers is worth a quick return
                if self._answers_due:
                    self._answers_due.popleft()
                return []
            case _ if self.phase in {Phase.LOGIN, Phase.ONLINE}:
                return [Ignore(message)]
            case _:
                return []

    def _refused(self, reason: str) -> list[Action]:
        if TAKEN in reason.lower():
            self._least_wait_s = TAKEN_WAIT_S
        elif UNKNOWN_ID in reason.lower():
            self._least_wait_s = LONGEST_WAIT_S  # it stays so until an operator acts
        return self._close(f"login refused: {reason}")

    def _closed(self, reason: str, now: float, dice: float) -> list[Action]:
        if self.phase is not Phase.CLOSING:
            self.last_error = reason
        if not self._is_wanted:
            self._enter(Phase.OFF, None)
            return []
        self._attempts += 1
        most = min(LONGEST_WAIT_S, LEAST_WAIT_S * 2.0 ** min(self._attempts, 10))
        wait_s = max(self._least_wait_s, LEAST_WAIT_S + dice * (most - LEAST_WAIT_S))
        self._enter(Phase.WAITING, now + wait_s)
        return []

    def _ticked(self, now: float) -> list[Action]:
        if self.phase is Phase.ONLINE:
            return self._ticked_online(now)
        if self._until is None or now < self._until:
            return []
        if self.phase is Phase.WAITING:
            return self._connect(now)
        return self._close(f"no answer while {self.phase}")

    def _ticked_online(self, now: float) -> list[Action]:
        if self._answers_due and self._answers_due[0] <= now:
            return self._close("the server does not answer")
        actions: list[Action] = []
        if self._next_status <= now:
            actions += self._status(now)
        if self._next_beat <= now:
            self._next_beat = now + BEAT_EVERY_S
            actions.append(Beat())
        return actions

    def _status(self, now: float) -> list[Action]:
        self._next_status = now + STATUS_EVERY_S
        self._answers_due.append(now + ANSWER_S)
        return [SendStatus()]

    def _close(self, reason: str) -> list[Action]:
        self.last_error = reason
        self._enter(Phase.CLOSING, None)
        return [Close(reason)]

    def _enter(self, phase: Phase, until: float | None) -> None:
        self.phase, self._until = phase, until
