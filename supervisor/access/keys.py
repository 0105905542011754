"""Access keys as the file lists them. Pure."""

import hashlib
import secrets
from typing import Annotated

from msgspec import Meta, Struct, structs

from gpufc.errors import ConfigError
from supervisor.dispatch.request import Scope

PREFIX = "gpufc_"
"""Begins every key, so that a scanner for secrets finds a key that has leaked."""

Count = Annotated[int, Meta(ge=1, le=1_000_000_000)]
Name = Annotated[str, Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.@-]{0,63}\Z")]
Digest = Annotated[str, Meta(pattern=r"^[0-9a-f]{64}\Z")]
Text = Annotated[str, Meta(min_length=1, max_length=200)]


class Key(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """One key. Its name is unique in its file; times are unix seconds.

    Without `models` it may use all of them; an entry is a served name, `*` in it is any text. Keys
    of one `cache_group` reuse each other's cached prefixes; a key without a group reuses its own.
    """

    name: Name
    sha256: Digest
    scopes: Annotated[tuple[Scope, ...], Meta(min_length=1)]
    created: int
    expires: int | None = None
    models: tuple[Text, ...] = ()
    cache_group: Text | None = None
    requests_per_minute: Count | None = None
    tokens_per_minute: Count | None = None
    concurrent: Count | None = None

    @property
    def identity(self) -> str:
        """Tells it from a later key of the same name, which must not find its answers."""
        return f"{self.name}#{self.sha256[:16]}"

    def has_expired(self, now: float) -> bool:
        return self.expires is not None and self.expires <= now


class KeyList(Struct, frozen=True, forbid_unknown_fields=True):
    """All keys of a file."""

    keys: tuple[Key, ...] = ()

    def adding(self, key: Key) -> "KeyList":
        """The list with one more key. Raises `ConfigError` if its name is taken."""
        if any(known.name == key.name for known in self.keys):
            raise ConfigError(
                f"there is a key {key.name} already; `keys revoke {key.name}` ends it, and another"
                " name lets both be used"
            )
        return structs.replace(self, keys=(*self.keys, key))

    def revoking(self, name: str) -> "KeyList":
        """The list without a key. Raises `ConfigError` if there is none of that name."""
        left = tuple(key for key in self.keys if key.name != name)
        if len(left) == len(self.keys):
            raise ConfigError(f"there is no key {name}; `keys list` shows them")
        return structs.replace(self, keys=left)


def new_text() -> str:
    """The text of a new key: 256 random bits."""
    return PREFIX + secrets.token_urlsafe(32)


def digest(text: str) -> str:
    """The SHA-256 of a key's text. aiohttp decodes bytes that are no UTF-8 to surrogates."""
    return hashlib.sha256(text.encode(errors="surrogateescape")).hexdigest()
