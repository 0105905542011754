"""Makes the messages from the front's parts. Reads, and changes nothing; never blocks."""

import os
import time
from collections.abc import Iterable, Iterator, Sequence

from msgspec import structs

from supervisor.access.keys import Key
from supervisor.devices.snapshot import Device, Host, Snapshot
from supervisor.dispatch.dispatcher import Occupancy
from supervisor.dispatch.durations import Percentiles
from supervisor.dispatch.outages import Outage
from supervisor.dispatch.overview import OpenRequest
from supervisor.fleet.crash_store import CrashSummary
from supervisor.fleet.port import WorkerStatus
from supervisor.fleet.process import rss_bytes_of
from supervisor.fleet.states import WorkerState
from supervisor.http.dashboard.alarms import alarms
from supervisor.http.dashboard.messages import (
    DeathRow,
    KeyRow,
    Keys,
    Limits,
    ModelRow,
    PauseRow,
    Point,
    RequestRow,
    Spread,
    Tick,
    Totals,
    WorkerRow,
)
from supervisor.http.edge.context import Services

MOST_REQUESTS = 128
"""Rows of open requests in one tick: the oldest ones."""

RECENT_S = 180.0
"""Pauses of streams are sent for losses that are not older: the page draws no older ones."""

_BEST_FIRST = (
    *(WorkerState.READY, WorkerState.DRAINING, WorkerState.TRYING, WorkerState.LOADING),
    *(WorkerState.STARTING, WorkerState.BACKOFF, WorkerState.STOPPING, WorkerState.FAILED),
    WorkerState.STOPPED,
)
_EMPTY = Snapshot(host=Host(), devices=(), sources=())


class Clock:
    """Turns the dispatcher's monotonic seconds into unix seconds, at one moment."""

    def __init__(self, now: float) -> None:
        self.at = time.time()
        self._offset = self.at - now

    def unix(self, moment: float) -> float:
        return round(moment + self._offset, 3)

    def unless_none(self, moment: float | None) -> float | None:
        return None if moment is None else self.unix(moment)


def tick(front: Services, ended: Sequence[RequestRow]) -> Tick:
    """The picture of this moment."""
    dispatcher, fleet = front.dispatcher, front.fleet
    clock = Clock(dispatcher.now)
    condition, workers = dispatcher.condition(), fleet.workers()
    machine = front.devices.snapshot() if front.devices else _EMPTY
    occupancy = dispatcher.occupancy
    requests, tokens = dispatcher.ledger.requests, dispatcher.ledger.tokens
    rows = tuple(open_rows(dispatcher.open_requests(), clock))
    return Tick(
        point=_point(front, workers, machine, occupancy, clock.at),
        status=condition.status,
        detail=condition.detail,
        totals=Totals(**structs.asdict(requests), **_tokens(structs.asdict(tokens))),
        resume_gap=_spread(dispatcher.ledger.resume_gap.percentiles()),
        request=_spread(dispatcher.ledger.request.percentiles()),
        models=tuple(_models(front, workers)),
        workers=tuple(_worker(front, row) for row in workers),
        spares=tuple(fleet.spares()),
        requests=rows[:MOST_REQUESTS],
        n_requests=len(rows),
        ended=tuple(ended),
        host=machine.host,
        devices=machine.devices,
        sources=machine.sources,
        alarms=alarms(
            condition,
            workers,
            machine.host,
            machine.sources,
            occupancy.waiting,
            front.config.admission.queue_limit,
        ),
        front_rss_bytes=rss_bytes_of(os.getpid()),
    )


def _tokens(counters: dict[str, int]) -> dict[str, int]:
    return {{"prompt_cached": "cached"}.get(name, name): n for name, n in counters.items()}


def _point(
    front: Services,
    workers: Sequence[WorkerStatus],
    machine: Snapshot,
    occupancy: Occupancy,
    at: float,
) -> Point:
    ledger, host = front.dispatcher.ledger, machine.host
    tokens = ledger.tokens
    total = host.memory_total_bytes
    return Point(
        at=round(at, 3),
        generated=tokens.generated,
        prompt=tokens.prompt,
        cached=tokens.prompt_cached,
        running=occupancy.running,
        waiting=occupancy.waiting,
        first_token=_spread(ledger.time_to_first_token.percentiles()),
        between_tokens=_spread(ledger.inter_token.percentiles()),
        kv_used=sum(row.engine.kv_cells_used for row in workers if row.engine),
        kv_cells=sum(row.facts.kv_cells for row in workers if row.facts),
        cpu=round(host.cpu_percent / 100, 3),
        memory=round(1 - host.memory_available_bytes / total, 3) if total else 0.0,
        devices=tuple(_utilization(device) for device in machine.devices),
    )


def _utilization(device: Device) -> float | None:
    return None if device.utilization is None else round(device.utilization, 3)


def _spread(found: Percentiles) -> Spread:
    return Spread(
        p50=None if found.p50 is None else round(found.p50, 5),
        p99=None if found.p99 is None else round(found.p99, 5),
    )


def _models(front: Services, workers: Sequence[WorkerStatus]) -> Iterator[ModelRow]:
    occupancies = front.dispatcher.occupancies()
    for name in front.fleet.models():
        rows = [row for row in workers if row.model == name]
        best = min(rows, key=lambda row: _BEST_FIRST.index(row.state), default=None)
        occupancy = occupancies.get(name, Occupancy(0, 0))
        facts = best.facts if best else None
        rate = front.dispatcher.ledger.of(name).generation
        yield ModelRow(
            name=name,
            state=best.state if best else WorkerState.STOPPED,
            detail=best.detail if best else "",
            path=best.model_path if best else None,
            architecture=facts.architecture if facts else "",
            n_params=facts.n_params if facts else 0,
            size_bytes=facts.model_bytes if facts else 0,
            n_ctx=facts.n_ctx if facts else 0,
            running=occupancy.running,
            waiting=occupancy.waiting,
            tokens_per_second=round(rate.per_second(front.dispatcher.now), 1),
            generates=facts.generates if facts else True,
            takes_chats=not facts.template_error if facts else True,
            adapters=front.fleet.adapters(name),
        )


