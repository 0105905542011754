"""The memory file that carries KV from one worker to the next."""

import os
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine_worker.kv.file import KvFileError, KvReader, KvWriter

PAGE = os.sysconf("SC_PAGESIZE")


@pytest.fixture
def fd() -> Iterator[int]:
    number = os.memfd_create("kv")
    yield number
    os.close(number)


def put(data: bytes):
    def fill(view: memoryview) -> int:
        view[:] = data
        return len(data)

    return fill


@settings(max_examples=30, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.text(max_size=5),
            st.lists(st.integers(0, 2**31 - 1), min_size=1, max_size=9),
            st.binary(min_size=1, max_size=3 * PAGE),
        ),
        max_size=5,
    )
)
def test_written_states_are_read(states) -> None:
    number = os.memfd_create("kv")
    try:
        writer = KvWriter(number, 1 << 30)
        for scope, tokens, data in states:
            assert writer.add(scope, tuple(tokens), len(data), put(data))
        writer.finish("f")
        reader = KvReader(number, "f")
        found = []
        for saved in reader.sequences:
            with reader.state(saved) as state:
                found.append((saved.scope, list(saved.tokens), state[: saved.size]))
        assert found == states
    finally:
        os.close(number)


def test_the_limit_holds(fd: int) -> None:
    writer = KvWriter(fd, 2 * PAGE)
    assert writer.add("", (1,), PAGE + 1, put(b"x" * (PAGE + 1)))
    assert not writer.add("", (2,), 1, put(b"y"))
    writer.finish("f")
    assert [saved.tokens for saved in KvReader(fd, "f").sequences] == [(1,)]


def test_a_state_that_could_not_be_exported_leaves_no_entry(fd: int) -> None:
    writer = KvWriter(fd, 1 << 20)
    assert not writer.add("", (1,), 100, lambda view: 0)
    assert writer.add("", (2,), 3, put(b"abc"))
    writer.finish("f")
    reader = KvReader(fd, "f")
    (saved,) = reader.sequences
    with reader.state(saved) as state:
        assert state[:3] == b"abc"


def test_another_fingerprint_is_refused(fd: int) -> None:
    KvWriter(fd, 1).finish("one")
    with pytest.raises(KvFileError, match="another model"):
        KvReader(fd, "two")


@pytest.mark.parametrize("cut", [1, 8, 16, 17])
def test_a_file_that_was_not_finished_is_refused(fd: int, cut: int) -> None:
    writer = KvWriter(fd, 1 << 20)
    writer.add("", (1, 2), 10, put(b"0123456789"))
    writer.finish("f")
    os.ftruncate(fd, os.fstat(fd).st_size - cut)
    with pytest.raises(KvFileError):
        KvReader(fd, "f")


def test_an_empty_file_is_refused(fd: int) -> None:
    with pytest.raises(KvFileError):
        KvReader(fd, "f")
