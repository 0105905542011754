"""Makes the messages from the front's parts. Reads, and changes nothing; never blocks."""

import os
import time
from collections.abc import Callable, Iterable, Iterator, Sequence

import msgspec
from msgspec import structs

from supervisor.access.keys import Key
from supervisor.devices.history import Recent, Track
from supervisor.devices.snapshot import Device, Host, Snapshot
from supervisor.dispatch.dispatcher import Occupancy
from supervisor.dispatch.durations import Percentiles
from supervisor.dispatch.losses import Loss
from supervisor.dispatch.overview import OpenRequest
from supervisor.fleet.crash_store import CrashSummary
from supervisor.fleet.followed import rss_bytes_of
from supervisor.fleet.port import WorkerStatus
from supervisor.http.dashboard.alarms import alarms
from supervisor.http.dashboard.messages import (
    DeathRow,
    Deaths,
    KeyRow,
    Keys,
    Limits,
    Message,
    ModelRow,
    NetworkRow,
    PauseRow,
    Point,
    RequestRow,
    Spread,
    Tick,
    Totals,
    WorkerRow,
)
from supervisor.http.edge.context import Services
from supervisor.http.generation.model_states import state_of

MOST_REQUESTS = 128
"""Rows of open requests in one tick: the oldest ones."""

RECENT_S = 180.0
"""Pauses of streams are sent for losses that are not older: the page draws no older ones."""

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
            machine,
            occupancy.waiting,
            front.config.admission.queue_limit,
        ),
        front_rss_bytes=rss_bytes_of(os.getpid()),
        hosts=tuple(front.hosts()) if front.hosts else (),
        network=_network(front),
    )


def _network(front: Services) -> NetworkRow | None:
    """The network's own status has these fields, and more."""
    found = front.network()
    return None if found is None else msgspec.convert(found, NetworkRow, from_attributes=True)


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
        devices=tuple(map(_use, machine.devices)),
    )


def _use(device: Device) -> tuple[float | None, float | None]:
    busy, used, total = device.utilization, device.memory_used_bytes, device.memory_total_bytes
    return (
        None if busy is None else round(busy, 3),
        None if used is None or not total else round(used / total, 3),
    )


def _spread(found: Percentiles) -> Spread:
    return Spread(
        p50=None if found.p50 is None else round(found.p50, 5),
        p99=None if found.p99 is None else round(found.p99, 5),
    )


def _models(front: Services, workers: Sequence[WorkerStatus]) -> Iterator[ModelRow]:
    occupancies = front.dispatcher.occupancies()
    for name in front.fleet.models():
        state = state_of(front, name)
        loaded = (row.facts for row in workers if row.model == name)
        facts = next(filter(None, loaded), None)
        paths = (row.model_path for row in workers if row.model == name)
        occupancy = occupancies.get(name, Occupancy(0, 0))
        rate = front.dispatcher.ledger.of(name).generation
        yield ModelRow(
            name=name,
            state=state.state,
            detail=state.detail,
            path=state.model_path or next(filter(None, paths), None),
            architecture=facts.architecture if facts else "",
            n_params=facts.n_params if facts else 0,
            size_bytes=facts.model_bytes if facts else state.size_bytes,
            memory_bytes=state.host_bytes + state.device_bytes,
            n_ctx=facts.n_ctx if facts else state.n_ctx,
            loading=round(state.fraction, 3),
            running=occupancy.running,
            waiting=occupancy.waiting,
            is_pinned=state.pinned,
            expires_in_s=None if state.expires_in_s is None else round(state.expires_in_s),
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
        machine=row.machine,
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
    losses: Iterable[Loss], records: Sequence[CrashSummary], clock: Clock
) -> Iterator[DeathRow]:
    """Every loss and every record, newest first: a loss of a ready worker has both."""
    recorded = {(one.worker, one.epoch): one for one in records}
    rows = []
    for loss in losses:
        record = recorded.pop((loss.worker, loss.epoch), None)
        at = clock.unix(loss.lost_at)
        if record is not None and abs(record.at - at) > 60:  # an earlier front's
            recorded[record.worker, record.epoch] = record
            record = None
        rows.append(_death(loss, record, at, clock))
    rows += [_recorded(record) for record in recorded.values()]
    return iter(sorted(rows, key=lambda row: -row.at))


def _death(loss: Loss, record: CrashSummary | None, at: float, clock: Clock) -> DeathRow:
    shown = loss.pauses if clock.at - at < RECENT_S else []
    reason = loss.reason
    return DeathRow(
        worker=loss.worker,
        epoch=loss.epoch,
        model=loss.model,
        at=at,
        reason=reason.reason,
        signal=record.signal if record else reason.signal,
        code=record.code if record else reason.code,
        detail=reason.detail,
        was_asked=loss.was_asked,
        record=record.id if record else "",
        uptime_s=record.uptime_s if record else None,
        n_streams=loss.n_sequences,
        n_went_on=loss.n_went_on,
        n_waiting=loss.n_waiting,
        n_ended=loss.n_ended,
        longest_pause_s=round(loss.longest_pause_s, 3),
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


_DRAWN = ("cpu_percent", "memory_available_bytes", "utilization", "memory_used_bytes")
"""The tracks of the machine's history that the page draws."""


def machine_history(front: Services) -> Recent | None:
    """The last hour of the drawn tracks, before the points that viewers have got."""
    if front.devices is None:
        return None
    recent = front.devices.history()
    tracks = (one for one in recent.tracks if one.name.partition(".")[2] in _DRAWN)
    return structs.replace(recent, tracks=tuple(map(_short, tracks)))


def _short(track: Track) -> Track:
    digits = 0 if track.name.endswith("_bytes") else 3
    return Track(
        track.name, tuple(None if one is None else round(one, digits) for one in track.points)
    )


def shown_to(message: Message, shows: Callable[[str], bool]) -> Message:
    """The message for a viewer that may see some models only."""
    if isinstance(message, Deaths):
        return Deaths(rows=tuple(row for row in message.rows if shows(row.model)))
    if not isinstance(message, Tick):
        return message
    requests = tuple(row for row in message.requests if shows(row.model))
    hidden = {row.model for row in message.workers if not shows(row.model)}
    hidden |= {row.name for row in message.workers if not shows(row.model)}
    network = message.network
    if network is not None:
        network = structs.replace(network, models=tuple(filter(shows, network.models)))
    return structs.replace(
        message,
        models=tuple(row for row in message.models if shows(row.name)),
        workers=tuple(row for row in message.workers if shows(row.model)),
        requests=requests,
        n_requests=len(requests),
        ended=tuple(row for row in message.ended if shows(row.model)),
        alarms=tuple(row for row in message.alarms if row.subject not in hidden),
        network=network,
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
