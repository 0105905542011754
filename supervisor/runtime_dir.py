"""A running front's private folder: sockets, lock and logs.

A second bind on an ipc path silently steals the path from the first. So no two fronts share a
folder: the holder of the lock on `front.lock` owns everything in it.
"""

import contextlib
import errno
import fcntl
import logging
import os
import re
import secrets
import shlex
import stat
import tempfile
import time
from pathlib import Path

from gpufc.errors import ConfigError, StartError
from gpufc.ids import WorkerName
from supervisor import program

logger = logging.getLogger(__name__)

MAX_SOCKET_PATH_BYTES = 107
"""`sun_path` of a unix socket, without its final zero (unix(7))."""

_LOCK = "front.lock"
_CONTROL = "control.sock"
_OURS = frozenset({_LOCK, _CONTROL, "logs", "crashes", "needs"})
_LINK_NAME = re.compile(r"w-[0-9a-f]{8}\.sock")
_LONGEST_NAME = len("w-00000000.sock")
_LOCK_FLAGS = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
_LOCK_TRIES = 10
_LOCK_WAIT_S = 0.02


class RuntimeDir:
    """A runtime folder. `find` refers to one, `acquire` and `take_over` make this process its
    owner."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock_fd: int | None = None

    @classmethod
    def find(cls, given: str | None) -> "RuntimeDir":
        """The folder of a front that may be running. Creates, locks and checks nothing."""
        return cls(Path(given).absolute() if given else _default())

    @classmethod
    def acquire(cls, given: str | None) -> "RuntimeDir":
        """Create, check and lock the folder, and remove a dead front's sockets.

        Raises `ConfigError` for a folder that cannot be used, `StartError` if it is in use.
        """
        self = cls.find(given)
        self._check_length()
        self._create()
        self._check_owner()
        self._lock()
        self._sweep()
        return self

    @classmethod
    def take_over(cls, path: str, lock_fd: int) -> "RuntimeDir":
        """The folder of a front that hands it over. Every copy of `lock_fd` holds the lock.

        Changes nothing in the folder before `own`.
        """
        self = cls(Path(path))
        self._lock_fd = lock_fd
        return self

    @property
    def is_held(self) -> bool:
        """Whether this process owns the folder."""
        return self._lock_fd is not None

    def restore(self) -> None:
        """Make the folder, its lock and the log folder anew if they have vanished.

        Only for the owner; else it does nothing. Raises `OSError`: the system refuses, or another
        front has taken a folder of that name.
        """
        if self._lock_fd is None:
            return
        if not self._is_lock_in_place(self._lock_fd):
            logger.warning("runtime_folder_vanished path=%s", self.path)
            self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._relock(self._lock_fd)
        if not self.logs.is_dir():
            logger.warning("log_folder_vanished path=%s", self.logs)
            self.logs.mkdir(mode=0o700, exist_ok=True)

    def _is_lock_in_place(self, lock_fd: int) -> bool:
        try:
            named = os.stat(self.path / _LOCK, follow_symlinks=False)
        except (FileNotFoundError, NotADirectoryError):
            return False
        return os.path.samestat(named, os.fstat(lock_fd))

    def _relock(self, lock_fd: int) -> None:
        """Lock a new file of the lock's name, in place of one that has no name any more."""
        found = self.path.lstat()
        if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid():
            raise OSError(errno.EBUSY, f"{self.path} is taken by another user")
        fresh = os.open(self.path / _LOCK, _LOCK_FLAGS, 0o600)
        try:
            fcntl.flock(fresh, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.dup2(fresh, lock_fd, inheritable=False)
        except BlockingIOError as err:
            pid = _pid_in(fresh) or "unknown"
            taken = f"another front (pid {pid}) has taken {self.path}"
            raise OSError(errno.EBUSY, taken) from err
        finally:
            os.close(fresh)
        _write_pid(lock_fd)

    def own(self) -> None:
        """Write this process's pid into the lock."""
        if self._lock_fd is not None:
            _write_pid(self._lock_fd)

    def lend(self) -> int:
        """The lock's descriptor, to be copied to a front that takes over."""
        if self._lock_fd is None:
            raise StartError(f"runtime folder {self.path} is not held")
        return self._lock_fd

    def let_go(self) -> None:
        """Close the lock: another front owns the folder now."""
        if self._lock_fd is not None:
            os.close(self._lock_fd)
            self._lock_fd = None

    @property
    def admin_token(self) -> Path:
        """The file with this run's token for administration over HTTP."""
        return self.path / "admin-token"

    @property
    def session_secret(self) -> Path:
        """The file with the secret that signs browsers' sessions, of a front with keys."""
        return self.path / "session-secret"

    @property
    def control_socket(self) -> Path:
        """The socket by which control commands reach the front."""
        return self.path / _CONTROL

    @property
    def logs(self) -> Path:
        """The folder of the logs."""
        return self.path / "logs"

    def command(self, words: str) -> str:
        """Spell a command for this folder, for a hint."""
        return program.command(words, None if self.path == _default() else self.path)

    def worker_log(self, worker: WorkerName) -> Path:
        """The log of a worker's stdout and stderr. Kept over restarts."""
        return self.logs / (re.sub(r"[^\w.-]", "_", worker).lstrip(".") + ".log")

    def new_socket(self) -> Path:
        """A new name for a worker's link, which cannot be guessed."""
        return self.path / f"w-{secrets.token_hex(4)}.sock"

    def front_pid(self) -> int | None:
        """The pid of the front that holds this folder; None without one."""
        try:
            fd = os.open(self.path / _LOCK, os.O_RDWR | os.O_CLOEXEC)
        except OSError:
            return None
        try:
            fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return _pid_in(fd)
        else:
            return None
        finally:
            os.close(fd)

    def held_for_s(self) -> float | None:
        """Seconds since a front last took or gave back the folder; None if none ever did."""
        try:
            return max(0.0, time.time() - (self.path / _LOCK).stat().st_mtime)
        except OSError:
            return None

    def cleanup(self) -> None:
        """Remove the sockets and release the folder. Logs stay. May be called again."""
        if self._lock_fd is None:
            return
        if self._is_lock_in_place(self._lock_fd):  # else the folder may be another front's now
            self._sweep()
            for secret in (self.admin_token, self.session_secret):
                with contextlib.suppress(OSError):
                    secret.unlink()
        # the lock file stays: after an unlink, two fronts could lock two files of one name
        os.ftruncate(self._lock_fd, 0)
        os.close(self._lock_fd)
        self._lock_fd = None

    def _check_length(self) -> None:
        length = len(os.fsencode(self.path)) + 1 + _LONGEST_NAME
        if length > MAX_SOCKET_PATH_BYTES:
            most = MAX_SOCKET_PATH_BYTES - 1 - _LONGEST_NAME
            raise ConfigError(
                f"runtime folder {self.path} has too long a path for sockets (at most {most} "
                "bytes); choose a shorter one with --runtime-dir"
            )

    def _create(self) -> None:
        try:
            self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as err:
            raise ConfigError(f"runtime folder {self.path} cannot be made: {err}") from err

    def _check_owner(self) -> None:
        found = self.path.lstat()  # lstat: a link's target could be changed afterwards
        if not stat.S_ISDIR(found.st_mode):
            raise ConfigError(f"runtime folder {self.path} is not a folder")
        if found.st_uid != os.geteuid():
            raise ConfigError(f"runtime folder {self.path} belongs to another user")
        if found.st_mode & 0o022:
            raise ConfigError(
                f"runtime folder {self.path} can be written by others "
                f"(mode {stat.S_IMODE(found.st_mode):o}); {self._way_out(found)}"
            )
        try:
            self.logs.mkdir(mode=0o700, exist_ok=True)
        except OSError as err:
            raise ConfigError(f"log folder {self.logs} cannot be made: {err}") from err

    def _way_out(self, found: os.stat_result) -> str:
        """The remedy. `chmod` is advised only for a folder of our own: it would break a shared
        one."""
        other = "choose another folder with --runtime-dir, one that need not exist yet"
        if found.st_mode & stat.S_ISVTX or not self._only_ours():
            return other
        return f"{other}, or `chmod 700 {shlex.quote(str(self.path))}`"

    def _only_ours(self) -> bool:
        """Whether the folder is empty or holds a front's files only."""
        try:
            names = {entry.name for entry in self.path.iterdir()}
        except OSError:
            return False
        return all(name in _OURS or _LINK_NAME.fullmatch(name) for name in names)

    def _lock(self) -> None:
        try:
            fd = os.open(self.path / _LOCK, _LOCK_FLAGS, 0o600)
        except OSError as err:
            raise ConfigError(f"lock in runtime folder {self.path} cannot be made: {err}") from err
        # `front_pid` holds the lock for an instant
        for _ in range(_LOCK_TRIES):
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                time.sleep(_LOCK_WAIT_S)
        else:
            pid = _pid_in(fd)
            os.close(fd)
            raise StartError(
                f"another front (pid {pid or 'unknown'}) is running in {self.path}; "
                f"`{self.command('stop')}` ends it, or choose another folder with --runtime-dir"
            )
        _write_pid(fd)
        self._lock_fd = fd

    def _sweep(self) -> None:
        """Remove the sockets. With the lock held, no live process listens on them."""
        for socket in (self.control_socket, *self.path.glob("w-*.sock")):
            with contextlib.suppress(OSError):  # gone, or the folder is read-only
                socket.unlink()


def _default() -> Path:
    given = os.environ.get("XDG_RUNTIME_DIR")
    if given:
        return Path(given) / "gpufc"
    return Path(tempfile.gettempdir()) / f"gpufc-{os.geteuid()}"


def _write_pid(fd: int) -> None:
    os.ftruncate(fd, 0)
    os.pwrite(fd, f"{os.getpid()}\n".encode(), 0)


def _pid_in(fd: int) -> int | None:
    text = os.pread(fd, 32, 0).strip()
    return int(text) if text.isdigit() else None
