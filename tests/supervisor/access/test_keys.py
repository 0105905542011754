"""The list of keys, its file, and the keys in force."""

import multiprocessing
import os
import stat
from pathlib import Path

import pytest

from gpufc.errors import AuthenticationFailed, ConfigError
from supervisor.access import store
from supervisor.access.keys import PREFIX, Key, KeyList, digest, new_text
from supervisor.access.ring import LOOK_S, KeyRing
from supervisor.dispatch.request import Scope


def key(name: str, text: str = "", **fields: object) -> Key:
    fields = {"scopes": (Scope.GENERATE,), "created": 1} | fields
    return Key(name=name, sha256=digest(text or name), **fields)  # type: ignore[arg-type]


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


class Ringed:
    """A ring over a file, with clocks that the test moves."""

    def __init__(self, path: Path, *keys: Key) -> None:
        self.path = path
        self.clock, self.wall = Clock(), Clock()
        self.put(*keys)
        self.ring = KeyRing(path, clock=self.clock, wall=self.wall)

    def put(self, *keys: Key) -> None:
        store.change(self.path, lambda _known: KeyList(keys))

    def knows(self, text: str) -> bool:
        return self.ring.principal(text) is not None


def test_new_keys_are_long_random_and_recognisable() -> None:
    texts = {new_text() for _ in range(100)}
    assert len(texts) == 100
    assert all(text.startswith(PREFIX) and len(text) == len(PREFIX) + 43 for text in texts)


def test_a_name_belongs_to_one_key() -> None:
    keys = KeyList().adding(key("a")).adding(key("b"))
    with pytest.raises(ConfigError, match="there is a key a already"):
        keys.adding(key("a", "other"))
    assert keys.revoking("a") == KeyList((key("b"),))
    with pytest.raises(ConfigError, match="no key c"):
        keys.revoking("c")


def test_the_file_is_private_and_has_no_key_in_it(tmp_path: Path) -> None:
    path = tmp_path / "folder" / "keys.json"
    text = new_text()
    store.change(path, lambda known: known.adding(key("a", text, tokens_per_minute=5)))
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert text not in path.read_text()
    assert store.load(path).keys == (key("a", text, tokens_per_minute=5),)
    assert {each.name for each in path.parent.iterdir()} == {"keys.json", ".keys.json.lock"}


def test_a_link_to_the_file_stays_a_link(tmp_path: Path) -> None:
    link, path = tmp_path / "link.json", tmp_path / "keys.json"
    store.change(path, lambda known: known)
    link.symlink_to(path)
    store.change(link, lambda known: known.adding(key("a")))
    assert link.is_symlink()
    assert store.load(path).keys == (key("a"),)


def test_a_byte_order_mark_that_an_editor_wrote_is_read_over(tmp_path: Path) -> None:
    path = tmp_path / "keys.json"
    store.change(path, lambda _known: KeyList((key("a"),)))
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    assert store.load(path).keys == (key("a"),)


def _add(path: Path, name: str) -> None:
    store.change(path, lambda known: known.adding(key(name)))


def test_changes_of_several_processes_are_all_kept(tmp_path: Path) -> None:
    path = tmp_path / "keys.json"
    context = multiprocessing.get_context("fork")
    adding = [context.Process(target=_add, args=(path, f"k{i}")) for i in range(6)]
    for each in adding:
        each.start()
    for each in adding:
        each.join()
    assert {each.name for each in store.load(path).keys} == {f"k{i}" for i in range(6)}


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "not valid"),
        ("{", "not valid"),
        ("\xff", "not valid"),
        ('{"keys": [{"name": "a"}]}', "missing required field"),
        ('{"keyz": []}', "unknown field"),
        ('{"keys": [{"name":"a","sha256":"A","scopes":["read"],"created":1}]}', "sha256"),
        ('{"keys": [{"name":"a","sha256":"%s","scopes":["x"],"created":1}]}' % ("0" * 64), "x"),
        ('{"keys": [{"name":"a","sha256":"%s","scopes":[],"created":1}]}' % ("0" * 64), "scopes"),
    ],
)
def test_a_broken_file_is_one_line(tmp_path: Path, text: str, why: str) -> None:
    path = tmp_path / "keys.json"
    path.write_text(text, encoding="latin-1")
    path.chmod(0o600)
    with pytest.raises(ConfigError, match=why) as found:
        store.load(path)
    assert str(path) in str(found.value)


def test_a_missing_an_open_and_an_odd_file_are_refused_with_a_remedy(tmp_path: Path) -> None:
    path = tmp_path / "keys.json"
    with pytest.raises(ConfigError, match="keys add NAME --keys-file"):
        store.load(path)
    store.change(path, lambda known: known)
    for mode in (0o640, 0o604, 0o620):
        path.chmod(mode)
        with pytest.raises(ConfigError, match="chmod 600"):
            store.load(path)
    with pytest.raises(ConfigError, match="cannot be read"):
        store.load(tmp_path)


