"""From an answer's typed parts to the chunks of a task. Pure.

Chunks have numbers from 0 and cumulative counters. The last one, and only it, is `done`. A worker
counts tokens, not phases: the tokens since the last chunk are shared among its phases by length.
"""

from collections.abc import Sequence

from supervisor.answers.parts import Part, Reasoning, Text, joined
from supervisor.dispatch.stream import Usage
from supervisor.fabric.messages import InferenceResultChunk, OutputPhase

U32_MAX = 2**32 - 1

MOST_ERROR_CHARS = 1000
"""An error may quote the task, which may be as long as a frame."""


class Answer:
    """The chunks of one task so far. Nothing follows `done`."""

    def __init__(self, task_id: str) -> None:
        self.task_id = task_id
        self._next = 0
        self._prompt = 0
        self._analysis = self._final = 0
        self._phase = OutputPhase.UNKNOWN

    def chunks(self, parts: Sequence[Part], usage: Usage) -> list[InferenceResultChunk]:
        """A chunk for each run of text in one phase."""
        pieces = [
            (OutputPhase.ANALYSIS if isinstance(part, Reasoning) else OutputPhase.FINAL, part.text)
            for part in joined(parts)
            if isinstance(part, Text | Reasoning)
        ]
        made = []
        for place, (phase, text) in enumerate(pieces):
            n_left = sum(len(one) for _, one in pieces[place:])
            n_new = usage.completion - self._analysis - self._final
            self._count(usage, phase, n_new * len(text) // n_left)
            made.append(self._chunk(text))
        return made

    def done(self, usage: Usage | None = None, error: str | None = None) -> InferenceResultChunk:
        """The last chunk."""
        if usage is not None:
            rest = usage.completion - self._analysis - self._final
            self._count(usage, self._phase, rest)
        return self._chunk("", done=True, error=error)

    def _count(self, usage: Usage, phase: OutputPhase, n_tokens: int) -> None:
        self._prompt = usage.prompt
        self._phase = phase
        if phase is OutputPhase.ANALYSIS:
            self._analysis += n_tokens
        else:
            self._final += n_tokens

    def _chunk(
        self, delta: str, *, done: bool = False, error: str | None = None
    ) -> InferenceResultChunk:
        number, self._next = self._next, self._next + 1
        return InferenceResultChunk(
            task_id=self.task_id,
            seq=number,
            delta=delta,
            phase=self._phase,
            done=done,
            error=None if error is None else error[:MOST_ERROR_CHARS],
            prompt_tokens=min(U32_MAX, self._prompt),
            completion_tokens=self._analysis + self._final,
            analysis_tokens=self._analysis,
            final_tokens=self._final,
        )
