"""Questions that wait for a prepare thread: bounded, in a fair order, cancelled at once.

Each lane has one thread. Short questions have a lane of their own, so that long ones never hold
them up; texts for the tokenizer process (`apart.py`) have one as well.
"""

import heapq
import itertools
import threading
import time
from collections.abc import Callable
from enum import Enum

from engine_worker.prompts.tokenizer import PrepareCancelled
from gpufc.chat import ChatMessage, ChatPrompt
from gpufc.errors import Overloaded
from gpufc.ids import Epoch, RequestNo
from gpufc.protocol import (
    Detokenize,
    Embed,
    InfillPrompt,
    PairPrompt,
    Prepare,
    PrepareStatus,
    Preparing,
    Prompt,
    TextPrompt,
    TokenPrompt,
)

MAX_QUESTIONS = 2048
MAX_BYTES = 256 << 20
"""Of all questions that wait or are being answered."""

SHORT_BYTES = 16 << 10
BYTES_PER_S = 1 << 20
"""Order: a question of this size lets pass what comes up to a second later and is short."""

Question = Prepare | Detokenize | Embed


class Lane(Enum):
    SHORT = "short"
    ANY = "any"
    APART = "apart"
    CONSTRAINED = "constrained"


class Task:
    """One question. `cancelled` is set once, by any thread."""

    def __init__(self, question: Question, lane: Lane, n_bytes: int, since: float) -> None:
        self.question = question
        self.lane = lane
        self.n_bytes = n_bytes
        self.due = since + n_bytes / BYTES_PER_S
        self.began: float | None = None
        self.is_cancelled = False

    def cancelled(self) -> bool:
        """Whether the front does not want the answer any more."""
        return self.is_cancelled

    def require_wanted(self) -> None:
        """Raises `PrepareCancelled` once the task is cancelled."""
        if self.is_cancelled:
            raise PrepareCancelled


Key = tuple[Epoch, RequestNo]


class PrepareQueue:
    """All open questions of one worker. Thread-safe.

    Invariant: a task is in `_open` from `put` until `done`, and in at most one lane's heap.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._changed = threading.Condition()
        self._numbers = itertools.count()
        self._open: dict[Key, Task] = {}
        self._waiting: dict[Lane, list[tuple[float, int, Task]]] = {lane: [] for lane in Lane}
        self._n_bytes = 0
        self._idle: set[Lane] = set()

    def put(self, question: Question) -> None:
        """Take a question in. Raises `Overloaded`."""
        n_bytes = size_of(question)
        with self._changed:
            if len(self._open) >= MAX_QUESTIONS or self._n_bytes + n_bytes > MAX_BYTES:
                raise Overloaded("Too many prompts wait to be prepared", retry_after_s=1.0)
            lane = _lane_of(question, n_bytes)
            task = Task(question, lane, n_bytes, self._clock())
            self._open[_key(question)] = task
            self._n_bytes += n_bytes
            self._push(task)

    def take(
        self, lane: Lane, timeout_s: float | None = None, *, helps: bool = True
    ) -> Task | None:
        """The next task for a lane's thread, which must end it with `done` or `move`. Blocks.

        While the thread of `SHORT` is busy, that of `ANY` takes short tasks too if it `helps`.
        None after `timeout_s`.
        """
        until = None if timeout_s is None else time.monotonic() + timeout_s
        with self._changed:
            self._idle.add(lane)
            try:
                while (task := self._next(lane, helps)) is None:
                    left_s = None if until is None else until - time.monotonic()
                    if left_s is not None and left_s <= 0.0:
                        return None
                    self._changed.wait(left_s)
            finally:
                self._idle.discard(lane)
            if lane is Lane.SHORT and self._waiting[lane]:
                self._changed.notify_all()  # for the thread that may help only from now on
            task.began = self._clock()
            return task

    def move(self, task: Task, lane: Lane) -> None:
        """A task waits again, for another lane's thread."""
        with self._changed:
            task.lane, task.began = lane, None
            if task.is_cancelled:
                self._forget(task)
            else:
                self._push(task)

    def done(self, task: Task) -> None:
        """A task's thread has ended it."""
        with self._changed:
            self._forget(task)

    def cancel(self, epoch: Epoch, request: RequestNo) -> bool:
        """Drop a question, or tell its thread. False if there is none."""
        with self._changed:
            task = self._open.get((epoch, request))
            if task is None:
                return False
            task.is_cancelled = True
            if task.began is None:
                heap = self._waiting[task.lane]
                heap[:] = [entry for entry in heap if entry[2] is not task]
                heapq.heapify(heap)
                self._forget(task)
            return True

    def status(self) -> PrepareStatus:
        """The record for a heartbeat."""
        with self._changed:
            begun = [task for task in self._open.values() if task.began is not None]
            n_waiting = len(self._open) - len(begun)
        begun.sort(key=lambda task: task.began or 0.0)
        in_work = tuple(
            Preparing(task.question.request, task.began or 0.0, task.n_bytes) for task in begun
        )
        return PrepareStatus(in_work, n_waiting)

    @property
    def idle(self) -> frozenset[Lane]:
        """The lanes whose threads wait for a task."""
        with self._changed:
            return frozenset(self._idle)

    def _next(self, lane: Lane, helps: bool) -> Task | None:
        served = [lane]
        if lane is Lane.ANY and helps and Lane.SHORT not in self._idle:
            served.append(Lane.SHORT)
        heaps = [self._waiting[one] for one in served if self._waiting[one]]
        return heapq.heappop(min(heaps))[2] if heaps else None

    def _push(self, task: Task) -> None:
        heapq.heappush(self._waiting[task.lane], (task.due, next(self._numbers), task))
        self._changed.notify_all()

    def _forget(self, task: Task) -> None:
        if self._open.pop(_key(task.question), None) is task:
            self._n_bytes -= task.n_bytes


def _lane_of(question: Question, n_bytes: int) -> Lane:
    """To compile a constraint may take a second: such questions hold up only each other."""
    if isinstance(question, Prepare) and question.constraint is not None:
        return Lane.CONSTRAINED
    return Lane.SHORT if n_bytes <= SHORT_BYTES else Lane.ANY


def size_of(question: Question) -> int:
    """The memory that a question's texts and tokens take, about."""
    match question:
        case Detokenize(sequences=sequences):
            return 8 * sum(map(len, sequences))
        case Embed(inputs=inputs):
            return sum(map(_size_of_prompt, inputs))
        case Prepare(prompt=prompt, constraint=constraint):
            return _size_of_prompt(prompt) + (len(constraint.text) if constraint else 0)


def _size_of_prompt(prompt: Prompt | PairPrompt) -> int:
    match prompt:
        case TextPrompt(text):
            return len(text)
        case TokenPrompt(tokens):
            return 8 * len(tokens)
        case PairPrompt(query, document):
            return len(query) + len(document)
        case InfillPrompt(prefix, suffix, files):
            names_and_texts = sum(len(file.name) + len(file.text) for file in files)
            return len(prefix) + len(suffix) + names_and_texts
        case ChatPrompt():
            size = len(prompt.tools) + len(prompt.variables)
            return size + sum(map(_size_of_message, prompt.messages))


def _size_of_message(message: ChatMessage) -> int:
    calls = sum(64 + len(call.name) + len(call.arguments) for call in message.tool_calls)
    return 64 + len(message.content) + len(message.reasoning_content or "") + calls


def _key(question: Question) -> Key:
    return question.epoch, question.request
