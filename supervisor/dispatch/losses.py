"""The latest losses of workers, and how their sequences went on. Pure: the clock is an argument.

Written when a worker is lost and when one of its sequences gains its next token or ends, so that a
page can show a death and the streams that went on across it.
"""

from collections import deque

from msgspec import Struct

from gpufc.ids import Epoch, RequestId, WorkerName
from supervisor.fleet.exit_reason import ASKED, ExitReason, Reason
from supervisor.fleet.port import WorkerHandle

KEEP = 32
"""Losses that are remembered."""

KILLS_S = 120.0
"""A kill counts as evidence of a killer for so long."""

MOST_PAUSES = 256
"""Pauses that one loss keeps. Its counts go on beyond them."""


class Pause(Struct, frozen=True, gc=False):
    """One sequence's pause: from its last token, or from the loss, to its next token. Both are
    monotonic seconds."""

    request: RequestId
    began_at: float
    ended_at: float


class Loss(Struct, kw_only=True):
    """One loss of a ready worker. Only its model's group changes it.

    `lost_at` is in monotonic seconds. Each of `n_sequences` either goes on, ends without another
    token, or waits. With `is_unprovoked` the worker computed nothing that had not brought a token
    yet, so that no request can have attracted a kill.
    """

    worker: WorkerName
    epoch: Epoch
    model: str
    reason: ExitReason
    lost_at: float
    is_unprovoked: bool = False
    n_sequences: int = 0
    n_went_on: int = 0
    n_ended: int = 0
    longest_pause_s: float = 0.0
    pauses: list[Pause] = []

    @property
    def n_waiting(self) -> int:
        return self.n_sequences - self.n_went_on - self.n_ended

    @property
    def was_asked(self) -> bool:
        """Whether an operator or the fleet asked for it: then it was no death."""
        return self.reason.reason in ASKED

    def went_on(self, request: RequestId, last_token_at: float | None, now: float) -> None:
        """One of its sequences has its next token."""
        began_at = self.lost_at if last_token_at is None else last_token_at
        self.n_went_on += 1
        self.longest_pause_s = max(self.longest_pause_s, now - began_at)
        if len(self.pauses) < MOST_PAUSES:
            self.pauses.append(Pause(request, began_at, now))

    def ended(self) -> None:
        """One of its sequences has ended without another token, or lost its next worker too."""
        self.n_ended += 1


class Losses:
    """The last `KEEP` losses of all models, oldest first."""

    def __init__(self) -> None:
        self.latest: deque[Loss] = deque(maxlen=KEEP)
        self.n_total = 0

    def began(
        self, worker: WorkerHandle, reason: ExitReason, now: float, *, is_unprovoked: bool = False
    ) -> Loss:
        """A ready worker is lost. Its sequences are added by `Job.interrupted`."""
        loss = Loss(
            worker=worker.name,
            epoch=worker.epoch,
            model=worker.model,
            reason=reason,
            lost_at=now,
            is_unprovoked=is_unprovoked,
        )
        self.n_total += 1
        self.latest.append(loss)
        return loss

    def has_killer(self, model: str, now: float) -> bool:
        """Whether a worker of the model was killed from outside not long ago, and no request can
        be why. Workers of other models have other memory and other requests."""
        return any(
            loss.is_unprovoked and loss.reason.reason is Reason.KILLED
            for loss in self.latest
            if loss.model == model and now - loss.lost_at < KILLS_S
        )
