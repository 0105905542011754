"""The two process attributes that child processes set on themselves (prctl(2), Linux only)."""

import ctypes
import signal

_PR_SET_PDEATHSIG = 1
_PR_SET_NO_NEW_PRIVS = 38


def end_with_parent() -> None:
    """Have the kernel kill this process when its parent's *thread* that forked it ends.

    A parent that has ended before this call is not noticed: the caller has to check.
    """
    _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def outlive_parent() -> None:
    """Undo `end_with_parent`. Must be called by the same thread."""
    _prctl(_PR_SET_PDEATHSIG, 0)


def gain_no_privileges() -> None:
    """Make set-user-id bits and file capabilities ineffective, for children too."""
    _prctl(_PR_SET_NO_NEW_PRIVS, 1)


def _prctl(option: int, value: int) -> None:
    ctypes.CDLL(None).prctl(option, value, 0, 0, 0)
