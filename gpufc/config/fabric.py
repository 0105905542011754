"""The network of GPUs that the front may join."""

from enum import StrEnum
from typing import Annotated

from msgspec import Meta, Struct

from gpufc.config.marks import FLAG, PATH, UPGRADE


class NetworkShare(StrEnum):
    """How the network's requests and local ones share the engine: in turns, or local ones first."""

    EVEN = "even"
    LOCAL = "local"


class FabricConfig(Struct, frozen=True, kw_only=True):
    """The GPUFabric network that the front joins. Without `server_addr` it joins none."""

    server_addr: Annotated[
        Annotated[str, Meta(min_length=1, max_length=253)] | None,
        Meta(
            description="GPUFabric control server to take tasks from [default: none]",
            extra=FLAG | UPGRADE,
        ),
    ] = None
    control_port: Annotated[
        int, Meta(ge=1, le=65535, description="port of the control server", extra=FLAG | UPGRADE)
    ] = 17000
    proxy_port: Annotated[
        int,
        Meta(
            ge=1,
            le=65535,
            description="port of the control server for its users' connections, always TLS",
            extra=FLAG | UPGRADE,
        ),
    ] = 17001
    client_id: Annotated[
        Annotated[str, Meta(min_length=1)] | None,
        Meta(
            description="this machine's id in the network, 32 hex digits: its only credential, so"
            " rather use client_id_file",
            extra=FLAG | UPGRADE | {"secret": True},
        ),
    ] = None
    client_id_file: Annotated[
        Annotated[str, Meta(min_length=1)] | None,
        Meta(
            description="file with the client id, readable by its owner only",
            extra=FLAG | PATH | UPGRADE,
        ),
    ] = None
    control_tls: Annotated[
        bool,
        Meta(description="TLS to the control port; the proxy port always has it", extra=UPGRADE),
    ] = False
    cert_chain_path: Annotated[
        Annotated[str, Meta(min_length=1)] | None,
        Meta(
            description="PEM file of the certificate authorities to trust"
            " [default: those of the system]",
            extra=FLAG | PATH | UPGRADE,
        ),
    ] = None
    control_tls_server_name: Annotated[
        Annotated[str, Meta(min_length=1, max_length=253)] | None,
        Meta(
            description="name in the server's certificate [default: server_addr]",
            extra=FLAG | UPGRADE,
        ),
    ] = None
    control_tls_pin: Annotated[
        Annotated[str, Meta(pattern=r"^(sha256:)?([0-9A-Fa-f]{2}:?){32}$")] | None,
        Meta(
            description="SHA-256 of the server's certificate, 64 hex digits; without"
            " cert_chain_path it replaces the check of chain and name",
            extra=UPGRADE,
        ),
    ] = None
    control_plaintext: Annotated[
        bool,
        Meta(
            description="allow a control server beyond this machine without control_tls",
            extra=UPGRADE,
        ),
    ] = False
    network_share: Annotated[
        NetworkShare,
        Meta(
            description="the network's requests and local ones take turns (even), or local ones go"
            " first and take the slots of the network's (local)"
        ),
    ] = NetworkShare.EVEN
    network_tasks: Annotated[
        Annotated[int, Meta(ge=1, le=4096)] | None,
        Meta(
            description="tasks of the network that run at once [default: max_concurrent_requests]",
            extra=UPGRADE,
        ),
    ] = None
    network_queue: Annotated[
        int, Meta(ge=0, le=65_536, description="tasks of the network that may wait", extra=UPGRADE)
    ] = 64
    network_connections: Annotated[
        int,
        Meta(
            ge=0, le=4096, description="connections of the network's users at once", extra=UPGRADE
        ),
    ] = 64
    accept_models: Annotated[
        bool,
        Meta(
            description="download the models that the control server names into the folder of"
            " models, by https and with their checksums"
        ),
    ] = False
