"""Chat templates in a disposable process: what does not end, or eats the memory, dies alone.

    engine worker                        python -m engine_worker.prompts.template_process
    TemplateRenderer ── Setup, Render ─▶ ChatTemplate
                     ◀─ Rendered ──────

Length-framed msgpack over the child's stdin and stdout. The child imports neither llama_cpp nor
numpy, has a minimal environment and limits on CPU time and memory, and ends with its parent.
"""

import contextlib
import logging
import os
import resource
import select
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO

import msgspec
from msgspec import Struct

from gpufc import prctl
from gpufc.errors import InvalidRequest, LinkError
from gpufc.framing import frame, read_frame
from gpufc.protocol import ChatMessage

logger = logging.getLogger(__name__)

MAX_FRAME_BYTES = 64 << 20
MEMORY_BYTES = 1 << 30
START_TIMEOUT_S = 15.0
"""Starting Python on a busy machine is not the template's fault: it has a time of its own."""


class Setup(Struct, frozen=True, array_like=True):
    """The first frame to the child."""

    template: str | None
    bos_text: str
    eos_text: str
    cpu_s: int


class Render(Struct, frozen=True, array_like=True):
    """All further frames to the child."""

    messages: tuple[ChatMessage, ...]
    add_generation_prompt: bool


class Rendered(Struct, frozen=True, array_like=True):
    """Every frame from the child; also sent once, empty, when it is ready."""

    text: str = ""
    refusal: str | None = None


class _ChildDied(Exception):
    """The pipe to the child broke. Not the template's fault unless it happens again."""


_encoder = msgspec.msgpack.Encoder()


class TemplateRenderer:
    """Renders conversations in a child process, which it starts again when it had to be killed.

    Blocking; used from one thread, which must live as long as the child (its death signal
    follows the thread that started it). The child is started at once and awaited when needed.
    """

    def __init__(
        self, template: str | None, bos_text: str, eos_text: str, timeout_s: float = 2.0
    ) -> None:
        self._setup = Setup(template, bos_text, eos_text, int(timeout_s) + 1)
        self._timeout_s = timeout_s
        self._child: _Child | None = _Child(self._setup)

    @property
    def pid(self) -> int | None:
        """The child's process id, if there is one."""
        return self._child.pid if self._child else None

    def render(self, messages: Sequence[ChatMessage], add_generation_prompt: bool = True) -> str:
        """The prompt's text. Raises `InvalidRequest` (param `messages`) when the template
        refuses, takes longer than the timeout, or kills its process twice."""
        frame = _encoder.encode(Render(tuple(messages), add_generation_prompt))
        for _ in range(2):
            try:
                answer = self._exchange(frame)
            except _ChildDied as err:
                logger.warning("template_process_died reason=%s", err)
                self.close()
                continue
            except TimeoutError:
                self.close()
                raise InvalidRequest(
                    f"the model's chat template took longer than {self._timeout_s:g} s",
                    param="messages",
                ) from None
            if answer.refusal is not None:
                raise InvalidRequest(answer.refusal, param="messages")
            return answer.text
        raise InvalidRequest("the model's chat template ended its process", param="messages")

    def close(self) -> None:
        """Kill the child, if there is one, and reap it."""
        if self._child is not None:
            self._child.kill()
            self._child = None

    def _exchange(self, frame: bytes) -> Rendered:
        if self._child is None:
            self._child = _Child(self._setup)
        self._child.await_ready()
        return self._child.call(frame, self._timeout_s)


