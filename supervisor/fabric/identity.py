"""The machine's id in the network. It is the only credential, so it is never logged or shown."""

import re
import stat
from pathlib import Path

from gpufc.config import FabricConfig
from gpufc.errors import ConfigError

_HEX = re.compile(r"(?:0x)?([0-9A-Fa-f]{32})")
_MOST_BYTES = 256


class ClientId:
    """An id that no `repr`, log line or display gives away. `raw` is for the wire only."""

    __slots__ = ("raw",)

    def __init__(self, text: str, source: str) -> None:
        """Raises `ConfigError`, which does not show the text."""
        found = _HEX.fullmatch(text.strip())
        if found is None:
            raise ConfigError(f"the client id ({source}) must have 32 hex digits")
        self.raw = bytes.fromhex(found[1])

    def __str__(self) -> str:
        """The first and the last four digits."""
        digits = self.raw.hex()
        return f"{digits[:4]}…{digits[-4:]}"

    __repr__ = __str__


def client_id(config: FabricConfig) -> ClientId:
    """The configured id. Raises `ConfigError` without one, or for a file that others can read."""
    if config.client_id is not None:
        return ClientId(config.client_id, "client_id")
    if config.client_id_file is None:
        raise ConfigError(
            "server_addr needs a client id: put it into a file of mode 600 and name that with"
            " client_id_file, or set GPUFC_CLIENT_ID"
        )
    return ClientId(_private_text(Path(config.client_id_file)), config.client_id_file)


def _private_text(path: Path) -> str:
    try:
        with path.open("rb") as file:
            mode = stat.S_IMODE(path.stat().st_mode)
            text = file.read(_MOST_BYTES)
    except OSError as err:
        raise ConfigError(f"client_id_file {path} cannot be read: {err.strerror or err}") from err
    if mode & 0o077:
        raise ConfigError(
            f"client_id_file {path} can be read by others (mode {mode:o}): chmod 600 it"
        )
    return text.decode(errors="replace")
