"""The port of `Residency`: what it is told about models, and what it asks for."""

from enum import StrEnum
from typing import NewType

from msgspec import Struct

from supervisor.residency.memory import Memory

TenantNo = NewType("TenantNo", int)
"""One load of one worker. Counted up by the `Residency`, never reused."""


class Placement(Struct, frozen=True, kw_only=True):
    """A way to hold a model, with the memory that it takes.

    `name` tells the fleet what it means (devices, layers, cells). A `degraded` placement has fewer
    layers or cells than configured: it is used where the whole ones failed for lack of memory, or
    can never fit.
    """

    name: str
    need: Memory
    degraded: bool = False


class Terms(Struct, frozen=True, kw_only=True):
    """The rules of one registered model.

    `placements` are ways to hold it, better ones first, at least one. With `keep_alive_s` None it
    stays until its memory is wanted; else it goes when it was idle for so long. A pinned model is
    never evicted and does not expire. `replicas` workers are wanted; only the first one may evict
    other models. `priority` moves its requests ahead: each unit is worth `PRIORITY_STEP_S` of
    waiting. `load_s` is the expected duration of a load, 0 if unknown.
    """

    placements: tuple[Placement, ...]
    keep_alive_s: float | None = None
    pinned: bool = False
    replicas: int = 1
    priority: int = 0
    load_s: float = 0.0


class Rules(Struct, frozen=True, kw_only=True):
    """The figures of the decisions, in seconds and bytes.

    `min_stay_s` is the least time that a loaded model serves before it is evicted for another; it
    is at least `stay_per_load` times the expected load of the two. One that has had no request for
    `pause_s`, and for `pause_per_load` times that load, need not stay: the pauses between two
    requests of a client are mostly shorter. `patience_s` is the time that a request waits for busy
    models to become idle by themselves; then one of them is closed to new sequences. `max_resident`
    limits the workers in memory. `limit_bytes` limits what all workers together take at a place,
    whatever is free; `device_limit_bytes` at any device, also at one that is seen later.
    `reserve_bytes` stay free at each place.
    """

    min_stay_s: float = 1.0
    stay_per_load: float = 1.0
    pause_s: float = 0.25
    pause_per_load: float = 0.5
    patience_s: float = 5.0
    max_resident: int | None = None
    limit_bytes: dict[str, int] = {}
    device_limit_bytes: int | None = None
    reserve_bytes: int = 0


# actions


class Load(Struct, frozen=True):
    """Start a worker of this model. Its memory is reserved until `loaded` or `gone`.

    It ends with `loaded`, or with `load_failed` and then `gone`.
    """

    tenant: TenantNo
    model: str
    placement: Placement


class EvictReason(StrEnum):
    """Why a worker is unloaded."""

    ROOM = "room"
    EXPIRED = "expired"
    ASKED = "asked"
    FORGOTTEN = "forgotten"


class Evict(Struct, frozen=True):
    """Unload this worker, which has no sequences. Report `gone` when its process has ended and its
    devices have given the memory back."""

    tenant: TenantNo
    model: str
    reason: EvictReason
    newcomer: str | None = None


class Close(Struct, frozen=True):
    """Give this worker no new sequences: `newcomer` has waited for its memory too long, or it is to
    be unloaded. Requests of its own model wait, as for an unloaded one."""

    tenant: TenantNo
    model: str
    newcomer: str | None


class Reopen(Struct, frozen=True):
    """Give this worker new sequences again: its memory is not wanted any more."""

    tenant: TenantNo
    model: str


class WaitReason(StrEnum):
    """What a model's requests wait for. The words of `/v1/models` and of keep-alives."""

    LOADING = "loading"
    MEMORY_SETTLING = "memory settling"
    """Memory is being given back or taken; then it will fit."""
    BUSY = "others are busy"
    MIN_STAY = "others have just been loaded"
    QUEUE = "others wait longer"


class Wait(Struct, frozen=True):
    """A model's requests go on waiting. `position` counts models, 1 is the next one; 0 loads.

    `expected_s` until it can serve is learnt; None if nothing is known.
    """

    model: str
    reason: WaitReason
    position: int
    expected_s: float | None


class Refuse(Struct, frozen=True):
    """End a model's waiting requests with an error. `retry_after_s` is None where repeating is
    useless until the configuration or the file changes."""

    model: str
    reason: str
    retry_after_s: float | None


Action = Load | Evict | Close | Reopen | Wait | Refuse


class State(StrEnum):
    """A model's state, the words of `/v1/models`."""

    UNLOADED = "unloaded"
    LOADING = "loading"
    READY = "ready"
    BUSY = "busy"
    UNLOADING = "unloading"
    FAILED = "failed"
    """It cools down after a load that failed."""
