"""Limits on clients' requests."""

from typing import Annotated

from msgspec import Meta, Struct

from gpufc.config.marks import NOW, UPGRADE


class LimitsConfig(Struct, frozen=True, kw_only=True):
    """Limits on clients' requests, applied before the engine sees a request."""

    max_n: Annotated[
        int, Meta(ge=1, le=256, description="most choices (`n`) of a request", extra=NOW)
    ] = 8
    max_prompts: Annotated[
        int, Meta(ge=1, le=4096, description="most prompts of a request", extra=NOW)
    ] = 64
    max_stop: Annotated[int, Meta(ge=0, le=256, description="most stop strings", extra=NOW)] = 16
    max_stop_bytes: Annotated[
        int, Meta(ge=1, le=65_536, description="longest stop string, in bytes", extra=NOW)
    ] = 256
    max_logit_bias: Annotated[
        int, Meta(ge=0, le=1000, description="most entries of `logit_bias`", extra=NOW)
    ] = 1000
    max_top_logprobs: Annotated[
        int, Meta(ge=0, le=256, description="most log probabilities in a token's place", extra=NOW)
    ] = 20
    max_body_bytes: Annotated[
        int, Meta(ge=1024, le=1 << 30, description="largest request body, in bytes", extra=NOW)
    ] = 8 * 1024 * 1024
    max_bodies_bytes: Annotated[
        int,
        Meta(
            ge=1 << 20,
            le=1 << 40,
            description="memory for all bodies under way, in bytes",
            extra=UPGRADE,
        ),
    ] = 256 * 1024 * 1024
    header_timeout_s: Annotated[
        float, Meta(gt=0.0, le=3600.0, description="seconds to send a request's header", extra=NOW)
    ] = 10.0
    body_timeout_s: Annotated[
        float,
        Meta(
            gt=0.0, le=3600.0, description="seconds to send a body, plus size over rate", extra=NOW
        ),
    ] = 10.0
    body_rate: Annotated[
        int, Meta(ge=1, description="slowest rate of a body, in bytes per second", extra=NOW)
    ] = 64 * 1024
    write_timeout_s: Annotated[
        float,
        Meta(
            gt=0.0,
            le=86_400.0,
            description="seconds that a client may take nothing of its answer",
            extra=NOW,
        ),
    ] = 60.0
    keepalive_timeout_s: Annotated[
        float,
        Meta(
            gt=0.0,
            le=3600.0,
            description="seconds that an idle connection stays open",
            extra=UPGRADE,
        ),
    ] = 30.0
    max_connections_per_address: Annotated[
        int, Meta(ge=1, le=1_000_000, description="most connections of one address", extra=UPGRADE)
    ] = 1024
    max_connections: Annotated[
        Annotated[int, Meta(ge=1, le=1_000_000)] | None,
        Meta(
            description="most connections in all [default: by the limit of descriptors]",
            extra=UPGRADE,
        ),
    ] = None
    first_byte_s: Annotated[
        float,
        Meta(
            gt=0.0,
            le=3600.0,
            description="seconds until a waiting stream sends its headers",
            extra=NOW,
        ),
    ] = 4.0
    keepalive_comment_s: Annotated[
        float,
        Meta(
            gt=0.0, le=3600.0, description="seconds between a silent stream's comments", extra=NOW
        ),
    ] = 4.0
    durable_window_s: Annotated[
        float,
        Meta(
            ge=0.0,
            le=86_400.0,
            description="seconds that a durable request's answer is kept",
            extra=NOW,
        ),
    ] = 600.0
    durable_idle_s: Annotated[
        float,
        Meta(
            gt=0.0, le=86_400.0, description="seconds that a durable request runs unread", extra=NOW
        ),
    ] = 600.0
    max_durable_requests: Annotated[
        int,
        Meta(
            ge=1,
            le=1_000_000,
            description="most durable requests, finished ones included",
            extra=NOW,
        ),
    ] = 1000
    max_durable_bytes: Annotated[
        int,
        Meta(ge=65_536, le=1 << 36, description="memory for durable requests, in bytes", extra=NOW),
    ] = 64 * 1024 * 1024
    max_stored_responses: Annotated[
        int,
        Meta(
            ge=0, le=1_000_000, description="most responses remembered for a principal", extra=NOW
        ),
    ] = 1000
    max_stored_bytes: Annotated[
        int,
        Meta(
            ge=0, le=1 << 36, description="memory for a principal's responses, in bytes", extra=NOW
        ),
    ] = 64 * 1024 * 1024
    response_cache_bytes: Annotated[
        int,
        Meta(
            ge=0,
            le=1 << 40,
            description="memory for answers to deterministic requests, for exact repeats; 0: none"
            " are kept",
        ),
    ] = 0
    response_cache_s: Annotated[
        float, Meta(gt=0.0, le=31_536_000.0, description="seconds that such an answer is kept")
    ] = 600.0