def _worker(front: Services, row: WorkerStatus) -> WorkerRow:
    rate = front.dispatcher.ledger.by_worker.get(row.name)
    facts, engine = row.facts, row.engine
    return WorkerRow(
        name=row.name,
        model=row.model,
        state=row.state,
        epoch=row.epoch,
        detail=row.detail,
        pid=row.pid,
        restarts=row.restarts,
        last_exit=row.last_exit,
        loading=round(row.loading_fraction, 3),
        loaded_in_s=row.loaded_in_s,
        rss_bytes=row.rss_bytes,
        running=engine.n_running if engine else 0,
        waiting=engine.n_waiting if engine else 0,
        kv_used=engine.kv_cells_used if engine else 0,
        kv_cells=facts.kv_cells if facts else 0,
        tokens_per_second=round(rate.per_second(front.dispatcher.now), 1) if rate else 0.0,
        n_gpu_layers=facts.n_gpu_layers if facts else 0,
        n_layers=facts.n_layers if facts else 0,
        devices=tuple(device.description or device.name for device in facts.devices)
        if facts
        else (),
    )


def open_rows(requests: Iterable[OpenRequest], clock: Clock) -> Iterator[RequestRow]:
    """A row for each request, the oldest first. Requests beyond `MOST_REQUESTS` have short rows,
    which are only counted."""
    for number, one in enumerate(requests):
        if number >= MOST_REQUESTS:
            yield _UNSHOWN
        else:
            yield request_row(one, clock)


_UNSHOWN = RequestRow(id="", model="", stage="", submitted_at=0.0)


def request_row(one: OpenRequest, clock: Clock) -> RequestRow:
    """The row of a request, open or ended."""
    stream, timings = one.stream, one.timings
    usage, outcome = stream.usage, one.outcome
    return RequestRow(
        id=stream.request.id,
        model=stream.request.model,
        stage=one.stage,
        submitted_at=clock.unix(timings.submitted_at),
        worker=one.worker,
        n_sequences=len(stream.logs),
        n_prompt=usage.prompt,
        n_cached=usage.cached,
        n_generated=usage.completion,
        first_token_at=clock.unless_none(timings.first_token_at),
        n_replays=one.n_replays,
        is_paused=one.is_paused,
        ended_at=clock.unless_none(timings.ended_at),
        outcome=outcome.value if outcome else "",
    )


def death_rows(
    outages: Iterable[Outage], records: Sequence[CrashSummary], clock: Clock
) -> Iterator[DeathRow]:
    """Every loss and every record, newest first: a loss of a ready worker has both."""
    recorded = {(one.worker, one.epoch): one for one in records}
    rows = []
    for outage in outages:
        record = recorded.pop((outage.worker, outage.epoch), None)
        at = clock.unix(outage.lost_at)
        if record is not None and abs(record.at - at) > 60:  # an earlier front's
            recorded[record.worker, record.epoch] = record
            record = None
        rows.append(_death(outage, record, at, clock))
    rows += [_recorded(record) for record in recorded.values()]
    return iter(sorted(rows, key=lambda row: -row.at))


def _death(outage: Outage, record: CrashSummary | None, at: float, clock: Clock) -> DeathRow:
    shown = outage.pauses if clock.at - at < RECENT_S else []
    reason = outage.reason
    return DeathRow(
        worker=outage.worker,
        epoch=outage.epoch,
        model=outage.model,
        at=at,
        reason=reason.reason,
        signal=record.signal if record else reason.signal,
        code=record.code if record else reason.code,
        detail=reason.detail,
        was_asked=outage.was_asked,
        record=record.id if record else "",
        uptime_s=record.uptime_s if record else None,
        n_streams=outage.n_sequences,
        n_went_on=outage.n_went_on,
        n_waiting=outage.n_waiting,
        n_ended=outage.n_ended,
        longest_pause_s=round(outage.longest_pause_s, 3),
        pauses=tuple(
            PauseRow(
                request=pause.request,
                began_at=clock.unix(pause.began_at),
                ended_at=clock.unix(pause.ended_at),
            )
            for pause in shown
        ),
    )


def _recorded(record: CrashSummary) -> DeathRow:
    return DeathRow(
        worker=record.worker,
        epoch=record.epoch,
        model=record.model,
        at=record.at,
        reason=record.reason,
        signal=record.signal,
        code=record.code,
        detail=record.detail,
        record=record.id,
        uptime_s=record.uptime_s,
    )


def limits(front: Services) -> Limits:
    """The configured limits."""
    config = front.config
    rows = structs.asdict(config.limits).items()
    return Limits(
        running=config.admission.max_concurrent_requests,
        queue=config.admission.queue_limit,
        rows=tuple((name, str(value)) for name, value in rows if value is not None),
    )


def keys(listed: Iterable[Key]) -> Keys:
    """The access keys, without what could be tried."""
    return Keys(
        rows=tuple(
            KeyRow(
                name=key.name,
                scopes=key.scopes,
                created_at=key.created,
                expires_at=key.expires,
                models=key.models,
                requests_per_minute=key.requests_per_minute,
                tokens_per_minute=key.tokens_per_minute,
                concurrent=key.concurrent,
            )
            for key in listed
        )
    )
