"""The worker process and its threads.

    main       waits on the boot pipe: end of file means that the front is gone, and so is any other
               front that was given the pipe's other end
    channel    the ZeroMQ socket (`channel.py`)
    prepare    four threads: templates, tokenizing and constraints, off the decode path
               (`prompts/service.py`)
    gate       holds sequences until their constraints and DRY's breakers are ready
               (`constraints/gate.py`)
    engine     loads the model, then decodes (`engine/loop.py`)

No thread dies silently: an exception that escapes from one ends the process at once. The front
watches the process and starts another.
"""

import contextlib
import faulthandler
import logging
import os
import select
import signal
import sys
import threading
import time
from collections.abc import Iterator
from typing import Never

import msgspec

from engine_worker import threads
from engine_worker.backend.port import Backend, LoadProgress
from engine_worker.channel import Channel
from engine_worker.confinement.confine import confine, require
from engine_worker.constraints.compiler import Compiler
from engine_worker.constraints.gate import Gate
from engine_worker.disposable import Child
from engine_worker.engine import loading
from engine_worker.engine.loop import Engine
from engine_worker.placement.ceiling import DeviceCeiling
from engine_worker.prompts.embedding_inputs import Wanted
from engine_worker.prompts.service import PromptService
from engine_worker.prompts.template_process import early_child
from engine_worker.speculation.drafter import Drafter
from gpufc import end_word, logs, prctl, signals, wire
from gpufc.config import BackendKind, ModelConfig
from gpufc.errors import (
    DecodeFailed,
    LinkError,
    MemoryShort,
    ModelLoadError,
)
from gpufc.facts import Confined
from gpufc.ids import Epoch, RequestNo
from gpufc.protocol import (
    PROTOCOL_VERSION,
    Attach,
    Boot,
    Cancel,
    Detokenize,
    Embed,
    EnginePhase,
    EngineStatus,
    ExportKv,
    FromWorker,
    Generate,
    Heartbeat,
    Hello,
    ImportKv,
    LoadFailed,
    Loading,
    Prepare,
    PrepareStatus,
    Ready,
    Shutdown,
    ToWorker,
)

logger = logging.getLogger(__name__)

EXIT_FRONT_GONE = 0
EXIT_DECODE_FAILED = 71
EXIT_LOAD_FAILED = 72

FAREWELL_S = 5.0
"""How long a worker that cannot serve waits for `Shutdown`, so that its last message arrives."""

OOM_SCORE = 500
"""A worker can be replaced, the front cannot, however much of the memory is the front's."""

TOLD_S = 1.0
"""How long a call that holds the interpreter's lock waits until the front has been told of it."""

BREATH_S = 0.05
"""Time for the other threads after such a call, before the next one."""

SWITCH_INTERVAL_S = 0.0005
"""A busy thread delays the engine by this. Python's default of 5 ms is as long as a GPU step."""


def main(boot_fd: int) -> Never:
    """Read the boot message from `boot_fd` and run that worker. Never returns."""
    _confine()
    _hold_end_word()
    faulthandler.enable()
    sys.setswitchinterval(SWITCH_INTERVAL_S)
    template_child = early_child()  # started by this thread, which ends with the process
    if not select.select([boot_fd], [], [], 0)[0]:
        _import_engine()  # this is a spare: import before it is needed
    boot = wire.read_boot(boot_fd)
    if boot is None:
        sys.exit(EXIT_FRONT_GONE)
    _take_log()
    logs.configure(boot.log_level, f"{boot.worker}.{boot.epoch}", form=boot.log_format)
    worker = Worker(boot, template_child, confine(boot.model))
    worker.start()
    _wait_for_last_front(boot_fd, worker)
    logger.warning("front_gone")
    threads.end_process(EXIT_FRONT_GONE)


def _wait_for_last_front(boot_fd: int, worker: "Worker") -> None:
    """Wait for the end of the last front that holds the boot pipe.

    The first front is the parent as well. Once another front has taken over, the parent's end must
    not end this process. Only the thread that asked for the parent-death signal can undo it.
    """
    poll = select.poll()
    poll.register(boot_fd, select.POLLIN)
    poll.register(worker.adoption, select.POLLIN)
    while True:
        ready = {fd for fd, _ in poll.poll()}
        if worker.adoption in ready:
            os.eventfd_read(worker.adoption)
            prctl.outlive_parent()
            worker.adopted.set()
        if boot_fd in ready and not os.read(boot_fd, 4096):
            return


