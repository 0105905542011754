"""Join files, and the file in which a host remembers its front.

A join file has an address, the front's public key and an invitation's secret key. It is written
with mode 0600; a host reads it from such a file or from the variable `GPUFC_JOIN`. After its first
hello the host comes back by its own key (`HostMemory`), without a join file.
"""

from collections.abc import Mapping
from pathlib import Path

from msgspec import Struct

from gpufc.errors import ConfigError
from supervisor.cluster import keys
from supervisor.cluster.keys import KeyPair
from supervisor.cluster.messages import KeyText

VARIABLE = "GPUFC_JOIN"


class JoinFile(Struct, frozen=True, forbid_unknown_fields=True):
    """An invitation as a host gets it. `front` is an address such as `10.0.0.1:8090`."""

    front: str
    front_key: KeyText
    join_key: KeyText

    def __repr__(self) -> str:
        """Without the secret."""
        return f"JoinFile(front={self.front!r})"

    def invitation(self) -> KeyPair:
        """The invitation's key pair."""
        return keys.pair_of(self.join_key)


class HostMemory(Struct, frozen=True):
    """What a host keeps: its own key pair, and the front that it has joined."""

    own: KeyPair
    front: str = ""
    front_key: str = ""


def write_join_file(path: Path, front: str, front_key: str, invitation: KeyPair) -> None:
    """Write a join file (mode 0600). Raises `OSError`."""
    keys.save(path, JoinFile(front, front_key, invitation.secret))


def read_join_file(given: Path | None, environ: Mapping[str, str]) -> JoinFile | None:
    """The join file of an option, else of the environment; None without either.

    Raises `ConfigError`."""
    if given is not None:
        found = keys.load(given, JoinFile, "join file")
        if found is None:
            raise ConfigError(
                f"join file {given} does not exist; `gpufc-supervisor hosts invite FILE` at the"
                " front makes one"
            )
        return found
    text = environ.get(VARIABLE)
    return keys.decode(text.encode(), JoinFile, VARIABLE) if text else None


def endpoint(address: str) -> str:
    """ZeroMQ's spelling of `HOST:PORT`. Raises `ConfigError`."""
    host, colon, port = address.removeprefix("tcp://").rpartition(":")
    if not (colon and host and port.isascii() and port.isdigit() and int(port) < 65536):
        raise ConfigError(f"address {address!r} is not HOST:PORT")
    return f"tcp://{host}:{port}"


class Memory:
    """The host's file of its keys. Made when it does not exist."""

    def __init__(self, path: Path) -> None:
        """Raises `ConfigError`."""
        self._path = path
        found = keys.load(path, HostMemory, "host's key file")
        self.content = found or HostMemory(keys.new_pair())
        if found is None:
            self._save()

    def joined(self, front: str, front_key: str) -> None:
        """Remember the front. Raises `ConfigError`."""
        content = HostMemory(self.content.own, front, front_key)
        if content != self.content:
            self.content = content
            self._save()

    def knows(self, front_key: str) -> bool:
        """Whether the host has joined this front before."""
        return self.content.front_key == front_key

    def _save(self) -> None:
        try:
            keys.save(self._path, self.content)
        except OSError as err:
            raise ConfigError(f"host's key file {self._path} cannot be written: {err}") from err
