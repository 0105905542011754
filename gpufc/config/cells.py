"""Several fronts that go on with each other's durable requests."""

from typing import Annotated

from msgspec import Meta, Struct

from gpufc.config.marks import FLAG, PATH, UPGRADE


class CellsConfig(Struct, frozen=True, kw_only=True):
    """The NATS server by which cells share durable requests. Without `cells_nats` there is none."""

    cells_nats: Annotated[
        Annotated[
            str,
            Meta(pattern=r"^(nats|tls)://[^\s,@/]+:\d{1,5}(,(nats|tls)://[^\s,@/]+:\d{1,5})*$"),
        ]
        | None,
        Meta(
            description="NATS servers with JetStream, such as `tls://10.0.0.5:4222`, by which"
            " several fronts go on with each other's durable requests; needs `gpufc[cells]`"
            " [default: none]",
            extra=FLAG | UPGRADE,
        ),
    ] = None
    cells_group: Annotated[
        str,
        Meta(
            pattern=r"^[A-Za-z0-9_-]{1,32}$",
            description="name of the fronts that belong together; others may use the same NATS",
            extra=UPGRADE,
        ),
    ] = "gpufc"
    cells_credentials: Annotated[
        Annotated[str, Meta(min_length=1)] | None,
        Meta(
            description="file with `USER:PASSWORD` or a token for NATS, readable by its owner only"
            " [default: none]",
            extra=PATH | UPGRADE,
        ),
    ] = None
    cells_tls_ca: Annotated[
        Annotated[str, Meta(min_length=1)] | None,
        Meta(
            description="PEM file of the authorities that NATS' certificate is from"
            " [default: those of the system]",
            extra=PATH | UPGRADE,
        ),
    ] = None
    cells_tls_cert: Annotated[
        Annotated[str, Meta(min_length=1)] | None,
        Meta(
            description="PEM file of the front's own certificate for NATS, with its private key"
            " [default: none]",
            extra=PATH | UPGRADE,
        ),
    ] = None
    cells_plaintext: Annotated[
        bool,
        Meta(
            description="allow a NATS server beyond this machine without TLS: prompts and answers"
            " are readable on the way",
            extra=UPGRADE,
        ),
    ] = False
    cells_lease_s: Annotated[
        float,
        Meta(
            ge=1.0,
            le=3600.0,
            description="seconds without a sign of life of a front after which others go on with"
            " its durable requests; the same for all of them",
            extra=UPGRADE,
        ),
    ] = 10.0
    cells_batch_s: Annotated[
        float,
        Meta(
            ge=0.0,
            le=5.0,
            description="least seconds between two messages with the new tokens of all durable"
            " requests; a client gets these tokens once NATS has them",
            extra=UPGRADE,
        ),
    ] = 0.05
    cells_pause_s: Annotated[
        float,
        Meta(
            ge=0.0,
            le=3600.0,
            description="seconds that streams of durable requests wait while NATS does not answer,"
            " before they go on in this front only",
            extra=UPGRADE,
        ),
    ] = 3.0
    cells_required: Annotated[
        bool,
        Meta(
            description="refuse new durable requests while NATS does not answer, rather than run"
            " them in this front only",
            extra=UPGRADE,
        ),
    ] = False
    cells_max_bytes: Annotated[
        int,
        Meta(
            ge=1 << 20,
            le=1 << 44,
            description="most bytes that durable requests take in NATS; set by the first front",
            extra=UPGRADE,
        ),
    ] = 1 << 30
    cells_copies: Annotated[
        int,
        Meta(
            ge=1,
            le=5,
            description="servers of a NATS cluster that have each message: 1, 3 or 5; set by the"
            " first front",
            extra=UPGRADE,
        ),
    ] = 1
