"""The keys in force, read again when their file changes."""

import logging
import os
import time
from collections.abc import Callable
from pathlib import Path

from gpufc.errors import AuthenticationFailed, ConfigError
from supervisor.access import store
from supervisor.access.account import KeyAccount
from supervisor.access.keys import Key, KeyList, digest
from supervisor.dispatch.request import Account, Principal

logger = logging.getLogger(__name__)

LOOK_S = 1.0
"""The file is looked at this often at most, so a revoked key is refused after this time."""

Stamp = tuple[int, int, int, int]


class KeyRing:
    """The keys of one file.

    A file that has become unreadable changes nothing: the keys that were read last stay in force,
    and an error is logged.
    """

    def __init__(
        self,
        path: Path,
        *,
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
    ) -> None:
        """Reads the file. Raises `ConfigError`."""
        self._path = path
        self._clock = clock
        self._wall = wall
        self._stamp = self._look()
        self._looked_at = clock()
        self._by_digest: dict[str, tuple[Key, Principal]] = {}
        self._by_identity: dict[str, tuple[Key, Principal]] = {}
        self._accounts: dict[str, KeyAccount] = {}
        self._use(store.load(path))

    def principal(self, text: str) -> Principal | None:
        """The principal of a key; None for one that is not known. Raises `AuthenticationFailed`
        for one that has expired."""
        self._refresh()
        return self._in_force(self._by_digest.get(digest(text)))

    def identity(self, text: str) -> str | None:
        """The identity of a key; as `principal` otherwise."""
        found = self.principal(text)
        return None if found is None else found.name

    def holder(self, identity: str) -> Principal | None:
        """The principal of the key with this identity; as `principal` otherwise."""
        self._refresh()
        return self._in_force(self._by_identity.get(identity))

    def account(self, identity: str) -> Account | None:
        """The account of the key with this identity, also of one that has expired; None if it is
        not listed."""
        self._refresh()
        return self._accounts.get(identity)

    def _in_force(self, found: tuple[Key, Principal] | None) -> Principal | None:
        if found is None:
            return None
        key, principal = found
        if key.has_expired(self._wall()):
            raise AuthenticationFailed("The key has expired")
        return principal

    def listed(self) -> list[Key]:
        """The keys in force, in the order of the file."""
        return [key for key, _ in self._by_digest.values()]

    def _refresh(self) -> None:
        now = self._clock()
        if now - self._looked_at < LOOK_S:
            return
        self._looked_at = now
        stamp = self._look()
        if stamp == self._stamp:
            return
        self._stamp = stamp
        try:
            self._use(store.load(self._path))
        except ConfigError as err:
            logger.error("keys_not_read: %s; the keys before stay in force", err)
        else:
            logger.info("keys_read path=%s n=%d", self._path, len(self._by_digest))

    def _look(self) -> Stamp | None:
        try:
            about = os.stat(self._path)
        except OSError:
            return None
        return about.st_ino, about.st_mtime_ns, about.st_ctime_ns, about.st_size

    def _use(self, found: KeyList) -> None:
        accounts = {}
        for key in found.keys:
            account = self._accounts.get(key.identity)
            if account is None:
                account = KeyAccount(key, self._clock)
            else:
                account.hold_to(key)
            accounts[key.identity] = account
        self._accounts = accounts
        entries = [(key, principal_of(key, accounts[key.identity])) for key in found.keys]
        self._by_digest = {key.sha256: (key, principal) for key, principal in entries}
        self._by_identity = {key.identity: (key, principal) for key, principal in entries}


def principal_of(key: Key, account: KeyAccount | None = None) -> Principal:
    """The principal of a key. By default it shares cached prefixes with no other one: how fast an
    answer begins would tell which prompts other keys have sent."""
    scope = f"key {key.identity}" if key.cache_group is None else f"group {key.cache_group}"
    return Principal(
        key.identity, frozenset(key.scopes), cache_scope=scope, models=key.models, account=account
    )
