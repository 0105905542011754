"""Which errors of a start are the system's, and not the worker's."""

import errno

import pytest

from supervisor.fleet.refusal import is_by_system


@pytest.mark.parametrize(
    "name",
    [
        *("EMFILE", "ENFILE", "EAGAIN", "ENOMEM", "ENOBUFS"),
        *("ENOSPC", "EDQUOT", "EROFS", "EIO"),
        *("ENOENT", "ENOTDIR", "EEXIST", "ESTALE", "EBUSY"),
    ],
)
def test_a_lack_of_the_system_passes_without_the_worker_s_doing(name: str) -> None:
    assert is_by_system(OSError(getattr(errno, name), name))


@pytest.mark.parametrize("name", ["ENOEXEC", "EINVAL", "E2BIG", "ELOOP"])
def test_another_error_is_the_worker_s(name: str) -> None:
    assert not is_by_system(OSError(getattr(errno, name), name))


def test_an_error_without_a_number_is_the_worker_s() -> None:
    assert not is_by_system(OSError("no number"))
