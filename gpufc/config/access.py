"""Who may ask the front, and how connections are encrypted."""

from typing import Annotated

from msgspec import Meta, Struct

from gpufc.config.marks import FLAG, PATH, UPGRADE


class AccessConfig(Struct, frozen=True, kw_only=True):
    """The keys of clients, and the encryption of their connections."""

    keys_file: Annotated[
        str | None,
        Meta(
            description="file of access keys, made by `keys add`; then every request needs a key"
            " [default: none; on this machine alone, no key is needed]",
            extra=FLAG | UPGRADE | PATH,
        ),
    ] = None
    tls_cert: Annotated[
        str | None,
        Meta(
            description="PEM file of the certificate and its chain; then HTTPS is served"
            " [default: none]",
            extra=FLAG | UPGRADE | PATH,
        ),
    ] = None
    tls_key: Annotated[
        str | None,
        Meta(
            description="PEM file of the certificate's private key"
            " [default: in the certificate's file]",
            extra=FLAG | UPGRADE | PATH,
        ),
    ] = None
    tls_client_ca: Annotated[
        str | None,
        Meta(
            description="PEM file of the authorities whose certificates clients must have"
            " [default: none; clients need no certificate]",
            extra=PATH | UPGRADE,
        ),
    ] = None
    insecure: Annotated[
        bool,
        Meta(
            description="listen beyond this machine without keys or TLS, too",
            extra=FLAG,
        ),
    ] = False
