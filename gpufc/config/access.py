"""Who may ask the front, and how connections are encrypted."""

from typing import Annotated

from msgspec import Meta, Struct

from gpufc.config.marks import FLAG, PATH, UPGRADE

Host = Annotated[str, Meta(pattern=r"^[A-Za-z0-9*._-]{1,253}$")]
Cidr = Annotated[str, Meta(pattern=r"^[0-9A-Fa-f:.]{2,45}(/[0-9]{1,3})?$")]
Origin = Annotated[str, Meta(pattern=r"^(\*|[A-Za-z][A-Za-z0-9+.-]*://[^/?#\s]{1,260}/?)$")]


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
    allowed_hosts: Annotated[
        tuple[Host, ...],
        Meta(
            max_length=256,
            description="more names that clients may use in URLs of this service, such as"
            " `llm.example.org`; `*` is any text [default: addresses, names without a"
            " dot, this machine's own name]",
            extra=UPGRADE,
        ),
    ] = ()
    allowed_addresses: Annotated[
        tuple[Cidr, ...],
        Meta(
            max_length=1024,
            description="networks that clients may be in, such as `10.0.0.0/8` [default: any]",
            extra=UPGRADE,
        ),
    ] = ()
    trusted_proxies: Annotated[
        tuple[Cidr, ...],
        Meta(
            max_length=256,
            description="networks of proxies whose `X-Forwarded-For` names their clients"
            " [default: none]",
            extra=UPGRADE,
        ),
    ] = ()
    cors_origins: Annotated[
        tuple[Origin, ...],
        Meta(
            max_length=256,
            description="origins whose pages may use the API in a browser, such as"
            " `https://app.example.org`; `*` is any text [default: none]",
            extra=UPGRADE,
        ),
    ] = ()
    insecure: Annotated[
        bool,
        Meta(
            description="listen beyond this machine without keys or TLS, too",
            extra=FLAG,
        ),
    ] = False
