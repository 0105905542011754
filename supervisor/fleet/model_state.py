"""A served model as it is shown: in `/v1/models`, `/api/ps`, `/stats` and `models`. Pure."""

from enum import StrEnum

from msgspec import Struct


class ModelPhase(StrEnum):
    """Where a model is. The words of `/v1/models`."""

    UNLOADED = "unloaded"
    WAITING = "waiting"
    """Requests want it, and it waits for memory or for another load."""
    LOADING = "loading"
    RESTARTING = "restarting"
    """Its worker has died, and another one comes up."""
    READY = "ready"
    BUSY = "busy"
    UNLOADING = "unloading"
    FAILED = "failed"


LOADED = frozenset({ModelPhase.READY, ModelPhase.BUSY, ModelPhase.UNLOADING, ModelPhase.RESTARTING})
"""The phases of a model that is in memory."""


class ModelState(Struct, frozen=True, kw_only=True):
    """One served model.

    `detail` is for people. `retry_after_s` is when a failed model is tried again; None if nothing
    helps but another file. `fraction` is of a load, 0 to 1. `n_ctx` is as configured: the model
    may give less. `size_bytes` is that of the files.
    `host_bytes`, `mapped_bytes` and `device_bytes` are what it takes, or what it is expected to
    take. `expires_in_s` is when an idle one is unloaded, None for never. `n_loads` counts loads.
    """

    name: str
    state: ModelPhase
    detail: str = ""
    retry_after_s: float | None = None
    fraction: float = 0.0
    model_path: str | None = None
    n_ctx: int = 0
    size_bytes: int = 0
    host_bytes: int = 0
    mapped_bytes: int = 0
    device_bytes: int = 0
    replicas: int = 1
    workers: int = 0
    pinned: bool = False
    expires_in_s: float | None = None
    expected_load_s: float | None = None
    n_loads: int = 0