def test_two_keys_of_one_name_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "keys.json"
    store.change(path, lambda _known: KeyList((key("a"), key("a", "other"))))
    with pytest.raises(ConfigError, match="two keys of one name"):
        store.load(path)


def test_a_key_stands_for_a_principal_of_its_own(tmp_path: Path) -> None:
    made = Ringed(tmp_path / "k", key("a"), key("b", scopes=(Scope.READ,), models=("m*",)))
    a, b = made.ring.principal("a"), made.ring.principal("b")
    assert a is not None
    assert b is not None
    assert (a.may(Scope.GENERATE), a.may(Scope.READ), a.may(Scope.ADMIN)) == (True, False, False)
    assert (b.may(Scope.GENERATE), b.may(Scope.READ), b.models) == (False, True, ("m*",))
    assert not a.is_anonymous
    assert len({a.cache_scope, b.cache_scope, ""}) == 3
    assert a.name != b.name
    for wrong in ("c", "", "A", "a ", "\udcff", digest("a")):
        assert made.ring.principal(wrong) is None


def test_keys_share_cached_prefixes_in_a_group_only(tmp_path: Path) -> None:
    keys = (key("a", cache_group="g"), key("b", cache_group="g"), key("g"))
    made = Ringed(tmp_path / "k", *keys)
    scopes = [found.cache_scope for found in map(made.ring.principal, "abg") if found is not None]
    assert scopes[0] == scopes[1] != scopes[2]


def test_a_later_key_of_the_same_name_is_another_principal(tmp_path: Path) -> None:
    made = Ringed(tmp_path / "k", key("a", "old"))
    old = made.ring.principal("old")
    made.put(key("a", "new"))
    made.clock.now += LOOK_S
    new = made.ring.principal("new")
    assert old is not None
    assert new is not None
    assert (old.name, old.cache_scope) != (new.name, new.cache_scope)
    assert old.name != new.name


def test_the_file_is_read_again_when_it_changes_and_looked_at_once_a_second(
    tmp_path: Path,
) -> None:
    made = Ringed(tmp_path / "k", key("a"))
    made.put(key("b"))
    made.clock.now += LOOK_S / 2
    assert (made.knows("a"), made.knows("b")) == (True, False)
    made.clock.now += LOOK_S / 2
    assert (made.knows("a"), made.knows("b")) == (False, True)


def test_an_edit_in_place_is_seen(tmp_path: Path) -> None:
    made = Ringed(tmp_path / "k", key("a", "old"))
    text = made.path.read_text().replace(digest("old"), digest("new"))
    with open(made.path, "w") as file:
        file.write(text)
    made.clock.now += LOOK_S
    assert (made.knows("old"), made.knows("new")) == (False, True)


def test_the_last_revoked_key_leaves_no_key(tmp_path: Path) -> None:
    made = Ringed(tmp_path / "k", key("a"))
    made.put()
    made.clock.now += LOOK_S
    assert not made.knows("a")


@pytest.mark.parametrize("harm", ["broken", "gone", "open"])
def test_an_unreadable_file_leaves_the_keys_in_force_until_it_is_mended(
    tmp_path: Path, harm: str, caplog: pytest.LogCaptureFixture
) -> None:
    made = Ringed(tmp_path / "k", key("a"))
    if harm == "broken":
        made.path.write_text("{")
    elif harm == "gone":
        os.unlink(made.path)
    else:
        made.path.chmod(0o644)
    made.clock.now += LOOK_S
    assert made.knows("a")
    made.clock.now += LOOK_S
    assert made.knows("a")
    assert [record.levelname for record in caplog.records] == ["ERROR"]  # not each time
    if made.path.exists():
        made.path.unlink()
    made.put(key("b"))
    made.clock.now += LOOK_S
    assert (made.knows("a"), made.knows("b")) == (False, True)


def test_a_key_ends_at_its_time(tmp_path: Path) -> None:
    made = Ringed(tmp_path / "k", key("a", expires=200))
    made.wall.now = 199.9
    assert made.knows("a")
    made.wall.now = 200.0
    with pytest.raises(AuthenticationFailed, match="expired"):
        made.ring.principal("a")


def test_what_a_key_has_used_outlasts_a_change_of_the_file(tmp_path: Path) -> None:
    made = Ringed(tmp_path / "k", key("a", concurrent=3))
    before = made.ring.principal("a")
    made.put(key("a", concurrent=3), key("b"))
    made.clock.now += LOOK_S
    after = made.ring.principal("a")
    assert before is not None
    assert after is not None
    assert before.account is after.account


def test_an_account_is_found_by_its_key_s_identity_as_long_as_the_key_is_listed(
    tmp_path: Path,
) -> None:
    one, other = key("a"), key("b", expires=1)
    ringed = Ringed(tmp_path / "keys.json", one, other)
    principal = ringed.ring.principal("a")
    assert principal is not None
    assert ringed.ring.account(one.identity) is principal.account
    assert ringed.ring.account(other.identity) is not None  # its running requests go on
    ringed.put(other)
    ringed.clock.now += LOOK_S
    assert ringed.ring.account(one.identity) is None
