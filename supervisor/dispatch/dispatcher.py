"""The port through which requests enter, and the fleet's listener. Sorts both by model.

Everything happens in the event loop's thread. `group.py` decides about sequences.
"""

import asyncio
import itertools
import logging
import time
from collections.abc import Callable, Iterator

from msgspec import Struct

from gpufc.config import AdmissionConfig
from gpufc.errors import EngineUnavailable, Overloaded, RequestError
from gpufc.facts import ModelFacts
from gpufc.ids import RequestNo
from gpufc.protocol import (
    Detokenized,
    Embedded,
    Finished,
    Generate,
    Prepared,
    Refused,
    Step,
)
from supervisor.dispatch.advising import Adviser
from supervisor.dispatch.asking import Asking
from supervisor.dispatch.conversion import from_generate
from supervisor.dispatch.demand import Demand
from supervisor.dispatch.group import ModelGroup
from supervisor.dispatch.ledger import Ledger
from supervisor.dispatch.losses import Losses
from supervisor.dispatch.outages import Outages
from supervisor.dispatch.overview import OpenRequest
from supervisor.dispatch.port import ServedFleet
from supervisor.dispatch.request import GenerationRequest, Principal
from supervisor.dispatch.stream import ResponseStream
from supervisor.dispatch.stream_log import Restore
from supervisor.fleet.exit_reason import ExitReason
from supervisor.fleet.port import Condition, ConditionStatus, WorkerHandle, WorkerMessage
from supervisor.fleet.states import WorkerState
from supervisor.routing.canary import Canary

logger = logging.getLogger(__name__)

LEAVING_S = 1.0
"""When a client of a front that is about to stop may ask again, at another one."""


class Occupancy(Struct, frozen=True):
    """Sequences at this moment."""

    running: int
    waiting: int


