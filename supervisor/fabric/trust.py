"""Whom to trust: the TLS contexts, the pin of the server's certificate, and plaintext."""

import hashlib
import hmac
import ipaddress
import ssl

from gpufc.config import FabricConfig
from gpufc.errors import ConfigError


class Untrusted(ConnectionError):
    """The server's certificate is not the pinned one."""


class Trust:
    """The configured trust in the control server, for its control port and its proxy port."""

    def __init__(self, config: FabricConfig) -> None:
        """Raises `ConfigError` for an unusable CA file, and for plaintext that is not allowed."""
        self.address = config.server_addr or ""
        self.name = config.control_tls_server_name or self.address
        self._pin = _digest(config.control_tls_pin) if config.control_tls_pin else None
        self.proxy = _context(config)
        self.control = self.proxy if config.control_tls else None
        """None for plaintext."""
        if not (config.control_tls or config.control_plaintext or is_loopback(self.address)):
            raise ConfigError(
                f"the client id would go to {self.address} unencrypted: set control_tls = true, or"
                " allow it with control_plaintext = true"
            )

    def check(self, tls: ssl.SSLObject | None) -> None:
        """Compare the certificate of a TLS connection with the pin. Raises `Untrusted`."""
        if self._pin is None:
            return
        certificate = (tls.getpeercert(binary_form=True) if tls else None) or b""
        if not hmac.compare_digest(hashlib.sha256(certificate).digest(), self._pin):
            raise Untrusted("the server's certificate is not the pinned one")


def is_loopback(address: str) -> bool:
    """Whether an address is on this machine for certain."""
    try:
        return ipaddress.ip_address(address).is_loopback
    except ValueError:
        return address == "localhost"


def _context(config: FabricConfig) -> ssl.SSLContext:
    path = config.cert_chain_path
    try:
        context = ssl.create_default_context(cafile=path)
    except (OSError, ssl.SSLError) as err:
        raise ConfigError(f"cert_chain_path {path} cannot be used: {err}") from err
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    if path is not None:
        # authorities made by GPUFabric's script lack a key usage, which this flag demands
        context.verify_flags &= ~ssl.VERIFY_X509_STRICT
    elif config.control_tls_pin is not None:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE  # the pin stands for chain and name
    return context


def _digest(pin: str) -> bytes:
    return bytes.fromhex(pin.removeprefix("sha256:").replace(":", ""))
