"""What any ready worker of a model answers at once, without running a sequence.

Each question is asked of one worker, and of the next one when that is lost, unnoticed by the
client. No asyncio: answers go to callbacks.

A worker that crashes may have done so because of a question that it had not answered. Each of
these is asked again alone: no other question is open, and no sequence is started.
`prompt_trials` decides about a question at which workers die again.

Embeddings are *computed*: the engine thread answers them between its steps. Such a question waits
while a sequence that may kill workers runs alone.
"""

from gpufc.errors import EngineCrashSuspect, RequestError
from gpufc.ids import Epoch, RequestNo
from gpufc.protocol import Cancel
from supervisor.dispatch.prompt_trials import PromptTrials, may_have_caused
from supervisor.dispatch.question import Answer, Asked, Question
from supervisor.fleet.exit_reason import ExitReason


class Questions:
    """All open questions to one model's workers: each waits for a worker, for an answer, or as an
    accused for evidence.

    Invariant: while a question with `n_deaths` is asked, no other question is. `n_deaths` only
    changes while a question is neither in `_unasked` nor in `_asked`, or about to be taken in.
    """

    def __init__(self) -> None:
        self._unasked: dict[RequestNo, Question] = {}
        self._asked: dict[RequestNo, tuple[Question, Asked]] = {}
        self._may_kill: set[RequestNo] = set()
        """Those of both at which a worker may have died."""
        self.trials = PromptTrials(come_back=self._take_in)

    def add(self, question: Question) -> None:
        """Take a question in. It fails at once if an equal one was convicted."""
        if self.trials.refuses(question):
            question.failed(
                EngineCrashSuspect("An equal prompt killed the engine; it is refused for now")
            )
            return
        self._take_in(question)

    def drop(self, no: RequestNo) -> None:
        """The client is gone: the worker need not go on, and an answer will be passed over."""
        self._unasked.pop(no, None)
        self._may_kill.discard(no)
        self.trials.left(no)
        _, asked = self._asked.pop(no, (None, None))
        if asked is not None:
            asked.send(Cancel(asked.epoch, no))

    @property
    def on_trial(self) -> bool:
        """Whether a question may have ended a worker and has not been answered since."""
        return bool(self._may_kill)

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

    def computes_on(self, worker: Asked) -> bool:
        """Whether a worker has a question that is computed."""
        return any(question.is_computed for question in self._asked_of(worker))

    def asked_of(self, epoch: Epoch) -> int:
        """How many questions a worker has not answered."""
        return sum(asked.epoch == epoch for _, asked in self._asked.values())

    def may_have_killed(self, worker: Asked, reason: ExitReason, now: float) -> bool:
        """Whether a question that is computed may have caused this end of its worker."""
        return any(
            question.is_computed and may_have_caused(question, reason, now)
            for question in self._asked_of(worker)
        )

    def _asked_of(self, worker: Asked) -> list[Question]:
        return [question for question, asked in self._asked.values() if asked.epoch == worker.epoch]

    def _take_in(self, question: Question) -> None:
        self._unasked[question.no] = question
        if question.n_deaths:
            self._may_kill.add(question.no)

    def _ask(self, question: Question, worker: Asked, now: float) -> None:
        del self._unasked[question.no]
        question.asked_at = now
        self._asked[question.no] = (question, worker)
        worker.send(question.message(worker.epoch))

    @property
    def any_unasked(self) -> bool:
        return bool(self._unasked)

    @property
    def n_unasked(self) -> int:
        return len(self._unasked)

    def settle(
        self, no: RequestNo, epoch: Epoch, outcome: Answer | RequestError, now: float
    ) -> bool:
        """Pass on what a worker said. False if no such question was asked of it."""
        question, asked = self._asked.get(no, (None, None))
        if question is None or asked is None or asked.epoch != epoch:
            return False
        del self._asked[no]
        self._may_kill.discard(no)
        if isinstance(outcome, RequestError):
            self.trials.left(no)
            question.failed(outcome)
        else:
            self.trials.answered(question, now)
            question.answered(outcome)
        return True

    def lost(
        self, worker: Asked, reason: ExitReason, now: float, *, in_company: bool = False
    ) -> None:
        """A worker is gone: the questions that it was asked wait for the next one, except one that
        is accused. `in_company`: it had sequences as well, which may have killed it."""
        mine = self._asked_of(worker)
        accused = self.trials.died(mine, worker, reason, now, in_company=in_company)
        for question in mine:
            del self._asked[question.no]
            self._may_kill.discard(question.no)
            if question.no != accused:
                self._take_in(question)

    def __len__(self) -> int:
        return len(self._unasked) + len(self._asked) + len(self.trials.accused)

    def is_waiting(self, *, has_worker: bool) -> bool:
        """Whether `expire` may have to do with a question, now or later."""
        return bool(self.trials.accused) or (not has_worker and len(self) > 0)

    def expire(self, before: float, error: RequestError, *, has_worker: bool) -> None:
        """Fail each question that waits for a worker or for evidence and was put before then."""
        waiting = [*self.trials.accused.values()]
        if not has_worker:
            waiting += self._unasked.values()
        self._fail([question for question in waiting if question.since <= before], error)

    def fail_all(self, error: RequestError) -> None:
        """No worker is going to answer."""
        asked = [question for question, _ in self._asked.values()]
        self._asked.clear()
        self._may_kill.clear()
        self._fail([*self._unasked.values(), *asked, *self.trials.accused.values()], error)

    def _fail(self, questions: list[Question], error: RequestError) -> None:
        for question in questions:
            self._unasked.pop(question.no, None)
            self._may_kill.discard(question.no)
            self.trials.left(question.no)
        for question in questions:
            question.failed(error)
