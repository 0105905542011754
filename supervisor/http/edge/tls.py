"""The server's certificate: TLS 1.2 and later, read again when its files change."""

import asyncio
import logging
import os
import ssl
from typing import Self

from gpufc.config import AccessConfig
from gpufc.errors import ConfigError
from supervisor.looks import repeat

logger = logging.getLogger(__name__)

LOOK_S = 5.0
"""The files are looked at this often. Renewal by certbot and the like replaces them days early."""

Stamp = tuple[tuple[int, int] | None, ...]


class Certificate:
    """The certificate in force. `context` is of new connections; each renewal makes another one.

    Only new connections see a renewed certificate, so a renewal ends no stream. A renewal that
    cannot be read changes nothing. A client CA that is taken out of its file is trusted no more:
    OpenSSL adds certificates to a context and removes none, and a context resumes its own sessions.
    """

    def __init__(self, access: AccessConfig) -> None:
        """Raises `ConfigError` for files that make no certificate."""
        self._access = access
        self._stamp = self._look()
        self.context = _context(access)

    @classmethod
    def of(cls, access: AccessConfig) -> Self | None:
        """The configured certificate; None where there is none. Raises `ConfigError`."""
        if access.tls_cert is not None:
            return cls(access)
        for name, path in (("tls_key", access.tls_key), ("tls_client_ca", access.tls_client_ca)):
            if path is not None:
                raise ConfigError(f"{name} is set and tls_cert is not: name the certificate, too")
        return None

    async def keep_fresh(self) -> None:
        """Read the files again whenever they change, for ever."""
        await repeat("certificate", self._look_again, LOOK_S)

    async def _look_again(self) -> None:
        if await asyncio.to_thread(self.has_changed):
            self.renew()

    def has_changed(self) -> bool:
        """Whether the files differ from those that were read last."""
        return self._look() != self._stamp

    def renew(self) -> bool:
        """Use the files as they are now for new connections. False if they make no certificate."""
        self._stamp = self._look()
        try:
            self.context = _context(self._access)
        except ConfigError as err:
            logger.error("certificate_not_renewed: %s; the one before stays in force", err)
            return False
        logger.info("certificate_renewed path=%s", self._access.tls_cert)
        return True

    def _look(self) -> Stamp:
        access = self._access
        return tuple(map(_stamp, (access.tls_cert, access.tls_key, access.tls_client_ca)))


def _stamp(path: str | None) -> tuple[int, int] | None:
    if path is None:
        return None
    try:
        about = os.stat(path)
    except OSError:
        return None
    return about.st_ino, about.st_mtime_ns


def _context(access: AccessConfig) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["http/1.1"])
    _load(context, access)
    if access.tls_client_ca is not None:
        context.verify_mode = ssl.CERT_REQUIRED
    return context


def _load(context: ssl.SSLContext, access: AccessConfig) -> None:
    if access.tls_cert is None:
        raise ConfigError("tls_cert is not set")
    try:
        # with an encrypted key, OpenSSL would ask at the terminal
        context.load_cert_chain(access.tls_cert, access.tls_key, password="")
    except (OSError, ValueError) as err:
        files = access.tls_cert + (f" and tls_key {access.tls_key}" if access.tls_key else "")
        raise ConfigError(f"tls_cert {files} make no certificate: {_reason(err)}") from err
    if access.tls_client_ca is None:
        return
    try:
        context.load_verify_locations(access.tls_client_ca)
    except (OSError, ValueError) as err:
        raise ConfigError(
            f"tls_client_ca {access.tls_client_ca} has no certificates: {_reason(err)}"
        ) from err


def _reason(err: Exception) -> str:
    if isinstance(err, ssl.SSLError):
        found = (err.reason or "not in PEM format").replace("_", " ").lower()
        return "the private key is missing or encrypted" if "no start line" in found else found
    if isinstance(err, OSError):
        return (err.strerror or str(err)).lower()
    return str(err)
