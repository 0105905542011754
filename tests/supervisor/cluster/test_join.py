"""Join files and the host's memory."""

from pathlib import Path

import pytest

from gpufc.errors import ConfigError
from supervisor.cluster import keys
from supervisor.cluster.join import (
    VARIABLE,
    JoinFile,
    Memory,
    endpoint,
    read_join_file,
    write_join_file,
)

FRONT = keys.new_pair()
INVITATION = keys.new_pair()


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "join"
    write_join_file(path, "10.0.0.1:8090", FRONT.public, INVITATION)
    return path


def test_a_join_file_is_private_and_has_the_whole_invitation(file: Path) -> None:
    assert file.stat().st_mode & 0o777 == 0o600
    found = read_join_file(file, {})
    assert found == JoinFile("10.0.0.1:8090", FRONT.public, INVITATION.secret)
    assert found.invitation() == INVITATION


def test_secrets_are_in_no_repr(file: Path) -> None:
    found = read_join_file(file, {})
    assert found is not None
    assert INVITATION.secret not in repr(found) + repr(found.invitation())


def test_a_variable_has_the_same_text(file: Path) -> None:
    found = read_join_file(None, {VARIABLE: file.read_text()})
    assert found == read_join_file(file, {})
    assert read_join_file(None, {}) is None


def test_a_join_file_that_others_can_read_is_refused(file: Path) -> None:
    file.chmod(0o644)
    with pytest.raises(ConfigError, match="chmod 600"):
        read_join_file(file, {})


@pytest.mark.parametrize(
    "text", ["", "{}", "[]", '{"front": "a:1", "front_key": "x", "join_key": "y"}', "\udcff"]
)
def test_a_damaged_join_file_is_refused_without_its_text(tmp_path: Path, text: str) -> None:
    path = tmp_path / "join"
    path.touch(mode=0o600)
    path.write_bytes(text.encode(errors="surrogateescape"))
    with pytest.raises(ConfigError, match="not valid"):
        read_join_file(path, {})


def test_a_missing_join_file_says_where_to_get_one(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="hosts invite"):
        read_join_file(tmp_path / "none", {})


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("10.0.0.1:8090", "tcp://10.0.0.1:8090"),
        ("tcp://front.example:1", "tcp://front.example:1"),
        ("[::1]:8090", "tcp://[::1]:8090"),
    ],
)
def test_addresses(address: str, expected: str) -> None:
    assert endpoint(address) == expected


@pytest.mark.parametrize("address", ["", "10.0.0.1", "10.0.0.1:", ":8090", "a:b", "a:99999"])
def test_no_addresses(address: str) -> None:
    with pytest.raises(ConfigError, match="HOST:PORT"):
        endpoint(address)


def test_a_host_remembers_its_key_and_its_front(tmp_path: Path) -> None:
    memory = Memory(tmp_path / "host.json")
    assert not memory.knows(FRONT.public)
    memory.joined("10.0.0.1:8090", FRONT.public)
    again = Memory(tmp_path / "host.json")
    assert again.content == memory.content
    assert again.knows(FRONT.public)
    assert not again.knows(INVITATION.public)
