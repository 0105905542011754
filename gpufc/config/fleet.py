"""How workers are started, watched and replaced."""

from enum import StrEnum
from typing import Annotated

from msgspec import Meta, Struct

from gpufc.config.marks import UPGRADE


class Standby(StrEnum):
    """How far a spare worker is prepared."""

    NONE = "none"
    WARM = "warm"
    HOT = "hot"


class FleetConfig(Struct, frozen=True, kw_only=True):
    """How workers are started, watched and replaced."""

    restart_limit: Annotated[
        int,
        Meta(
            ge=1,
            le=10_000,
            description="worker deaths within 60 s that end in `failed`",
            extra=UPGRADE,
        ),
    ] = 10
    standby: Annotated[
        Standby,
        Meta(description="spare worker kept: none, warm (imported), hot (loaded)", extra=UPGRADE),
    ] = Standby.WARM
    load_timeout_s: Annotated[
        float,
        Meta(gt=0.0, le=86_400.0, description="seconds a model may take to load", extra=UPGRADE),
    ] = 600.0
    handover_kv_bytes: Annotated[
        Annotated[int, Meta(ge=0)] | None,
        Meta(
            description="memory for computed KV on its way to a worker's successor of the same"
            " model, in bytes; 0: the successor prefills [default: 1 GiB; 0 on a GPU, which"
            " prefills faster]",
            extra=UPGRADE,
        ),
    ] = None
    recycle_growth_bytes: Annotated[
        int,
        Meta(
            ge=0,
            description="anonymous memory that a worker may gain since it was ready, in bytes,"
            " before it is replaced; 0: never",
            extra=UPGRADE,
        ),
    ] = 2 * 1024 * 1024 * 1024
