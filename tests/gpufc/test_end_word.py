"""A process that holds a word, and one that watches it."""

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from gpufc import end_word
from gpufc.end_word import Seen

pytestmark = pytest.mark.skipif(not end_word.is_supported(), reason="no glibc on a known processor")

HOLDER = """
import os, sys, threading
from gpufc import end_word
end_word.hold(int(sys.argv[1]))
threading.Thread(target=threading.Event().wait, daemon=True).start()
print("held", flush=True)
sys.stdin.readline()
os._exit(7)
"""


@contextmanager
def holder(fd: int) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(fd)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, pass_fds=(fd,),
    )  # fmt: skip
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


@pytest.fixture
def word() -> Iterator[int]:
    fd = end_word.make()
    yield fd
    os.close(fd)


def test_a_new_word_is_not_held(word: int) -> None:
    watch = end_word.Watch(word)
    assert watch.wait(0.0) is Seen.NOT_HELD
    watch.close()


@pytest.mark.parametrize("how", ["killed", "exits"])
def test_the_end_of_its_holder_wakes_the_watch(word: int, how: str) -> None:
    seen: list[Seen] = []
    with holder(word) as process:
        watch = end_word.Watch(word)
        assert watch.wait(0.01) is Seen.LIVES
        waiting = threading.Thread(target=lambda: seen.append(watch.wait(60.0)))
        waiting.start()
        if how == "killed":
            process.send_signal(signal.SIGKILL)
        else:
            assert process.stdin is not None
            process.stdin.write("\n")
            process.stdin.flush()
        waiting.join(60.0)
    assert seen == [Seen.ENDS]
    assert watch.wait(60.0) is Seen.ENDS
    watch.close()


def test_a_watch_that_begins_after_the_end_sees_it(word: int) -> None:
    with holder(word) as process:
        process.kill()
        process.wait()
    watch = end_word.Watch(word)
    assert watch.wait(60.0) is Seen.ENDS
    watch.close()


def test_the_memory_cannot_be_cut_under_the_watch(word: int) -> None:
    with pytest.raises(PermissionError):
        os.ftruncate(word, 0)


def test_a_watch_writes_nothing_that_could_hide_the_end(word: int) -> None:
    with holder(word):
        before = os.pread(word, 64, 0)
        watch = end_word.Watch(word)
        assert watch.wait(0.01) is Seen.LIVES
        assert os.pread(word, 64, 0) == before
    watch.close()


@pytest.mark.parametrize("answer", [None, OSError("unknown to this library")])
def test_a_library_that_is_not_glibc_is_not_relied_on(
    answer: OSError | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    def confstr(_name: str) -> None:
        if answer is not None:
            raise answer

    monkeypatch.setattr(os, "confstr", confstr)
    assert not end_word.is_supported()