def _confine() -> None:
    """End with the front, gain no privileges, ignore Ctrl-C, a closing terminal and stray signals.
    Without memory, end before the front.

    If the front died before this line, `main` finds the boot pipe at its end.
    """
    prctl.end_with_parent()
    prctl.gain_no_privileges()
    prctl.be_killed_before_others(OOM_SCORE)
    signals.ignore_stray()
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)


def _hold_end_word() -> None:
    """Let the front see at once that this process begins to end."""
    name = os.environ.pop(end_word.END_FD, None)
    if name is None:
        return
    fd = int(name)
    try:
        end_word.hold(fd)
    except OSError:
        pass  # it is seen when the process has ended
    finally:
        os.close(fd)


def _import_engine() -> None:
    if os.environ.get("GPUFC_SPARE_BACKEND") == BackendKind.FAKE:
        import engine_worker.backend.fake.backend
    else:
        import engine_worker.backend.llama.backend  # noqa: F401


def _take_log() -> None:
    """Let a spare write to its worker's log, to which this name points by now."""
    name = os.environ.get("GPUFC_SPARE_LOG")
    if name is None:
        return
    with contextlib.suppress(OSError):  # without the link it goes on with its own log
        fd = os.open(name, os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC)
        os.unlink(name)
        os.dup2(fd, 1)
        os.dup2(fd, 2)
        os.close(fd)