class Dispatcher:
    """Implements `FleetListener`. Made in the event loop's thread; has nothing to stop."""

    def __init__(
        self,
        fleet: ServedFleet,
        limits: AdmissionConfig,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.ledger = Ledger()
        self.losses = Losses()
        self._fleet = fleet
        self._limits = limits
        self._clock = clock
        self._numbers = map(RequestNo, itertools.count(1))
        self.asking = Asking(self._numbers, clock, self.ledger, self)
        """For questions of which no sequence comes."""
        self._groups: dict[str, ModelGroup] = {}
        self._draining: float | None = None
        self._is_leaving = False
        self._has_successor = False
        self._changed = asyncio.Event()
        self.demand = Demand(self._groups)
        self._outages = Outages()
        self.adviser: Adviser | None = None
        """The operator's policies, set before the first request."""

    # the port

    def submit(self, request: GenerationRequest, principal: Principal) -> ResponseStream:
        """Accept a request. It runs until it ends or its stream is cancelled.

        Raises `Overloaded` (queue full, draining), `RateLimited` (too many sequences of the
        principal), `EngineUnavailable` (failed for good), `EngineCrashSuspect`, `InvalidRequest`
        (more sequences than places), `ModelNotFound`.
        """
        try:
            self.require_service(request.model)
            group = self.group(request.model)
            stream = group.submit(request, principal)
        except RequestError as err:
            self.ledger.rejected(err, request.model)
            raise
        self.require_worker(request.model, group)
        return stream

    def require_room(self, principal: Principal) -> None:
        """Check that some model would accept one more sequence now.

        Raises the refusal of the first model if none would: `Overloaded` or `EngineUnavailable`.
        """
        refusals = []
        for model in self._fleet.models():
            try:
                self.require_service(model)
                self.group(model).admission.require_room(1, principal.owner)
            except RequestError as err:
                refusals.append(err)
            else:
                return
        if refusals:
            self.ledger.rejected(refusals[0])
            raise refusals[0]

    def require_durable_share(self, model: str) -> None:
        """Check that the model may get one more durable request. Raises `Overloaded`, and
        `EngineUnavailable`."""
        self.require_service(model)
        self.group(model).admission.require_share()

    def resume(self, model: str, sequence: Generate) -> ResponseStream:
        """Continue a sequence that another front began, from the tokens that it has.

        `sequence` is the message that front would send to a worker. The stream has the new text
        only. The sequence was accepted there, so neither a full queue nor a drain refuses it:
        raises `EngineUnavailable` only.
        """
        self._require_not_failed(model)
        log = from_generate(next(self._numbers), model, int(time.time()), sequence)
        group = self.group(model)
        stream = group.resume(log)
        self.require_worker(model, group)
        return stream

    def go_on(
        self, request: GenerationRequest, principal: Principal, restore: Restore
    ) -> ResponseStream:
        """Continue a request that another cell has begun: `restore` gives its new logs the tokens
        that they have. Neither a full queue nor a drain nor the principal's limits refuse it:
        raises `EngineUnavailable` only. All of its tokens are charged to the principal here."""
        self._require_not_failed(request.model)
        group = self.group(request.model)
        stream = group.go_on(request, principal, restore)
        self.require_worker(request.model, group)
        return stream

    # for health checks, statistics and handlers

    def facts(self, model: str) -> ModelFacts | None:
        """The facts of the model's latest worker; None before the first one was ready."""
        return group.facts if (group := self._groups.get(model)) else None

    def condition(self, model: str | None = None) -> Condition:
        """The fleet's condition, or `draining` since `leave` or `drain` was called."""
        if self._draining is not None:
            return Condition(ConditionStatus.DRAINING, "the server is stopping", self._draining)
        if self._is_leaving:
            return Condition(ConditionStatus.DRAINING, "the server is about to stop", LEAVING_S)
        return self._fleet.condition(model)

    @property
    def occupancy(self) -> Occupancy:
        """How many sequences of all models run and wait."""
        each = self.occupancies().values()
        return Occupancy(sum(one.running for one in each), sum(one.waiting for one in each))

    def occupancies(self) -> dict[str, Occupancy]:
        """How many sequences run and wait, for each model that has had a request."""
        return {
            model: Occupancy(group.admission.n_running, group.admission.n_waiting)
            for model, group in self._groups.items()
        }

    def adapters_in_use(self, model: str) -> tuple[frozenset[str], frozenset[str]]:
        """The names of the LoRA adapters of a model's running sequences, and of waiting ones."""
        group = self._groups.get(model)
        return group.adapters_in_use() if group else (frozenset(), frozenset())

    def open_requests(self) -> Iterator[OpenRequest]:
        """The requests of all models that have not ended. To be read at once."""
        return (one for group in self._groups.values() for one in group.open_requests())

    @property
    def now(self) -> float:
        """The time by the ledger's clock."""
        return self._clock()

    async def wait_until(self, condition: Callable[[], bool]) -> None:
        """Wait for a condition that only changes with the fleet's condition or with idleness."""
        while not condition():
            self._changed.clear()
            await self._changed.wait()

    # the end

    def leave(self) -> None:
        """Be in the condition `draining`, and serve on: balancers look elsewhere from now on."""
        self._is_leaving = True
        self._changed.set()

    def drain(self, retry_after_s: float = 5.0) -> None:
        """Refuse new requests. Accepted ones go on."""
        self._draining = max(1.0, retry_after_s)
        self._changed.set()

    def stay(self) -> None:
        """Take requests again, after `leave` or `drain`."""
        self._is_leaving, self._draining = False, None
        self._changed.set()

    @property
    def is_drained(self) -> bool:
        """Whether new requests are refused and none is left."""
        return self._draining is not None and self.idle

    def handed_over(self) -> None:
        """Another front serves. It computes for this one with the workers that there are; a model
        without one is loaded there, for requests on its own connections."""
        self._has_successor = True
        for model, group in self._groups.items():
            if not group.has_worker:
                self.demand.refuse(model, _elsewhere())

    @property
    def idle(self) -> bool:
        """Whether no sequence is left, running, waiting or being cancelled."""
        return all(group.idle for group in self._groups.values())

    async def wait_idle(self, timeout_s: float) -> bool:
        """Wait for the last sequence's end. False if sequences are left after `timeout_s`."""
        try:
            async with asyncio.timeout(timeout_s):
                await self.wait_until(lambda: self.idle)
        except TimeoutError:
            return False
        return True

    def end_all(self, error: RequestError) -> None:
        """End every request with this error."""
        for group in self._groups.values():
            group.end_all(error)

    # the fleet's listener

    def worker_ready(self, worker: WorkerHandle) -> None:
        group = self.group(worker.model)
        group.admission.replicas = self._replicas(worker.model)
        group.worker_ready(worker)
        self._changed.set()

    def canary_began(self, worker: WorkerHandle, canary: Canary) -> None:
        self.group(worker.model).canary_began(worker, canary)

    def worker_message(self, worker: WorkerHandle, message: WorkerMessage) -> None:
        group = self._groups[worker.model]
        match message:
            case Step():
                group.step(worker, message)
            case Prepared() | Detokenized() | Embedded():
                group.settle(worker, message)
            case Refused():
                group.refused(worker, message)
            case Finished():
                group.finished(worker, message.request)

    def worker_draining(self, worker: WorkerHandle) -> None:
        group = self._groups[worker.model]
        group.worker_draining(worker)
        self._outages.watch(group)
        self._changed.set()

    def worker_lost(self, worker: WorkerHandle, reason: ExitReason) -> None:
        group = self._groups[worker.model]
        group.worker_lost(worker, reason)
        self._outages.watch(group)
        self.condition_changed()

    def engine_proven(self, worker: WorkerHandle) -> None:
        self.group(worker.model).engine_proven(worker)

    def engine_renewed(self, model: str) -> None:
        self.group(model).engine_renewed()

    def limits_changed(self) -> None:
        """The configuration's limits have new values. Waiting sequences may start."""
        for group in self._groups.values():
            group.limits_changed(self._limits)

    def condition_changed(self) -> None:
        for model, group in self._groups.items():
            condition = self._fleet.condition(model)
            if condition.status is ConditionStatus.FAILED:
                group.fail_waiting(_unavailable(condition))
            elif not (group.idle or group.has_worker) and self._is_loading(model):
                group.outage.load_got_on()
        self._changed.set()
        self.demand.changed(None)

    def _is_loading(self, model: str) -> bool:
        rows = self._fleet.workers()
        return any(row.model == model and row.state is WorkerState.LOADING for row in rows)

    def require_worker(self, model: str, group: ModelGroup) -> None:
        """Have the model loaded if it is not, and watch how long that takes."""
        if not group.has_worker:
            self.demand.changed(model)
            self._outages.watch(group)

    def require_service(self, model: str, *, is_accepted: bool = False) -> None:
        """Raises `Overloaded` or `EngineUnavailable` unless the model takes requests. A drain does
        not refuse what another front has accepted."""
        if self._draining is not None and not is_accepted:
            raise Overloaded("The server is stopping", retry_after_s=self._draining)
        self._require_not_failed(model)
        if self._has_successor and not self.group(model).has_worker:
            raise _elsewhere()

    def _require_not_failed(self, model: str) -> None:
        condition = self._fleet.condition(model)
        if condition.status is ConditionStatus.FAILED:
            raise _unavailable(condition)

    def group(self, model: str) -> ModelGroup:
        """The model's sequences and workers, which this object has made."""
        group = self._groups.get(model)
        if group is None:
            group = self._groups[model] = ModelGroup(
                self._limits,
                replicas=self._replicas(model),
                numbers=self._numbers,
                ledger=self.ledger.of(model),
                losses=self.losses,
                clock=self._clock,
                on_idle=lambda: self._became_idle(model),
                lacking=lambda: self._fleet.condition(model).detail,
                adviser=lambda: self.adviser,
            )
        return group

    def embedded(self, model: str, group: ModelGroup) -> None:
        """A request for embeddings has ended."""
        if not group.embedding.n_requests:
            self.demand.changed(model)
        self._changed.set()

    def _became_idle(self, model: str) -> None:
        self._changed.set()
        self.demand.changed(model)

    def _replicas(self, model: str) -> int:
        places = {row.name for row in self._fleet.workers() if row.model == model}
        return max(1, len(places))


def _elsewhere() -> EngineUnavailable:
    return EngineUnavailable(
        "Another front of this service has taken over: ask again, on a new connection",
        retry_after_s=1.0,
    )


def _unavailable(condition: Condition) -> EngineUnavailable:
    return EngineUnavailable(
        f"The engine cannot serve: {condition.detail}",
        retry_after_s=max(1.0, condition.retry_after_s),
    )
