"""The process attributes that the front and its children set on themselves (Linux)."""

import contextlib
import ctypes
import signal
from pathlib import Path

_OOM_SCORE = Path("/proc/self/oom_score_adj")

_PR_SET_PDEATHSIG = 1
_PR_SET_DUMPABLE = 4
_PR_SET_CHILD_SUBREAPER = 36
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


def set_dumpable(dumpable: bool) -> None:
    """Whether a crash may leave a core file, and processes of the same user may open /proc/PID.

    A program that is executed begins dumpable.
    """
    _prctl(_PR_SET_DUMPABLE, int(dumpable))


def adopt_orphans() -> None:
    """Become the parent of each descendant whose own parent has ended. Not inherited."""
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)


def be_killed_before_others(score: int) -> None:
    """Have the kernel end this process before those with a lower score when memory runs out.

    `score` is at most 1000; the front has 0. A higher score stays. Children inherit it.
    """
    with contextlib.suppress(OSError, ValueError):  # not Linux, or /proc is out of reach
        if int(_OOM_SCORE.read_text()) < score:
            _OOM_SCORE.write_text(str(score))


def _prctl(option: int, value: int) -> int:
    return int(ctypes.CDLL(None).prctl(option, value, 0, 0, 0))
