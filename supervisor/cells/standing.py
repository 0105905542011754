"""Whether a front may write its log, as the store's answers tell. Pure.

                 NoAnswer            Looked, for longer than `pause_s`
        OWNER ─────────────▶ WAITING ───────────────────────────────▶ ALONE
          ▲ ▲─── Stored ────────┘ │                                     │
          └───── Stored ──────────┼─────────────────────────────────────┘
                                  │ Refused, at any time
                                  ▼
                               FENCED, for ever: another front owns the requests

Events go in by `Standing.handle`, actions come out.
"""

from enum import StrEnum

from msgspec import Struct


class State(StrEnum):
    OWNER = "owner"
    WAITING = "waiting"
    """The store does not answer; clients wait."""
    ALONE = "alone"
    """The store does not answer; requests go on in this front only."""
    FENCED = "fenced"


class Stored(Struct, frozen=True):
    """The store has a record."""


class NoAnswer(Struct, frozen=True):
    """The store has not taken a record."""

    at: float


class Looked(Struct, frozen=True):
    """Time has passed."""

    at: float


class Refused(Struct, frozen=True):
    """The log has a record of another front."""


Event = Stored | NoAnswer | Looked | Refused


class GoAlone(Struct, frozen=True):
    """Give clients all text, under ids that only this front knows."""


class Rejoin(Struct, frozen=True):
    """Withhold text again until the store has it."""


class GiveUp(Struct, frozen=True):
    """The requests are another front's. Go on alone for clients that are here; end the others."""


Action = GoAlone | Rejoin | GiveUp


class Standing:
    """One run's."""

    def __init__(self, pause_s: float) -> None:
        self.state = State.OWNER
        self._pause_s = pause_s
        self._silent_since = 0.0

    def handle(self, event: Event) -> Action | None:
        """The one thing to do, if there is any."""
        state = self.state
        match event:
            case _ if state is State.FENCED:
                return None
            case Refused():
                self.state = State.FENCED
                return GiveUp()
            case Stored():
                self.state = State.OWNER
                return Rejoin() if state is State.ALONE else None
            case NoAnswer(at):
                if state is State.OWNER:
                    self.state, self._silent_since = State.WAITING, at
                return self._waited(at)
            case Looked(at):
                return self._waited(at)
        return None

    def _waited(self, now: float) -> Action | None:
        if self.state is State.WAITING and now - self._silent_since >= self._pause_s:
            self.state = State.ALONE
            return GoAlone()
        return None
