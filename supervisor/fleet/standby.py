"""Warm spares: worker processes that have imported all modules and wait for a boot message.

`SparePool` owns at most one spare of a fleet. The spare is spawned while no worker loads, or beside
a load for a request, handed out at the next spawn, and ended with the fleet. It knows nothing of
models, links and states.
"""

import asyncio
import contextlib
import logging
import os
import secrets
import signal
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from gpufc.config import BackendKind, Config, Spread, Standby
from supervisor.fleet.followed import ExitListener
from supervisor.fleet.port import SpareState, SpareStatus
from supervisor.fleet.process import WorkerProcess

logger = logging.getLogger(__name__)

BACKOFF_S = 1.0
BACKOFF_LIMIT_S = 600.0
BACKOFF_FACTOR = 4.0
"""Pauses after spares that died unused: where spares die, the pool must not spin."""

WARM_AFTER_S = 0.2
"""A spare that sleeps and is older than this waits for its boot message: its imports never sleep so
long. Only displayed."""

BESIDE_S = 0.05
"""From a load to a spare beside it: the load has its process by then."""

N_CORES = len(os.sched_getaffinity(0))

END_LIMIT_S = 5.0
LINK_PREFIX = ".spare-"


def spare_backend(config: Config) -> BackendKind:
    """The engine that a spare imports: the first model's."""
    return next(iter(config.models.values()), config.of_folder).backend


class Spare:
    """One spare process. The pool hears its exit until it is handed out, then the new owner does.

    It begins with a log of its own. When its boot message comes, it opens the name `log_link`,
    which by then points to the log of its worker.
    """

    def __init__(
        self,
        command: Sequence[str],
        logs: Path,
        backend: BackendKind,
        on_exit: ExitListener = lambda si_code, si_status: None,
    ) -> None:
        """Spawn it. Raises `OSError`."""
        self.log_link = logs / f"{LINK_PREFIX}{secrets.token_hex(4)}"
        self.since = time.monotonic()
        self.on_exit = on_exit
        log = logs / "spare.log"
        extra = {"GPUFC_SPARE_LOG": str(self.log_link), "GPUFC_SPARE_BACKEND": backend.value}
        self.process = WorkerProcess(command, log, self._ended, extra=extra)

    def hand_over(self, log: Path, on_exit: ExitListener) -> WorkerProcess:
        """Give it to a new owner. It writes to `log` once it is booted."""
        self.on_exit = on_exit
        with contextlib.suppress(OSError):  # without the link it goes on with its own log
            log.touch(mode=0o600)  # the worker opens an existing file only
            self.log_link.symlink_to(log)
        return self.process

    def status(self) -> SpareStatus:
        """Its row in `/stats`."""
        vitals = self.process.vitals()
        asleep = vitals is not None and vitals.run_state == "S"
        old = time.monotonic() - self.since > WARM_AFTER_S
        return SpareStatus(
            pid=self.process.pid,
            state=SpareState.WARM if asleep and old else SpareState.STARTING,
            rss_bytes=self.process.rss_bytes(),
        )

    def _ended(self, si_code: int, si_status: int) -> None:
        with contextlib.suppress(OSError):  # its end must be told, whatever became of the folder
            self.log_link.unlink(missing_ok=True)
        self.on_exit(si_code, si_status)


