"""When the work on a request began and ended, for answers that tell it. Pure."""

from msgspec import Struct


class Run(Struct):
    """One sequence on one worker, in monotonic seconds. `n_known` tokens had been generated before.
    `first_at` is when it gained its first token there, `ended_at` when it ended or left the worker,
    and `was_lost` if the worker's end was the reason."""

    worker: str
    epoch: int
    choice: int
    sent_at: float
    n_known: int = 0
    is_replay: bool = False
    first_at: float | None = None
    ended_at: float | None = None
    was_lost: bool = False


class Timings(Struct):
    """Moments of one request, in monotonic seconds; None until they come.

    `started_at` is when its first sequence went to a worker, `first_token_at` when the first token
    of any choice came, `ended_at` when its last sequence ended. A replay changes none of them, and
    is one of the `runs`. Only the model's group writes them, a few times for each sequence.
    """

    submitted_at: float
    started_at: float | None = None
    first_token_at: float | None = None
    ended_at: float | None = None
    runs: list[Run] = []

    @property
    def queue_s(self) -> float:
        """From the request to its first start: waiting, loading, templates, tokenizing."""
        return _between(self.submitted_at, self.started_at)

    @property
    def prompt_s(self) -> float:
        """From the start to the first token."""
        return _between(self.started_at, self.first_token_at)

    @property
    def generation_s(self) -> float:
        """From the first token to the end, pauses of replays included."""
        return _between(self.first_token_at, self.ended_at)

    @property
    def total_s(self) -> float:
        """From the request to its end."""
        return _between(self.submitted_at, self.ended_at)

    def started(self, now: float) -> bool:
        """A sequence goes to a worker: whether it is the first one."""
        if self.started_at is not None:
            return False
        self.started_at = now
        return True

    def gained_first(self, now: float) -> None:
        """A sequence has its first token."""
        if self.first_token_at is None:
            self.first_token_at = now


def _between(begin: float | None, end: float | None) -> float:
    return 0.0 if begin is None or end is None else max(0.0, end - begin)
