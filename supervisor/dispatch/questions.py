"""Questions that any ready worker of a model answers at once, without running a sequence.

A prompt to be tokenized, tokens to be spelt. A question is asked of one worker, and of the next one
if that worker is lost before it answers. No asyncio: answers go to callbacks.
"""

from collections.abc import Callable
from typing import Protocol

from gpufc.errors import EngineCrashed, RequestError
from gpufc.ids import Epoch, RequestNo
from gpufc.protocol import Detokenized, Prepared, ToWorker

MAX_ASKED = 3
"""How often one question is asked, if every worker dies over it."""

Answer = Prepared | Detokenized


class Asked(Protocol):
    """The part of a worker that a question needs."""

    @property
    def epoch(self) -> Epoch: ...
    def send(self, message: ToWorker) -> None: ...


class Question:
    """One question. Exactly one of `answered` and `failed` is called, unless it is dropped.

    `since` is when it was first put (monotonic seconds).
    """

    def __init__(
        self,
        no: RequestNo,
        message: Callable[[Epoch], ToWorker],
        *,
        answered: Callable[[Answer], None],
        failed: Callable[[RequestError], None],
        since: float,
    ) -> None:
        self.no = no
        self.message = message
        self.answered = answered
        self.failed = failed
        self.since = since
        self.asked = 0


class Questions:
    """All open questions to one model's workers. Each waits for a worker or for its answer."""

    def __init__(self) -> None:
        self._unasked: dict[RequestNo, Question] = {}
        self._asked: dict[RequestNo, tuple[Question, Epoch]] = {}

    def add(self, question: Question) -> None:
        self._unasked[question.no] = question

    def drop(self, no: RequestNo) -> None:
        """Withdraw a question; its answer is ignored."""
        self._unasked.pop(no, None)
        self._asked.pop(no, None)

    def ask(self, worker: Asked) -> None:
        """Ask this worker all questions that wait for a worker."""
        waiting, self._unasked = self._unasked, {}
        for question in waiting.values():
            question.asked += 1
            self._asked[question.no] = (question, worker.epoch)
            worker.send(question.message(worker.epoch))

    @property
    def any_unasked(self) -> bool:
        return bool(self._unasked)

    def settle(self, no: RequestNo, epoch: Epoch, outcome: Answer | RequestError) -> bool:
        """Pass on a worker's answer. False if it was not asked such a question."""
        question, asked_of = self._asked.get(no, (None, None))
        if question is None or asked_of != epoch:
            return False
        del self._asked[no]
        if isinstance(outcome, RequestError):
            question.failed(outcome)
        else:
            question.answered(outcome)
        return True

    def lost(self, epoch: Epoch, *, fatal: bool) -> None:
        """A worker is lost: its questions wait for the next one.

        A worker answers in the order of asking, so only the first open question can have killed
        it, and only by a fatal end. The death does not count against the other questions.
        """
        mine = [question for question, asked_of in self._asked.values() if asked_of == epoch]
        for index, question in enumerate(mine):
            # a question that failed above may have dropped others of the same request
            if self._asked.pop(question.no, None) is None:
                continue
            if index > 0 or not fatal:
                question.asked -= 1
            if question.asked < MAX_ASKED:
                self.add(question)
            else:
                question.failed(EngineCrashed(f"The engine died {MAX_ASKED} times over the prompt"))

    def __len__(self) -> int:
        return len(self._unasked) + len(self._asked)

    def expire(self, before: float, error: RequestError) -> None:
        """Fail the questions that wait for a worker and were put before that time."""
        for question in [found for found in self._unasked.values() if found.since <= before]:
            if self._unasked.pop(question.no, None) is not None:
                question.failed(error)

    def fail_all(self, error: RequestError) -> None:
        """Fail all questions."""
        unasked, self._unasked = self._unasked, {}
        asked, self._asked = self._asked, {}
        for question in [*unasked.values(), *(question for question, _ in asked.values())]:
            question.failed(error)
