"""Routing and batching policies: plugins with `on_route` or `on_batch`, asked once for each prompt.

A policy chooses among what is right anyway, so it fails no request. A prompt waits for its policies
for `DECISION_S` at most. Then, and where a policy raises, dies or returns nonsense, the built-in
choice holds. A policy that goes on failing is not asked for a while.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import msgspec
from msgspec import Struct

from gpufc.ids import WorkerName
from gpufc.protocol import AS_IT_CAME, Batching
from supervisor.dispatch.advising import Advice, Case
from supervisor.plugins import structs
from supervisor.plugins.process import PluginFailed, PluginProcess, PluginRefused
from supervisor.plugins.requests import Nonsense, info_of
from supervisor.plugins.trust import Trust

logger = logging.getLogger(__name__)

T = TypeVar("T")

HOOKS = frozenset({"on_route", "on_batch"})

DECISION_S = 0.05
"""A call takes less than a millisecond. A reader does not notice a first token that is so late."""


class Decisions(Struct):
    """A policy's figures in `/stats`.

    Of the calls `asked`, `followed` gave a wish and `failed` no usable answer, the `late` ones
    among them. `skipped` prompts were not shown to it: it was off, or its process was starting.
    """

    asked: int = 0
    followed: int = 0
    failed: int = 0
    late: int = 0
    skipped: int = 0
    is_off: bool = False


class Policy:
    """One plugin with a policy's hooks."""

    def __init__(self, plugin: PluginProcess, clock: Callable[[], float]) -> None:
        self.plugin = plugin
        self._clock = clock
        self._trust = Trust()
        self._decisions = Decisions()

    @property
    def decisions(self) -> Decisions:
        """Its figures now."""
        self._decisions.is_off = self._trust.is_off(self._clock())
        return self._decisions

    async def ask(self, hook: str, check: Callable[[Any], T], **arguments: Any) -> T | None:
        """Its wish, checked; None without one, and after a failure."""
        counts = self.decisions
        if counts.is_off or not self.plugin.is_ready:
            counts.skipped += 1
            return None
        counts.asked += 1
        try:
            value = await self.plugin.call(hook, **arguments)
            wish = None if value is None else check(value)
        except asyncio.CancelledError:
            counts.late += 1
            self._failed(hook, "it took too long")
            raise
        except PluginRefused:
            self._failed(hook, "a policy cannot refuse")
        except (PluginFailed, Nonsense, msgspec.ValidationError) as err:
            self._failed(hook, str(err))
        else:
            self._trust.held()
            counts.followed += wish is not None
            return wish
        return None

    def _failed(self, hook: str, reason: str) -> None:
        name = self.plugin.name
        self._decisions.failed += 1
        logger.warning("policy_failed plugin=%s hook=%s error=%s", name, hook, reason)
        rest_s = self._trust.failed(self._clock())
        if rest_s:
            logger.warning("policy_off plugin=%s for_s=%.0f", name, rest_s)


class Policies:
    """All policies in their order. The first wish of each kind holds. Implements `Adviser`."""

    def __init__(
        self, plugins: Sequence[PluginProcess], clock: Callable[[], float] = time.monotonic
    ) -> None:
        """The plugins are loaded: their hooks are known."""
        self._policies = [Policy(one, clock) for one in plugins if HOOKS & one.hooks]
        self._running: set[asyncio.Task[None]] = set()

    def __bool__(self) -> bool:
        return bool(self._policies)

    def decisions(self, plugin: PluginProcess) -> Decisions | None:
        """A plugin's figures; None if it is no policy."""
        return next((one.decisions for one in self._policies if one.plugin is plugin), None)

    def ask(self, case: Case, done: Callable[[Advice], None]) -> None:
        task = asyncio.create_task(self._ask(case, done))
        self._running.add(task)
        task.add_done_callback(self._running.discard)

    async def _ask(self, case: Case, done: Callable[[Advice], None]) -> None:
        try:
            workers, batching = await asyncio.gather(self._route(case), self._batch(case))
            advice = Advice(workers or (), batching or AS_IT_CAME)
        except Exception:  # the boundary of a request: it must get its turn
            logger.exception("policies_broke request=%s", case.request.id)
            advice = Advice()
        done(advice)

    async def _route(self, case: Case) -> tuple[WorkerName, ...] | None:
        workers = [
            structs.Worker(name, load.n_sequences, load.capacity, load.n_prefill)
            for name, load in case.loads.items()
        ]

        def check(value: Any) -> tuple[WorkerName, ...]:
            names = (value,) if isinstance(value, str) else msgspec.convert(value, tuple[str, ...])
            unknown = [name for name in names if name not in case.loads]
            if unknown:
                raise Nonsense(f"it chose a worker that it was not shown: {unknown[0]:.40}")
            return tuple(map(WorkerName, dict.fromkeys(names)))

        return await self._first("on_route", check, case, workers=workers)

    async def _batch(self, case: Case) -> Batching | None:
        load = structs.Load(case.n_running, case.n_waiting, case.n_slots)

        def check(value: Any) -> Batching:
            return msgspec.convert(value, Batching)

        return await self._first("on_batch", check, case, load=load)

    async def _first(
        self, hook: str, check: Callable[[Any], T], case: Case, **arguments: Any
    ) -> T | None:
        """The first wish within the time."""
        asked = [policy for policy in self._policies if hook in policy.plugin.hooks]
        if not asked:
            return None
        info = info_of(case.request, case.principal)
        sequence = structs.Sequence(
            case.arrival.n_tokens,
            case.request.max_tokens,
            case.request.n,
            list(case.arrival.prefix),
        )
        try:
            async with asyncio.timeout(DECISION_S):
                for policy in asked:
                    wish = await policy.ask(hook, check, info=info, sequence=sequence, **arguments)
                    if wish is not None:
                        return wish
        except TimeoutError:
            pass
        return None
