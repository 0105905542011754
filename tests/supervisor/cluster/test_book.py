"""Which keys may join, and what stays of a join on disk."""

from pathlib import Path

import pytest

from gpufc.errors import ConfigError
from supervisor.cluster import keys
from supervisor.cluster.book import HostBook, JoinRefused
from tests.supervisor.cluster.hosts import hello


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def book(tmp_path: Path, clock: Clock) -> HostBook:
    return HostBook(tmp_path / "hosts.json", clock)


def joined(book: HostBook, machine: str = "node") -> str:
    """Join a host with a key of its own. Returns that key."""
    own = keys.new_pair().public
    book.enter(book.invite().public, hello(own, machine=machine))
    return own


def test_a_stranger_is_not_admitted(book: HostBook) -> None:
    book.invite()
    assert not book.admits(keys.new_pair().public)
    assert not book.admits("")


def test_an_invitation_is_good_for_one_join(book: HostBook) -> None:
    invitation = book.invite()
    assert book.admits(invitation.public)
    assert book.enter(invitation.public, hello(keys.new_pair().public)) == "node"
    assert not book.admits(invitation.public)
    with pytest.raises(JoinRefused, match="used already"):
        book.enter(invitation.public, hello(keys.new_pair().public))


def test_an_invitation_for_two_is_good_for_two(book: HostBook) -> None:
    invitation = book.invite(uses=2)
    for _ in range(2):
        book.enter(invitation.public, hello(keys.new_pair().public))
    assert not book.admits(invitation.public)
    assert [host.machine for host in book.hosts] == ["node", "node-2"]


def test_an_old_invitation_is_not_admitted(book: HostBook, clock: Clock) -> None:
    invitation = book.invite(lifetime_s=60.0)
    clock.now += 61.0
    assert not book.admits(invitation.public)
    with pytest.raises(JoinRefused):
        book.enter(invitation.public, hello(keys.new_pair().public))


def test_a_withdrawn_invitation_is_not_admitted(book: HostBook) -> None:
    invitation = book.invite()
    book.withdraw_invitations()
    assert not book.admits(invitation.public)


def test_a_host_that_stands_in_for_one_that_is_away_has_its_name(book: HostBook) -> None:
    old, other = joined(book), joined(book)
    new = keys.new_pair().public
    invitation = book.invite(takes_name=True)
    assert book.enter(invitation.public, hello(new), {"node-2"}) == "node"
    assert [host.key for host in book.hosts] == [other, new]
    assert not book.admits(old)


def test_a_host_that_is_attached_keeps_its_name(book: HostBook) -> None:
    old = joined(book)
    invitation = book.invite(takes_name=True)
    new = keys.new_pair().public
    assert book.enter(invitation.public, hello(new), {"node"}) == "node-2"
    assert book.admits(old)


def test_a_host_comes_back_by_its_own_key_and_name(book: HostBook) -> None:
    joined(book)
    own = joined(book)
    assert book.admits(own)
    assert book.enter(own, hello(own, machine="another")) == "node-2"


def test_a_host_cannot_say_hello_for_another_key(book: HostBook) -> None:
    own, other = joined(book), joined(book)
    with pytest.raises(JoinRefused, match="another key"):
        book.enter(own, hello(other))


@pytest.mark.parametrize("taken", ["other", "invitation"])
def test_a_join_cannot_take_a_key_that_is_in_use(book: HostBook, taken: str) -> None:
    other, invitation = joined(book), book.invite()
    key = other if taken == "other" else invitation.public
    with pytest.raises(JoinRefused):
        book.enter(invitation.public, hello(key))
    assert len(book.hosts) == 1


def test_a_forgotten_host_is_not_admitted(book: HostBook) -> None:
    own = joined(book)
    assert book.forget("node")
    assert not book.forget("node")
    assert not book.admits(own)


def test_the_book_is_the_same_after_a_restart(book: HostBook, tmp_path: Path, clock: Clock) -> None:
    own, invitation = joined(book), book.invite()
    again = HostBook(tmp_path / "hosts.json", clock)
    assert again.front == book.front
    assert again.admits(own)
    assert again.admits(invitation.public)


def test_the_file_is_private_and_has_no_invitations_secret(book: HostBook, tmp_path: Path) -> None:
    invitation = book.invite()
    path = tmp_path / "hosts.json"
    assert path.stat().st_mode & 0o777 == 0o600
    assert invitation.secret not in path.read_text()


@pytest.mark.parametrize("content", ["", "{", '{"version": 9}'])
def test_a_damaged_book_is_refused(tmp_path: Path, content: str) -> None:
    path = tmp_path / "hosts.json"
    path.touch(mode=0o600)
    path.write_text(content)
    with pytest.raises(ConfigError, match=r"hosts\.json"):
        HostBook(path)


def test_a_book_that_others_can_read_is_refused(book: HostBook, tmp_path: Path) -> None:
    (tmp_path / "hosts.json").chmod(0o640)
    with pytest.raises(ConfigError, match="chmod 600"):
        HostBook(tmp_path / "hosts.json")


def test_a_full_disk_uses_no_invitation_up(book: HostBook, monkeypatch: pytest.MonkeyPatch) -> None:
    invitation = book.invite()

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(keys, "save", full)
        with pytest.raises(JoinRefused, match="hosts file") as refused:
            book.enter(invitation.public, hello(keys.new_pair().public))
    assert refused.value.retryable
    assert book.hosts == ()
    assert book.admits(invitation.public)


def test_an_invitation_without_an_end_is_good_for_years(book: HostBook, clock: Clock) -> None:
    invitation = book.invite(uses=100_000, lifetime_s=None)
    clock.now += 1e9
    assert book.admits(invitation.public)


def test_pods_with_new_keys_do_not_fill_the_book_up(
    book: HostBook, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("supervisor.cluster.book.MAX_HOSTS", 3)
    stays = joined(book, "stays")
    for number in range(2):
        joined(book, f"pod-{number}")
    with pytest.raises(JoinRefused, match="3 hosts"):
        joined(book, "too-soon")
    for number in range(2, 9):
        clock.now += 4000.0
        book.note({"stays"})
        joined(book, f"pod-{number}")
    assert [host.machine for host in book.hosts] == ["stays", "pod-7", "pod-8"]
    assert book.admits(stays)


def test_a_host_that_never_comes_back_is_forgotten(
    book: HostBook, tmp_path: Path, clock: Clock
) -> None:
    here, gone = joined(book, "here"), joined(book, "gone")
    for _ in range(8):
        clock.now += 86_400.0
        book.note({"here"})
    again = HostBook(tmp_path / "hosts.json", clock)
    assert again.admits(here)
    assert not again.admits(gone)
