"""The front's book of hosts: its key pair, open invitations, and hosts that have joined. One file.

A host proves itself by its key in the CURVE handshake, which `doorkeeper` asks this book about. An
invitation is a key pair of its own. Its secret half is in the join file, and only the public half
is kept here, so nothing in the book lets its reader join as a host. This takes the place of a join
token inside the encrypted channel: a peer without a key cannot send a single message, no secret
crosses the network, and a recorded handshake is of no use. The first hello over an invitation's key
brings the host's own public key, which is its way in from then on.

The file's secret is the front's own key, which hosts pin. Its mode is 0600.
"""

import time
from collections.abc import Callable
from collections.abc import Set as AbstractSet
from pathlib import Path
from typing import Annotated

from msgspec import Meta, Struct, structs

from gpufc.errors import ConfigError
from supervisor.cluster import keys
from supervisor.cluster.away import kept
from supervisor.cluster.keys import KeyPair
from supervisor.cluster.messages import HostHello, KeyText, MachineName

VERSION = 1
LIFETIME_S = 3600.0
MAX_HOSTS = 4096
MAX_INVITATIONS = 4096


class KnownHost(Struct, frozen=True):
    """A host that has joined. `joined_at`, and `seen_at` when it was last attached, are unix
    time."""

    machine: MachineName
    key: KeyText
    joined_at: float
    seen_at: float = 0.0


class Invitation(Struct, frozen=True):
    """An invitation's public key. `uses` hosts may still join by it, until `ends_at` (unix time,
    None: no end). `takes_name`: see `HostBook.invite`."""

    key: KeyText
    uses: Annotated[int, Meta(ge=1)]
    ends_at: float | None
    takes_name: bool = False


class Pages(Struct, frozen=True):
    """The file's content."""

    version: int
    front: KeyPair
    hosts: tuple[KnownHost, ...] = ()
    invitations: tuple[Invitation, ...] = ()


class JoinRefused(Exception):
    """The key may not join. The text may be sent to its owner; `retryable`: it may later."""

    def __init__(self, reason: str, *, retryable: bool = False) -> None:
        super().__init__(reason)
        self.retryable = retryable