class SparePool:
    """At most one spare. All methods belong to the event loop's thread.

    `quiet` says whether no worker is coming up, so that a spare may be spawned. `delay_s` passes
    between two questions.
    """

    def __init__(
        self,
        command: Sequence[str],
        logs: Path,
        backend: BackendKind,
        quiet: Callable[[], bool],
        *,
        delay_s: float,
        backoff_s: float = BACKOFF_S,
        first: Spare | None = None,
    ) -> None:
        """`first` was spawned before the pool existed. The pool owns it from now on if it lives."""
        self._command = command
        self._logs = logs
        self._backend = backend
        self._quiet = quiet
        self._delay_s = delay_s
        self._backoff_s = backoff_s
        self._spare = first if first is not None and first.process.is_alive() else None
        if self._spare is not None:
            self._spare.on_exit = self._lost
        self._timer: asyncio.TimerHandle | None = None
        self._is_beside = False
        """Whether the next refill need not wait until no worker comes up."""
        self._n_lost = 0
        self._closed = False
        self._gone = asyncio.Event()
        for link in logs.glob(f"{LINK_PREFIX}*"):  # of a front that was killed
            link.unlink(missing_ok=True)

    def rows(self) -> list[SpareStatus]:
        """The spare's row, if there is a spare."""
        return [self._spare.status()] if self._spare else []

    def refill_in(self, delay_s: float) -> None:
        """A worker became ready: spawn a spare after this time, if there is none. Replayed streams
        are prefilled first."""
        if self._spare is not None or self._closed:
            return
        if self._timer is not None:
            is_later = self._timer.when() > asyncio.get_running_loop().time() + delay_s
            if self._n_lost or not is_later:
                return
            self._timer.cancel()
        self._refill_in(delay_s)

    def refill_beside_load(self) -> None:
        """A model is being loaded that a request names; the next one may be wanted at once. Spawn a
        spare beside it, on another core, once it has taken the one that there is."""
        if not self._closed and not self._n_lost and N_CORES > 1:
            if self._timer is not None:
                self._timer.cancel()
            self._is_beside = True
            self._refill_in(BESIDE_S)

    def take(self, log: Path, on_exit: ExitListener) -> WorkerProcess | None:
        """The living spare, if there is one. The caller owns it from now on."""
        spare = self._spare
        if spare is None or not spare.process.is_alive():
            return None
        self._spare = None
        self._n_lost = 0
        return spare.hand_over(log, on_exit)

    def end(self) -> None:
        """Kill the spare and spawn no other one. `wait_ended` waits for its end."""
        self._closed = True
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._spare is None:
            self._gone.set()
        else:
            self._spare.process.signal(signal.SIGKILL, group=True)

    async def wait_ended(self) -> None:
        """Wait until the spare has been reaped."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(END_LIMIT_S):
                await self._gone.wait()

    def _refill_in(self, delay_s: float) -> None:
        self._timer = asyncio.get_running_loop().call_later(delay_s, self._refill)

    def _refill(self) -> None:
        self._timer = None
        is_beside, self._is_beside = self._is_beside, False
        if self._spare is not None:
            return
        if not (is_beside or self._quiet()):
            self._refill_in(self._delay_s)
            return
        try:
            self._spare = Spare(self._command, self._logs, self._backend, self._lost)
        except OSError as err:
            logger.warning("spare_not_started: %s", err)
            self._back_off()

    def _lost(self, si_code: int, si_status: int) -> None:
        self._spare = None
        if self._closed:
            self._gone.set()
            return
        logger.warning("spare_died si_code=%d status=%d", si_code, si_status)
        self._back_off()

    def _back_off(self) -> None:
        delay_s = min(BACKOFF_LIMIT_S, self._backoff_s * BACKOFF_FACTOR**self._n_lost)
        self._n_lost = min(self._n_lost + 1, 10)
        self._refill_in(delay_s)


def spare_pool(
    config: Config,
    command: Sequence[str],
    logs: Path,
    quiet: Callable[[], bool],
    *,
    delay_s: float,
    first: Spare | None,
) -> SparePool | None:
    """The pool that a configuration wants, with the arguments of `SparePool`; None without one."""
    if config.fleet.standby is Standby.NONE or not _has_local_workers(config):
        return None
    backend = spare_backend(config)
    return SparePool(command, logs, backend, quiet, delay_s=delay_s, first=first)


def _has_local_workers(config: Config) -> bool:
    models = list(config.models.values())
    local = any(one.spread is Spread.FRONT or one.local_replicas for one in models)
    return local or not models or config.fleet.models_dir is not None
