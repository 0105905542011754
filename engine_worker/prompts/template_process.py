"""Runs a chat template in a process that may be killed.

A template is a program that came with a model. One that never ends, or fills the memory, dies
alone.

    engine worker                        python -m engine_worker.prompts.template_process
    TemplateRenderer ── Setup, Conversation ─▶ ChatTemplate
                     ◀─ Rendered ────────────

The child imports neither llama_cpp nor numpy, has a minimal environment and limits on CPU time and
memory, and ends with its parent.
"""

import logging
import signal
import sys
import time
from collections.abc import Callable, Mapping
from typing import BinaryIO, TypeVar

import msgspec
from msgspec import Struct

from engine_worker import disposable
from engine_worker.confinement.confine import confine_child
from engine_worker.disposable import CallCancelled, Child, ChildDied
from engine_worker.prompts.conversation import Conversation
from gpufc.errors import EngineUnavailable, InvalidRequest

logger = logging.getLogger(__name__)

MEMORY_BYTES = 1 << 30
START_TIMEOUT_S = 15.0
"""Starting Python on a busy machine is not the template's fault: it has a time of its own."""
WAIT_S = 5.0
"""Beyond the template's CPU time."""
OWN_SHARE = 0.25
"""Of its CPU time. A template that has used more when time is up is slow; another one is starved,
which is our fault."""

_MODULE = "engine_worker.prompts.template_process"


class Setup(Struct, frozen=True, array_like=True):
    """The first frame to the child. Answered when the template has been compiled and tried. All
    further frames are a `Conversation`."""

    template: str | None
    special_tokens: dict[str, str]
    cpu_s: int
    confined: bool


class Rendered(Struct, frozen=True, array_like=True):
    """Every frame from the child. `refusal` is the template's, or why it cannot be used; `cpu_s` is
    the CPU time of the child's whole life."""

    text: str = ""
    refusal: str | None = None
    cpu_s: float = 0.0


class _TookTooLong(Exception):
    """The template used up its CPU time."""


class _NotItsFault(Exception):
    """The child was stopped, starved or killed from outside."""


_T = TypeVar("_T")
_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(Rendered)