class HostBook:
    """The file's owner: no other process writes it. Each change is on disk when its call returns.

    Small files, few changes: blocks the event loop for one write.
    """

    def __init__(self, path: Path, clock: Callable[[], float] = time.time) -> None:
        """Open the file, or make it with a new key pair. Raises `ConfigError`."""
        self._path = path
        self._clock = clock
        found = keys.load(path, Pages, "hosts file")
        if found is None:
            found = Pages(VERSION, keys.new_pair())
            try:
                keys.save(path, found)
            except OSError as err:
                raise ConfigError(f"hosts file {path} cannot be made: {err}") from err
        if found.version != VERSION:
            raise ConfigError(f"hosts file {path} is of another version of gpufc")
        self._pages = found
        self._opened_at = clock()
        self._attached: AbstractSet[str] = frozenset()

    @property
    def front(self) -> KeyPair:
        """The front's own keys."""
        return self._pages.front

    @property
    def hosts(self) -> tuple[KnownHost, ...]:
        """All hosts that have joined, also those that are away."""
        return self._pages.hosts

    @property
    def n_invitations(self) -> int:
        """Invitations that can still be used."""
        return len(self._valid())

    def invite(
        self, uses: int = 1, lifetime_s: float | None = LIFETIME_S, *, takes_name: bool = False
    ) -> KeyPair:
        """A new invitation's keys, for a join file. Raises `OSError`, `ConfigError`.

        `takes_name`: a host of the same name that is away is gone for good. The new one gets its
        name, and its key is forgotten."""
        if len(self._valid()) >= MAX_INVITATIONS:
            raise ConfigError(f"there are {MAX_INVITATIONS} open invitations already")
        pair = keys.new_pair()
        ends_at = None if lifetime_s is None else self._clock() + lifetime_s
        made = Invitation(pair.public, uses, ends_at, takes_name)
        self._change(invitations=(*self._valid(), made))
        return pair

    def withdraw_invitations(self) -> None:
        """No join file works any more. Raises `OSError`."""
        self._change(invitations=())

    def admits(self, key: str) -> bool:
        """Whether the owner of a public key may connect. Constant work for a stranger's key."""
        return self._host_of(key) is not None or self._invitation_of(key) is not None

    def enter(self, key: str, hello: HostHello, attached: AbstractSet[str] = frozenset()) -> str:
        """The machine name of a peer that has proven `key` and says hello. `attached` are the
        machines that are connected now.

        A peer that proved an invitation's key becomes a host. Raises `JoinRefused`.
        """
        known = self._host_of(key)
        if known is not None:
            if hello.key != key:
                raise JoinRefused("the hello is for another key than the connection")
            return known.machine
        invitation = self._invitation_of(key)
        if invitation is None:
            raise JoinRefused("the join file has been used already, or its time is over")
        if self._host_of(hello.key) is not None or hello.key == key:
            raise JoinRefused("this key has joined already")
        return self._join(invitation, hello, attached)

    def forget(self, machine: str) -> bool:
        """Take a host's way in. False if there is none of that name. Raises `OSError`."""
        left = tuple(host for host in self.hosts if host.machine != machine)
        if len(left) == len(self.hosts):
            return False
        self._change(hosts=left)
        return True

    def note(self, attached: AbstractSet[str]) -> None:
        """These hosts are attached now. The ones that never came back are forgotten (`away`).
        Raises `OSError`."""
        now = self._clock()
        self._attached = attached
        seen = tuple(
            structs.replace(host, seen_at=now) if host.machine in attached else host
            for host in self._kept(MAX_HOSTS)
        )
        if seen != self.hosts:
            self._change(hosts=seen)

    def _kept(self, most: int) -> tuple[KnownHost, ...]:
        return kept(self.hosts, self._attached, self._clock(), self._opened_at, most)

    def _join(self, invitation: Invitation, hello: HostHello, attached: AbstractSet[str]) -> str:
        others = self._kept(MAX_HOSTS - 1)
        if invitation.takes_name and hello.machine not in attached:
            others = tuple(host for host in others if host.machine != hello.machine)
        if len(others) >= MAX_HOSTS:
            raise JoinRefused(f"the front knows {MAX_HOSTS} hosts already", retryable=True)
        machine = _free_name(hello.machine, {host.machine for host in others})
        rest = tuple(one for one in self._valid() if one.key != invitation.key)
        if invitation.uses > 1:
            rest += (structs.replace(invitation, uses=invitation.uses - 1),)
        now = self._clock()
        host = KnownHost(machine, hello.key, joined_at=now, seen_at=now)
        try:
            self._change(hosts=(*others, host), invitations=rest)
        except OSError as err:
            raise JoinRefused(
                f"the front cannot write its hosts file: {err}", retryable=True
            ) from err
        return machine

    def _host_of(self, key: str) -> KnownHost | None:
        return next((host for host in self.hosts if host.key == key), None)

    def _invitation_of(self, key: str) -> Invitation | None:
        return next((one for one in self._valid() if one.key == key), None)

    def _valid(self) -> tuple[Invitation, ...]:
        now = self._clock()
        return tuple(
            one for one in self._pages.invitations if one.ends_at is None or one.ends_at > now
        )

    def _change(self, **fields: tuple[KnownHost, ...] | tuple[Invitation, ...]) -> None:
        pages = structs.replace(self._pages, **fields)
        keys.save(self._path, pages)
        self._pages = pages


def _free_name(wanted: str, taken: set[str]) -> str:
    """`wanted`, or with a number after it if another host has that name."""
    numbered = (f"{wanted[:56]}-{number}" for number in range(2, len(taken) + 3))
    return next(name for name in (wanted, *numbered) if name not in taken)
