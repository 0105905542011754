"""How workers are started, watched and replaced."""

from enum import StrEnum
from typing import Annotated

from msgspec import Meta, Struct

from gpufc.config.marks import FLAG, PATH, UPGRADE


class Standby(StrEnum):
    """How far a spare worker is prepared."""

    NONE = "none"
    WARM = "warm"
    HOT = "hot"


class FleetConfig(Struct, frozen=True, kw_only=True):
    """How workers are started, watched and replaced, and which models are in memory."""

    models_dir: Annotated[
        Annotated[str, Meta(min_length=1, max_length=4096)] | None,
        Meta(
            description="folder of GGUF files to serve by their names, loaded when asked for; new"
            " files are seen while it runs",
            extra=FLAG | PATH | UPGRADE,
        ),
    ] = None
    memory_limit_bytes: Annotated[
        Annotated[int, Meta(ge=0)] | None,
        Meta(
            description="host memory for all models, in bytes [default: what is free]",
            extra=UPGRADE,
        ),
    ] = None
    device_memory_limit_bytes: Annotated[
        Annotated[int, Meta(ge=0)] | None,
        Meta(
            description="memory of each GPU for all models, in bytes: a model that needs more gets"
            " fewer layers there or fewer cells, or is refused; the driver's own memory of each"
            " worker comes on top [default: what is free]",
            extra=UPGRADE,
        ),
    ] = None
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
    kept_kv_bytes: Annotated[
        Annotated[int, Meta(ge=0)] | None,
        Meta(
            description="memory for computed KV of models that are unloaded, in bytes: their"
            " conversations go on without a prefill after the next load; 0: none [default:"
            " 256 MiB; 0 for a model on a GPU, which prefills faster]",
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
