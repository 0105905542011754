"""The new front's process, as the old front handles it: start, listen, end."""

import asyncio
import contextlib
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import gpufc
from gpufc.errors import LinkError
from supervisor.handover import messages
from supervisor.handover.messages import FromNew, FromOld
from supervisor.handover.packets import PacketSocket

COMMAND = (sys.executable, "-P", "-m", "supervisor.handover")
"""`-P` keeps Python from importing modules of the operator's current folder."""

MAX_LINE = 300


class Successor:
    """A process of a new front, in a session of its own: it outlives this process and its terminal.

    Its output before the takeover is kept: it says why a takeover failed.
    """

    def __init__(self, command: Sequence[str] = COMMAND) -> None:
        """Start it. Raises `OSError`."""
        self._packets, theirs = PacketSocket.pair()
        self._output = os.memfd_create("gpufc-upgrade")
        try:
            self._popen = subprocess.Popen(
                [*command, "--fd", str(theirs.fileno())],
                stdin=subprocess.DEVNULL,
                stdout=self._output,
                stderr=self._output,
                pass_fds=(theirs.fileno(),),
                start_new_session=True,
                env=_environment(),
            )
        except BaseException:
            self._packets.close()
            os.close(self._output)
            raise
        finally:
            theirs.close()
        self.pid = self._popen.pid

    def send(self, message: FromOld, descriptors: Sequence[int] = ()) -> None:
        """Send a message. Raises `LinkError` if the process has ended."""
        try:
            self._packets.send(messages.encode(message), descriptors)
        except OSError as err:
            raise LinkError(self.last_words()) from err

    async def receive(self) -> FromNew:
        """The next message. Raises `LinkError` with the last words of a process that has ended."""
        try:
            data = await self._packets.receive()
        except OSError:
            data = b""
        if not data:
            raise LinkError(self.last_words())
        return messages.decode_from_new(data)

    def last_words(self) -> str:
        """The last printed line, which is the exception of a traceback."""
        text = os.pread(self._output, 1 << 20, 0).decode(errors="replace")
        lines = [line.strip() for line in text.splitlines() if line.strip()]
        return lines[-1][:MAX_LINE] if lines else "it ended without a word"

    async def end(self) -> None:
        """Kill and reap the process, also one that has ended."""
        with contextlib.suppress(ProcessLookupError):
            self._popen.kill()
        await asyncio.to_thread(self._popen.wait)
        self._close()

    def let_live(self) -> None:
        """Leave the process alive. It sees this front's end at its end of the socket."""
        if self._popen.poll() is None:
            self._popen.returncode = 0  # else Popen's destructor would warn
        self._close()

    def _close(self) -> None:
        self._packets.close()
        if self._output >= 0:
            os.close(self._output)
            self._output = -1


def _environment() -> dict[str, str]:
    """This environment, with this package's folder in PYTHONPATH: `-P` leaves out the current
    one."""
    root = str(Path(gpufc.__file__).parent.parent)
    known = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    path = os.pathsep.join([root, *(each for each in known if each and each != root)])
    return os.environ | {"PYTHONPATH": path}
