"""The front's address, files and log."""

from enum import StrEnum
from typing import Annotated

from msgspec import Meta, Struct

from gpufc.config.marks import FLAG, NOW, PATH, UPGRADE
from gpufc.logs import LogFormat


class LogLevel(StrEnum):
    DEBUG = "debug"
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


class ServerConfig(Struct, frozen=True, kw_only=True):
    """The front's address and its files."""

    host: Annotated[str, Meta(min_length=1, description="address to listen on", extra=FLAG)] = (
        "127.0.0.1"
    )
    port: Annotated[
        int,
        Meta(
            ge=0,
            le=65535,
            description="port to listen on; 0 takes a free one",
            extra=FLAG | {"alias": "--local-port"},
        ),
    ] = 8082
    runtime_dir: Annotated[
        str | None,
        Meta(
            description="private folder for sockets, lock and logs, one for each running front"
            " [default: $XDG_RUNTIME_DIR/gpufc, else gpufc-UID in the temporary folder]",
            extra=FLAG | PATH,
        ),
    ] = None
    model_dirs: Annotated[
        str | None,
        Meta(
            description="folders from which models may be loaded over HTTP, separated by `:`"
            " [default: the folder of the model at start]",
            extra=PATH | NOW,
        ),
    ] = None
    offline: Annotated[
        bool,
        Meta(
            description="open no outgoing connection: join no network, download nothing",
            extra=FLAG,
        ),
    ] = False
    log_level: Annotated[LogLevel, Meta(description="least level to log", extra=FLAG | NOW)] = (
        LogLevel.INFO
    )
    reload_on_change: Annotated[
        bool, Meta(description="reload the configuration when its file changes", extra=UPGRADE)
    ] = True
    log_format: Annotated[
        LogFormat, Meta(description="format of the log files: plain or json", extra=UPGRADE)
    ] = LogFormat.PLAIN
    log_max_bytes: Annotated[
        int,
        Meta(
            ge=65_536,
            le=1 << 40,
            description="size of a log file, in bytes, at which its lines become the older ones",
            extra=NOW,
        ),
    ] = 16 * 1024 * 1024
    access_log: Annotated[
        bool, Meta(description="log each request with its timings", extra=NOW)
    ] = True
    log_prompts: Annotated[
        bool, Meta(description="log the prompts of requests, too: everybody's texts", extra=NOW)
    ] = False
    otlp_endpoint: Annotated[
        Annotated[str, Meta(pattern=r"^https?://[^\s/]+(/\S*)?$", max_length=2048)] | None,
        Meta(
            description="OpenTelemetry collector (OTLP over HTTP), such as"
            " `http://127.0.0.1:4318`, to send a trace of each request to; needs `gpufc[otel]`"
            " [default: none]",
            extra=UPGRADE,
        ),
    ] = None
    shutdown_timeout_s: Annotated[
        float,
        Meta(
            ge=0.0,
            le=86_400.0,
            description="seconds for running requests to end on stop",
            extra=NOW,
        ),
    ] = 30.0