class _Child:
    """One child process and its two pipes."""

    def __init__(self, setup: Setup) -> None:
        # -P and PYTHONPATH: our own packages from where this file is, nothing from the folder
        # that the worker happens to run in
        root = str(Path(__file__).resolve().parents[2])
        # and dependencies from where this process has them, which may be no site-packages folder
        path = os.pathsep.join([root, *(entry for entry in sys.path if entry)])
        command = [sys.executable, "-P", "-s", "-m", "engine_worker.prompts.template_process"]
        try:
            self._process = subprocess.Popen(
                [*command, str(os.getpid())],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                env={"PYTHONPATH": path, "LANG": "C.UTF-8"},
                bufsize=0,
            )
        except OSError as err:
            raise _ChildDied(f"it cannot be started: {err}") from err
        self.pid = self._process.pid
        self._pipes = [pipe for pipe in (self._process.stdin, self._process.stdout) if pipe]
        self._to, self._from = (pipe.fileno() for pipe in self._pipes)
        os.set_blocking(self._to, False)
        os.set_blocking(self._from, False)
        self._deadline = time.monotonic() + START_TIMEOUT_S
        self._first_frame: bytes | None = _encoder.encode(setup)

    def await_ready(self) -> None:
        """Wait until the child has compiled the template, if this has not been done yet."""
        if self._first_frame is not None:
            frame, self._first_frame = self._first_frame, None
            self._deadline = time.monotonic() + START_TIMEOUT_S
            self._send(frame)
            self._receive()

    def call(self, frame: bytes, timeout_s: float) -> Rendered:
        """Send a frame and wait for the answer. Raises `TimeoutError` or `_ChildDied`."""
        self._deadline = time.monotonic() + timeout_s
        self._send(frame)
        return self._receive()

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()
        for pipe in self._pipes:
            pipe.close()

    def _send(self, message: bytes) -> None:
        rest = memoryview(frame(message))
        while rest:
            self._wait(self._to, select.POLLOUT)
            try:
                rest = rest[os.write(self._to, rest) :]
            except BlockingIOError:
                continue
            except BrokenPipeError as err:
                raise _ChildDied("it does not read") from err

    def _receive(self) -> Rendered:
        try:
            data = read_frame(self._read, MAX_FRAME_BYTES)
            if data is None:
                raise _ChildDied("it ended")
            return msgspec.msgpack.decode(data, type=Rendered)
        except (LinkError, msgspec.MsgspecError) as err:
            raise _ChildDied(f"it sent an undecodable frame: {err}") from err

    def _read(self, length: int) -> bytes:
        self._wait(self._from, select.POLLIN)
        return os.read(self._from, min(length, 1 << 20))

    def _wait(self, fd: int, event: int) -> None:
        poll = select.poll()
        poll.register(fd, event)
        left_ms = max(0.0, (self._deadline - time.monotonic()) * 1000)
        # once more without waiting: had this process been stopped, the answer may have come since
        if not poll.poll(left_ms) and not poll.poll(0):
            raise TimeoutError


# the child's side; jinja2 is imported there only


def serve(parent: int) -> None:
    """The child: answer frames until stdin ends."""
    _confine(parent)
    from engine_worker.prompts.chat_template import ChatTemplate

    source, sink = sys.stdin.buffer, sys.stdout.buffer
    first = read_frame(source.read, MAX_FRAME_BYTES)
    if first is None:
        return
    setup = msgspec.msgpack.decode(first, type=Setup)
    template: ChatTemplate | InvalidRequest
    _allow_cpu(setup.cpu_s)
    try:
        template = ChatTemplate(setup.template, setup.bos_text, setup.eos_text)
    except InvalidRequest as err:
        template = err
    _write_frame(sink, Rendered())
    decoder = msgspec.msgpack.Decoder(Render)
    while (received := read_frame(source.read, MAX_FRAME_BYTES)) is not None:
        _allow_cpu(setup.cpu_s)
        job = decoder.decode(received)
        try:
            if isinstance(template, InvalidRequest):
                raise template
            text = template.render(job.messages, add_generation_prompt=job.add_generation_prompt)
            answer = Rendered(text)
        except InvalidRequest as err:
            answer = Rendered(refusal=err.message)
        _write_frame(sink, answer)


def _confine(parent: int) -> None:
    """Die with the parent, gain no privileges, take no more memory, write no files."""
    with contextlib.suppress(OSError, AttributeError):  # not Linux: the pipe's end has to do
        prctl.end_with_parent()
        prctl.gain_no_privileges()
    if os.getppid() != parent:
        sys.exit(0)
    for limit, value in (
        (resource.RLIMIT_AS, MEMORY_BYTES),
        (resource.RLIMIT_FSIZE, 0),
        (resource.RLIMIT_CORE, 0),
    ):
        resource.setrlimit(limit, (value, value))
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C in a terminal is the parent's affair


def _allow_cpu(seconds: int) -> None:
    """So much CPU time from now on: the limit is one on the whole life of the process."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    until = int(used.ru_utime + used.ru_stime) + 1 + seconds
    resource.setrlimit(resource.RLIMIT_CPU, (until, resource.RLIM_INFINITY))


def _write_frame(sink: BinaryIO, answer: Rendered) -> None:
    sink.write(frame(_encoder.encode(answer)))
    sink.flush()


if __name__ == "__main__":
    serve(int(sys.argv[1]))
