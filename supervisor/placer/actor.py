"""The actor: one worker host, as a child of one of Ray's worker processes.

Ray runs this class on another machine, where gpufc has to be installed. It is asynchronous, because
the kernel ends a child with the *thread* that forked it: the event loop's lives as long as the
actor.
"""

import asyncio
import os
import shutil
import signal
import socket
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from gpufc import prctl

LEAVE_S = 10.0
MAX_LINES_BYTES = 4096
HOST_CHARS = 32
"""Of a machine's name. With the actor's name it is shorter than `about.MAX_NAME`."""


class HostActor:
    """Runs `gpufc-supervisor host` until it ends. Ends with it, and it with this process."""

    def __init__(self, join: str, name: str, command: Sequence[str] = ()) -> None:
        """`join` is the text of a join file for one host, `name` the machine's for people. Another
        `command` takes the host's place in tests."""
        self._command = command
        self._join = join
        # the ends differ: of pods of one deployment, and of the hosts of one cluster
        self._name = f"{socket.gethostname()[-HOST_CHARS:]}-{name}"
        self._folder = Path(tempfile.mkdtemp(prefix="gpufc-host-"))
        self._child: asyncio.subprocess.Process | None = None
        self._end: asyncio.Task[str] | None = None

    async def start(self) -> int:
        """Start the host. Its pid."""
        folder = self._folder
        host = (
            *(sys.executable, "-P", "-m", "supervisor.cli", "host", f"--name={self._name}"),
            *(f"--key-file={folder}/host.json", f"--runtime-dir={folder}/run"),
        )
        self._child = await asyncio.create_subprocess_exec(
            *(self._command or host),
            env=_own_environment() | {"GPUFC_JOIN": self._join},
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.PIPE,
            preexec_fn=prctl.end_with_parent,
        )
        self._end = asyncio.create_task(self._ended(self._child))
        return self._child.pid

    async def node(self) -> str:
        """The node that it runs on, by Ray's id. Ray is there, for it runs this."""
        from ray import get_runtime_context

        return str(get_runtime_context().get_node_id())

    async def exited(self) -> str:
        """Wait for the host's end: its exit code and last lines, for people.

        Several placers may wait, one after the other: a call whose caller has died goes on."""
        if self._end is None:
            return "it was not started"
        return await asyncio.shield(self._end)

    async def _ended(self, child: asyncio.subprocess.Process) -> str:
        _, said = await child.communicate()
        shutil.rmtree(self._folder, ignore_errors=True)
        last = said[-MAX_LINES_BYTES:].decode(errors="replace").strip().splitlines()[-3:]
        return f"exit code {child.returncode}: {' / '.join(last)}"

    async def leave(self) -> None:
        """Let the host leave its front, which moves its streams first."""
        child = self._child
        if child is None or child.returncode is not None:
            return
        child.send_signal(signal.SIGTERM)
        try:
            async with asyncio.timeout(LEAVE_S):
                await child.wait()
        except TimeoutError:
            child.kill()


def _own_environment() -> dict[str, str]:
    """This process's variables without Ray's: its token is one of them."""
    return {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
