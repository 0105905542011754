"""What any ready worker of a model answers at once, without running a sequence.

A prompt to be tokenized, tokens to be spelt, inputs to be embedded: asked of one worker, and of the
next one when that is lost, unnoticed by the client. No asyncio: answers go to callbacks.

A worker that crashes may have done so because of a question that it had not answered. Each of
these is asked again alone: no other question is open, and no sequence is started. A crash then
convicts it, and equal questions are refused for a while.

Embeddings are *computed*: the engine thread answers them between its steps. Such a question waits
while a sequence that may kill workers runs alone.
"""

import hashlib
from collections.abc import Callable
from typing import Protocol

import msgspec

from gpufc.errors import EngineCrashSuspect, RequestError
from gpufc.ids import Epoch, RequestNo
from gpufc.protocol import (
    Cancel,
    Detokenized,
    Embed,
    Embedded,
    Prepare,
    Prepared,
    ToWorker,
)
from supervisor.fleet.exit_reason import ExitReason, Reason

DEATHS_TO_CONVICT = 2
HUNG_S = 5.0
"""A question asked this long before a worker was found hung may have hung it."""
REFUSED_S = 600.0
MAX_REFUSED = 1000

_CRASHES = frozenset({Reason.CRASHED, Reason.EXITED})

Answer = Prepared | Detokenized | Embedded


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
        is_computed: bool = False,
    ) -> None:
        """`since`: when it was first put (monotonic seconds)."""
        self.no = no
        self.is_computed = is_computed
        self.message = message
        self.answered = answered
        self.failed = failed
        self.since = since
        self.asked_at = since
        self.n_deaths = 0

    @property
    def fingerprint(self) -> bytes:
        """Equal for questions about the same prompt, tokens or inputs."""
        message = self.message(Epoch(0))
        match message:
            case Prepare():
                return _digest((message.prompt, message.constraint))
            case Embed():
                return _digest((message.inputs, message.truncate))
            case _:
                return _digest((message, self.no))


def _digest(subject: object) -> bytes:
    return hashlib.sha256(msgspec.msgpack.encode(subject)).digest()


class Questions:
    """All open questions to one model's workers: each is waiting for a worker or for an answer.

    Invariant: while a question with `n_deaths` is asked, no other question is.
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

    @property
    def on_trial(self) -> bool:
        """Whether a question may have ended a worker and has not been answered since."""
        asked = (question for question, _ in self._asked.values())
        return any(question.n_deaths for question in (*self._unasked.values(), *asked))

    def ask(self, worker: Asked, now: float, *, may_compute: bool = True) -> None:
        """Ask this worker the questions that wait for one, or a single one that is on trial.

        Without `may_compute`, questions that are computed go on waiting."""
        waiting = [one for one in self._unasked.values() if may_compute or not one.is_computed]
        if self.on_trial:
            if waiting and not self._asked:
                self._ask(min(waiting, key=lambda one: -one.n_deaths), worker, now)
            return
        for question in waiting:
            self._ask(question, worker, now)

    def computes_on(self, epoch: Epoch) -> bool:
        """Whether the worker of this epoch has a question that is computed."""
        return any(
            question.is_computed and asked.epoch == epoch
            for question, asked in self._asked.values()
        )

    def _ask(self, question: Question, worker: Asked, now: float) -> None:
        del self._unasked[question.no]
        question.asked_at = now
        self._asked[question.no] = (question, worker)
        worker.send(question.message(worker.epoch))

    def may_have_killed(self, epoch: Epoch, reason: ExitReason, now: float) -> bool:
        """Whether a question that is computed may have caused this end of its worker."""
        return any(
            question.is_computed
            and asked.epoch == epoch
            and _may_have_caused(question, reason, now)
            for question, asked in self._asked.values()
        )

    @property
    def any_unasked(self) -> bool:
        return bool(self._unasked)

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

    def lost(self, epoch: Epoch, reason: ExitReason, now: float) -> int:
        """A worker is gone: what it was asked waits for the next one, or is convicted.

        Returns how many deaths a conviction explains.
        """
        mine = [question for question, asked in self._asked.values() if asked.epoch == epoch]
        for question in mine:
            if _may_have_caused(question, reason, now):
                question.n_deaths += 1
        convict = next((one for one in mine if one.n_deaths >= DEATHS_TO_CONVICT), None)
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

    def refuse_none(self) -> None:
        """Forget all convictions: the engine is another one."""
        self._refused_until.clear()

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


def _may_have_caused(question: Question, reason: ExitReason, now: float) -> bool:
    """Whether a question that was not answered may have caused this end of its worker."""
    match reason.reason:
        case Reason.HUNG:
            return question.asked_at <= now - HUNG_S
        case Reason.DECODE_FAILED:
            return question.no in reason.requests
        case _:
            return reason.reason in _CRASHES
