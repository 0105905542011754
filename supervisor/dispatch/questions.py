"""What any ready worker of a model answers at once, without running a sequence.

A prompt to be tokenized, tokens to be spelt: asked of one worker, and of the next one when that is
lost, unnoticed by the client. No asyncio: answers go to callbacks.

A worker says which questions it has begun. A process that crashes may have done so because of
them, so they are asked again one at a time. A question that is begun at two deaths is convicted,
and an equal one is refused for a while.
"""

import hashlib
from collections.abc import Callable
from typing import Protocol

import msgspec

from gpufc.errors import EngineCrashSuspect, RequestError
from gpufc.ids import Epoch, RequestNo
from gpufc.protocol import Cancel, Detokenized, Prepare, Prepared, ToWorker
from supervisor.fleet.exit_reason import ExitReason, Reason

DEATHS_TO_CONVICT = 2
HUNG_S = 5.0
"""A question begun this long before a worker was found hung may have hung it."""
REFUSED_S = 600.0
MAX_REFUSED = 1000

_CRASHES = frozenset({Reason.CRASHED, Reason.EXITED})

Answer = Prepared | Detokenized


class Asked(Protocol):
    """A worker, as far as a question needs one."""

    @property
    def epoch(self) -> Epoch: ...
    def send(self, message: ToWorker) -> None: ...


class Question:
    """One question. Exactly one of `answered` and `failed` is called, unless it is dropped."""

    def __init__(
        self,
        no: RequestNo,
        message: Callable[[Epoch], ToWorker],
        *,
        answered: Callable[[Answer], None],
        failed: Callable[[RequestError], None],
        since: float,
    ) -> None:
        """`since`: when it was first put (monotonic seconds)."""
        self.no = no
        self.message = message
        self.answered = answered
        self.failed = failed
        self.since = since
        self.begun_at: float | None = None
        self.n_deaths = 0

    @property
    def fingerprint(self) -> bytes:
        """Equal for questions about the same prompt or the same tokens."""
        message = self.message(Epoch(0))
        if isinstance(message, Prepare):
            return _digest((message.prompt, message.constraint))
        return _digest((message, self.no))


def _digest(subject: object) -> bytes:
    return hashlib.sha256(msgspec.msgpack.encode(subject)).digest()


class Questions:
    """All open questions to one model's workers: each is waiting for a worker or for an answer.

    Invariant: of the questions with `n_deaths`, at most one has been asked.
    """

    def __init__(self) -> None:
        self._unasked: dict[RequestNo, Question] = {}
        self._asked: dict[RequestNo, tuple[Question, Asked]] = {}
        self._refused_until: dict[bytes, float] = {}

    def add(self, question: Question) -> None:
        """Take a question in. It fails at once if an equal one was convicted."""
        if self._refused_until and self._is_refused(question):
            question.failed(
                EngineCrashSuspect("An equal prompt killed the engine; it is refused for now")
            )
            return
        self._unasked[question.no] = question

    def drop(self, no: RequestNo) -> None:
        """The client is gone: the worker need not go on, and an answer will be passed over."""
        self._unasked.pop(no, None)
        _, asked = self._asked.pop(no, (None, None))
        if asked is not None:
            asked.send(Cancel(asked.epoch, no))

    def ask(self, worker: Asked) -> None:
        """Ask this worker all that waits for one; of the suspects, one at a time."""
        waiting, self._unasked = self._unasked, {}
        is_tried = any(question.n_deaths for question, _ in self._asked.values())
        for question in waiting.values():
            if question.n_deaths and is_tried:
                self._unasked[question.no] = question
                continue
            is_tried = is_tried or question.n_deaths > 0
            question.begun_at = None
            self._asked[question.no] = (question, worker)
            worker.send(question.message(worker.epoch))

    @property
    def any_unasked(self) -> bool:
        return bool(self._unasked)

    def begun(self, no: RequestNo, epoch: Epoch, now: float) -> None:
        """A worker has begun to answer."""
        question, asked = self._asked.get(no, (None, None))
        if question is not None and asked is not None and asked.epoch == epoch:
            question.begun_at = now

    def settle(self, no: RequestNo, epoch: Epoch, outcome: Answer | RequestError) -> bool:
        """Pass on what a worker said. False if no such question was asked of it."""
        question, asked = self._asked.get(no, (None, None))
        if question is None or asked is None or asked.epoch != epoch:
            return False
        del self._asked[no]
        if isinstance(outcome, RequestError):
            question.failed(outcome)
        else:
            question.answered(outcome)
        return True

    def suspected(self, epoch: Epoch, reason: ExitReason, now: float) -> list[Question]:
        """The questions that may have ended this worker. While there are any, no running sequence
        is charged with the death."""
        match reason.reason:
            case Reason.HUNG:
                latest = now - HUNG_S
            case crash if crash in _CRASHES and not reason.requests:
                latest = now
            case _:
                return []
        mine = [question for question, asked in self._asked.values() if asked.epoch == epoch]
        return [
            question
            for question in mine
            if question.begun_at is not None and question.begun_at <= latest
        ]

    def lost(self, epoch: Epoch, reason: ExitReason, now: float) -> int:
        """A worker is gone: what it was asked waits for the next one, or is convicted.

        Returns how many deaths a conviction explains.
        """
        suspects = self.suspected(epoch, reason, now)
        convict = next((one for one in suspects if one.n_deaths + 1 >= DEATHS_TO_CONVICT), None)
        if convict is None:
            for question in suspects:
                question.n_deaths += 1
        mine = [question for question, asked in self._asked.values() if asked.epoch == epoch]
        for question in mine:
            # one that failed above may have dropped others of the same request
            if self._asked.pop(question.no, None) is None:
                continue
            if question is convict:
                self._refuse(question, now)
                question.failed(
                    EngineCrashSuspect(f"This prompt ended the engine repeatedly: {reason}")
                )
            else:
                self._unasked[question.no] = question
        return DEATHS_TO_CONVICT if convict is not None else 0

    def __len__(self) -> int:
        return len(self._unasked) + len(self._asked)

    def expire(self, before: float, error: RequestError) -> None:
        """Fail what waits for a worker and was put before that time."""
        for question in [found for found in self._unasked.values() if found.since <= before]:
            if self._unasked.pop(question.no, None) is not None:
                question.failed(error)

    def fail_all(self, error: RequestError) -> None:
        """No worker is going to answer."""
        unasked, self._unasked = self._unasked, {}
        asked, self._asked = self._asked, {}
        for question in [*unasked.values(), *(question for question, _ in asked.values())]:
            question.failed(error)

    def _refuse(self, question: Question, now: float) -> None:
        self._refused_until = {
            key: until for key, until in self._refused_until.items() if until > now
        }
        while len(self._refused_until) >= MAX_REFUSED:
            del self._refused_until[next(iter(self._refused_until))]
        self._refused_until[question.fingerprint] = now + REFUSED_S

    def _is_refused(self, question: Question) -> bool:
        return self._refused_until.get(question.fingerprint, question.since) > question.since
