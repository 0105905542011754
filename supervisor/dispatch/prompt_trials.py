"""Which prompt kills workers: the accused, held back until there is evidence, and the convicts.

A question that was asked at two deaths in a row, alone at the second one, is accused. `suspects`
decides about it as about a sequence: a worker that passes its trial, the answer to another question
or the token of a sequence convicts it. Accusations of different prompts in a row without such an
answer or token accuse the engine. Equal questions are refused for a while.
"""

import logging
from collections.abc import Callable, Sequence

from gpufc.errors import EngineCrashed, EngineCrashSuspect
from gpufc.ids import RequestNo
from supervisor.dispatch.question import Asked, Question
from supervisor.dispatch.suspects import Judgement, Suspects, Victim
from supervisor.fleet.exit_reason import ExitReason, Reason

logger = logging.getLogger(__name__)

HUNG_S = 5.0
"""A question asked this long before a worker was found hung may have hung it."""
MAX_DEATHS = 4
"""A question that was acquitted fails after so many deaths."""
REFUSED_S = 600.0
MAX_REFUSED = 1000
NO_SEQUENCE = RequestNo(0)
"""Dispatch counts from 1."""

_CRASHES = frozenset({Reason.CRASHED, Reason.EXITED})


class PromptTrials:
    """The suspicions of one model's questions. Owned by `Questions`.

    Invariant: an accused question is asked of no worker. It leaves by `left` or a judgement.
    """

    def __init__(self, come_back: Callable[[Question], None]) -> None:
        """`come_back` takes in a question that was acquitted."""
        self.accused: dict[RequestNo, Question] = {}
        self._come_back = come_back
        self._deaths: dict[RequestNo, tuple[Asked, ExitReason]] = {}
        """The last death that each accused question is accused of."""
        self._suspects = Suspects()
        self._refused_until: dict[bytes, float] = {}

    def refuses(self, question: Question) -> bool:
        """Whether an equal question was convicted not long ago."""
        if not self._refused_until:
            return False
        return self._refused_until.get(question.fingerprint, question.since) > question.since

    def died(
        self,
        asked: Sequence[Question],
        worker: Asked,
        reason: ExitReason,
        now: float,
        *,
        in_company: bool = False,
    ) -> RequestNo | None:
        """A worker is gone that had not answered these. Returns the accused, which is held.

        `in_company`: it had sequences as well. They come into question where a question was
        computed beside them."""
        causes = [question for question in asked if may_have_caused(question, reason, now)]
        if not causes:
            return None
        for question in causes:
            question.n_deaths += 1
        victims = [Victim(question.no, question.fingerprint, 0) for question in causes]
        in_company = in_company and causes[0].is_computed
        accused = self._suspects.blame(victims, now, in_company=in_company)
        if accused is not None:
            self.accused[accused] = causes[0]
            self._deaths[accused] = (worker, reason)
        return accused

    def answered(self, question: Question, now: float) -> None:
        """A worker has answered: it can do so, and no death is held against an equal question."""
        self.left(question.no)
        if question.n_deaths:
            self._suspects.cleared(question.fingerprint)
        self.proven(now)

    def left(self, no: RequestNo) -> None:
        """The question has ended. Its deaths stay remembered, in case it is put again."""
        self._suspects.left(no)
        self.accused.pop(no, None)
        self._deaths.pop(no, None)

    def trial_passed(self, now: float) -> None:
        """A worker has just passed its trial, in which it prepares a prompt."""
        self._apply(self._suspects.trial_passed(), now)

    def proven(self, now: float) -> None:
        """The engine has answered or computed something else."""
        if self._suspects.needs_tokens:
            self._apply(self._suspects.token_gained(NO_SEQUENCE), now)

    def forgive(self) -> None:
        """Forget all accusations and convictions: the engine is another one."""
        self._refused_until.clear()
        for no in self._suspects.forget().acquitted:
            if (question := self._taken(no)) is not None:
                question.n_deaths = 0
                self._come_back(question)

    def _taken(self, no: RequestNo) -> Question | None:
        """The question, no longer accused. None: it has ended with another one of its request."""
        return self.accused.pop(no, None)

    def _apply(self, judgement: Judgement, now: float) -> None:
        deaths = {no: self._deaths.pop(no) for no in (*judgement.convicts, *judgement.acquitted)}
        for no, n_deaths in judgement.convicts.items():
            worker, reason = deaths[no]
            worker.explain_deaths(n_deaths)
            if (question := self._taken(no)) is not None:
                self._convict(question, reason, now)
        if judgement.is_engine_sick:
            logger.error("convictions_withdrawn: the engine fails at different prompts in a row")
            self._refused_until.clear()
        for no in judgement.acquitted:
            if (question := self._taken(no)) is not None:
                self._acquit(question, deaths[no][1])

    def _convict(self, question: Question, reason: ExitReason, now: float) -> None:
        logger.warning("prompt_convicted question=%d", question.no)
        self._refused_until = {
            key: until for key, until in self._refused_until.items() if until > now
        }
        while len(self._refused_until) >= MAX_REFUSED:
            del self._refused_until[next(iter(self._refused_until))]
        self._refused_until[question.fingerprint] = now + REFUSED_S
        question.failed(EngineCrashSuspect(f"This prompt ended the engine repeatedly: {reason}"))

    def _acquit(self, question: Question, reason: ExitReason) -> None:
        if question.n_deaths < MAX_DEATHS:
            self._come_back(question)
            return
        question.failed(
            EngineCrashed(f"The engine died {question.n_deaths} times at this prompt: {reason}")
        )


def may_have_caused(question: Question, reason: ExitReason, now: float) -> bool:
    """Whether a question that was asked and not answered may have caused this end."""
    if reason.questions:
        return question.no in reason.questions
    match reason.reason:
        case Reason.HUNG:
            return question.asked_at <= now - HUNG_S
        case Reason.DECODE_FAILED:
            return question.no in reason.requests
        case _:
            return reason.reason in _CRASHES