class TemplateRenderer:
    """Renders conversations in a child process, which it starts again when it had to be killed.

    Blocking; used by one thread at a time. Each child dies with the thread that started it.
    `error` is the verdict on the template once it is known: None while it can be used.
    """

    def __init__(
        self,
        template: str | None,
        special_tokens: Mapping[str, str],
        cpu_s: int = 2,
        *,
        confined: bool = True,
    ) -> None:
        """A `confined` child has no files but libraries, and no network."""
        self.error: str | None = None
        self._setup = Setup(template, dict(special_tokens), cpu_s, confined)
        self._child: Child | None = None
        self._cpu_s = 0.0  # of the child, when it last answered
        self._n_died = 0

    @property
    def pid(self) -> int | None:
        """The child's process id, if there is one."""
        return self._child.pid if self._child else None

    def start(self, child: Child | None = None) -> None:
        """Have a child that has compiled and tried the template; `child` is one that waits for its
        first frame. Raises `InvalidRequest` if the template cannot be used, and
        `EngineUnavailable` if that cannot be found out now."""
        self._retried(lambda: self._prepared(child))

    def render(self, given: Conversation) -> str:
        """The prompt's text.

        Raises `InvalidRequest` (param `messages`) when the template refuses, cannot be used, takes
        too much time, or kills its process twice; `EngineUnavailable` when its process is stopped
        or starved twice.
        """
        frame = _encoder.encode(given)
        answer = self._retried(lambda: self._exchange(self._prepared(), frame))
        if answer.refusal is not None:
            raise _refused(answer.refusal)
        return answer.text

    def close(self) -> None:
        """Kill the child, if there is one, and reap it."""
        if self._child is not None:
            self._child.kill()
            self._child = None

    def _retried(self, attempt: Callable[[], _T]) -> _T:
        """The attempt's result; what is not the template's fault is tried again in another process.

        A verdict on the template is kept.
        """
        died: Exception | None = None
        for _ in range(2):
            if self.error is not None:
                raise _refused(self.error)
            try:
                return attempt()
            except _TookTooLong:
                self.close()
                raise _refused(f"it took longer than {self._setup.cpu_s} s") from None
            except (ChildDied, _NotItsFault) as err:
                logger.warning("template_process_died reason=%s", err)
                self.close()
                died = err
        if isinstance(died, _NotItsFault):
            raise EngineUnavailable(
                "The process for chat templates does not answer", retry_after_s=5.0
            )
        raise _refused("it ended its process")

    def _prepared(self, child: Child | None = None) -> Child:
        """A child that has the template compiled."""
        if self._child is not None:
            return self._child
        self._child = child if child is not None and child.is_alive else Child(_MODULE)
        try:
            answer = self._exchange(self._child, _encoder.encode(self._setup), START_TIMEOUT_S)
        except _TookTooLong:
            self.error = f"it takes longer than {self._setup.cpu_s} s to compile"
            raise
        except ChildDied:
            self._n_died += 1
            if self._n_died > 1:
                self.error = "it ended its process"
            raise
        self._n_died = 0
        if answer.refusal is not None:
            self.error = answer.refusal
            self.close()
            raise _refused(self.error)
        return self._child

    def _exchange(self, child: Child, frame: bytes, wait_s: float = WAIT_S) -> Rendered:
        before_s, self._cpu_s = self._cpu_s, 0.0
        try:
            answer = child.call(frame, self._setup.cpu_s + wait_s, lambda: child.is_stopped)
        except TimeoutError:
            if child.cpu_s - before_s > OWN_SHARE * self._setup.cpu_s:
                raise _TookTooLong from None
            raise _NotItsFault("it had no time to answer") from None
        except CallCancelled:
            raise _NotItsFault("it was stopped") from None
        except ChildDied:
            if child.status_if_ended() == -signal.SIGXCPU:
                raise _TookTooLong from None
            raise
        try:
            rendered = _decoder.decode(answer)
        except msgspec.MsgspecError as err:
            raise ChildDied(f"it sent an undecodable frame: {err}") from err
        self._cpu_s = rendered.cpu_s
        return rendered


def early_child() -> Child | None:
    """A child for `TemplateRenderer.start`, before there is a template. It imports meanwhile."""
    try:
        return Child(_MODULE)
    except ChildDied as err:
        logger.warning("template_process_not_started reason=%s", err)
        return None


def _refused(reason: str) -> InvalidRequest:
    return InvalidRequest(f"the model's chat template: {reason}", param="messages")


# the child's side; jinja2 is imported there only


def serve(parent: int) -> None:
    """The child: answer frames until stdin ends."""
    disposable.confine(parent, MEMORY_BYTES)
    from engine_worker.prompts.chat_template import ChatTemplate, TemplateError

    source, sink = sys.stdin.buffer, sys.stdout.buffer
    first = disposable.read_message(source)
    if first is None:
        return
    setup = msgspec.msgpack.decode(first, type=Setup)
    if setup.confined:
        confine_child()
    disposable.allow_cpu(setup.cpu_s)
    try:
        template = ChatTemplate(setup.template, setup.special_tokens)
    except TemplateError as err:
        _answer(sink, refusal=str(err))
        return
    _answer(sink)
    decoder = msgspec.msgpack.Decoder(Conversation)
    while (frame := disposable.read_message(source)) is not None:
        disposable.allow_cpu(setup.cpu_s)
        try:
            text = template.render(decoder.decode(frame))
        except TemplateError as err:
            _answer(sink, refusal=str(err))
        else:
            _answer(sink, text)


def _answer(sink: BinaryIO, text: str = "", refusal: str | None = None) -> None:
    rendered = Rendered(text, refusal, time.process_time())
    disposable.answer(sink, _encoder.encode(rendered))


if __name__ == "__main__":
    serve(int(sys.argv[1]))