class Worker:
    """Wires the threads of one process together and routes messages between them."""

    def __init__(self, boot: Boot, template_child: Child | None, confined: Confined) -> None:
        self._boot = boot
        self._confined = confined
        self._template_child = template_child
        self._engine: Engine | None = None
        self._loading = EngineStatus(step_started=time.monotonic())
        self._prompts: PromptService | None = None
        self._gate: Gate | None = None
        self._told_to_end = threading.Event()
        self._epoch = boot.epoch
        self._ready: Ready | None = None
        self._ceiling = DeviceCeiling(boot.device_limit_bytes)
        self._holds_lock = False
        self.adoption = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        """Readable when the main thread is to outlive the parent."""
        self.adopted = threading.Event()
        """Set when the main thread does."""
        hello = Hello(boot.epoch, PROTOCOL_VERSION, boot.token, os.getpid())
        self._channel = _kind_of_channel(boot)(
            boot.endpoint, hello, on_message=self._route, heartbeat=self._heartbeat
        )

    def start(self) -> None:
        """Start the channel and the engine. The prepare threads start once the model is loaded."""
        threads.start("channel", self._channel.run)
        threads.start("engine", self._run_engine)

    def _run_engine(self) -> None:
        boot = self._boot
        started = time.monotonic()
        try:
            backend, drafter, compiler, prompts = self._loaded()
        except ModelLoadError as err:
            logger.error("load_failed reason=%s", err)
            self._say_farewell(_load_failed(boot.epoch, err))
            threads.end_process(EXIT_LOAD_FAILED)
        self._engine = Engine(
            backend,
            self._channel.send,
            epoch=boot.epoch,
            max_running=boot.n_sequences,
            batch_tokens=backend.facts.batch_tokens,
            drafter=drafter,
            guide=compiler.guide,
        )
        engine = self._engine

        def is_idle() -> bool:
            return engine.progress.phase is EnginePhase.IDLE

        self._gate = Gate(
            compiler,
            engine.inbox.put,
            self._channel.send,
            is_idle,
            (engine.breakers,),
        )
        prompts.start(threads.start, is_idle)
        if backend.facts.generates:  # else there is no constraint to compile
            threads.start("gate", self._gate.run)
        facts = msgspec.structs.replace(
            backend.facts,
            chat_template=prompts.template,
            template_error=prompts.template_error,
            confined=self._confined,
        )
        self._ready = Ready(boot.epoch, facts, time.monotonic() - started)
        self._channel.send(self._ready)
        try:
            self._engine.run()
        except DecodeFailed:
            self._told_to_end.wait(FAREWELL_S)
            threads.end_process(EXIT_DECODE_FAILED)

    def _loaded(self) -> tuple[Backend, Drafter | None, Compiler, PromptService]:
        """The model, with all that prompts and constraints need of it. Raises `ModelLoadError`."""
        model = self._boot.model
        require(model, self._confined)
        backend, drafter = loading.load(
            model, self._boot.n_sequences, self._load, self._report_load
        )
        compiler = Compiler(backend, self._hold_lock)
        self._prompts = prompts = PromptService(
            backend, model, self._channel.send, compiler.compile, self._embed
        )
        prompts.try_template(self._template_child)
        if backend.facts.generates and not self._boot.is_awaited:
            compiler.read_vocabulary()
        return backend, drafter, compiler, prompts

    def _load(self, config: ModelConfig, n_sequences: int, on_progress: LoadProgress) -> Backend:
        if config.backend is BackendKind.FAKE:
            from engine_worker.backend.fake.backend import FakeBackend
            from engine_worker.backend.fake.channel import link_of

            return FakeBackend.load(config, n_sequences, on_progress, link_of(self._channel))
        from engine_worker.backend.llama.backend import LlamaBackend

        is_draft = config.model_path != self._boot.model.model_path
        within = () if is_draft else self._boot.within
        return LlamaBackend.load(config, n_sequences, on_progress, within, self._ceiling)

    def _report_load(self, fraction: float) -> None:
        self._channel.send(Loading(self._boot.epoch, fraction))

    @contextlib.contextmanager
    def _hold_lock(self) -> Iterator[None]:
        """The context manager for a call that holds the interpreter's lock for long. The front is
        told before the call, because the channel's thread is silent during it."""
        self._holds_lock = True
        self._channel.send(self._heartbeat())
        self._channel.wait_sent(TOLD_S)
        try:
            yield
        finally:
            self._holds_lock = False
            time.sleep(BREATH_S)

    def _say_farewell(self, message: FromWorker) -> None:
        self._channel.send(message)
        self._told_to_end.wait(FAREWELL_S)

    def _route(self, message: ToWorker) -> None:
        match message:
            case Prepare() | Detokenize() | Embed():
                if self._prompts is not None:
                    self._prompts.put(message)
            case Cancel(epoch, request) if self._drops(epoch, request):
                pass
            case Generate():
                if self._gate is not None:
                    self._gate.admit(message)
            case Cancel() | ExportKv() | ImportKv():
                if self._engine is not None:
                    self._engine.inbox.put(message)
            case Attach():
                self._attach(message)
            case Shutdown():
                logger.info("shutdown_requested")
                self._told_to_end.set()
                threads.end_process(0)

    def _embed(self, wanted: Wanted) -> None:
        if self._engine is not None:
            self._engine.inbox.put(wanted)

    def _drops(self, epoch: Epoch, request: RequestNo) -> bool:
        """Cancel a question to the prepare threads, or a sequence that the engine has not got yet.
        False if there is none of that number."""
        if self._prompts is not None and self._prompts.cancel(epoch, request):
            return True
        return self._gate is not None and self._gate.cancel(epoch, request)

    def _attach(self, message: Attach) -> None:
        """Serve another front from now on.

        The engine's messages before it handles this carry the old epoch, and the new front's
        requests come after it in the inbox."""
        engine, ready, epoch = self._engine, self._ready, message.successor
        if engine is None or ready is None or self._gate is None:
            raise LinkError("told to attach to another front before there was a model")
        logger.info("attached epoch=%d successor=%d", message.epoch, epoch)
        os.eventfd_write(self.adoption, 1)
        self.adopted.wait()
        self._gate.drop_all()
        self._epoch = epoch
        self._ready = msgspec.structs.replace(ready, epoch=epoch)
        hello = Hello(epoch, PROTOCOL_VERSION, message.token, os.getpid())
        self._channel.move(message.endpoint, epoch, (hello, self._ready))
        engine.inbox.put(message)

    def _heartbeat(self) -> Heartbeat:
        return Heartbeat(
            self._epoch,
            self._loading if self._engine is None else self._engine.progress,
            time.monotonic(),
            PrepareStatus() if self._prompts is None else self._prompts.status(),
            self._holds_lock,
        )


def _kind_of_channel(boot: Boot) -> type[Channel]:
    if boot.model.backend is BackendKind.FAKE:
        from engine_worker.backend.fake.channel import FakeChannel

        return FakeChannel
    return Channel


def _load_failed(epoch: Epoch, err: ModelLoadError) -> LoadFailed:
    if isinstance(err, MemoryShort):
        return LoadFailed(epoch, str(err), True, err.needed_bytes, err.available_bytes)
    return LoadFailed(epoch, str(err), False)
