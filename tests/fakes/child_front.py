"""A front that is nothing but a fleet: prints its worker's pid when it is ready, then waits.

`child_front RUNTIME_DIR [STANDBY]`. With a spare it prints that one's pid, too, when there is one.
"""

import asyncio
import sys
from pathlib import Path

from gpufc.config import Config, FleetConfig, Standby
from supervisor.fleet.exit_reason import ExitReason
from supervisor.fleet.fleet import Fleet
from supervisor.fleet.port import WorkerHandle, WorkerMessage
from supervisor.runtime_dir import RuntimeDir


class Printer:
    fleet: Fleet

    def worker_ready(self, worker: WorkerHandle) -> None:
        print(self.fleet.workers()[0].pid, flush=True)

    def canary_began(self, worker: WorkerHandle, canary: object) -> None: ...
    def worker_message(self, worker: WorkerHandle, message: WorkerMessage) -> None: ...
    def worker_lost(self, worker: WorkerHandle, reason: ExitReason) -> None: ...
    def condition_changed(self) -> None: ...
    def engine_proven(self, worker: WorkerHandle) -> None: ...
    def engine_renewed(self, model: str) -> None: ...


async def main() -> None:
    standby = Standby(sys.argv[2]) if len(sys.argv) > 2 else Standby.NONE
    listener = Printer()
    child = str(Path(__file__).with_name("child_worker.py"))
    fleet = Fleet(
        Config(fleet=FleetConfig(standby=standby)),
        RuntimeDir.acquire(sys.argv[1]),
        listener,
        command=(sys.executable, child, "ready"),
    )
    listener.fleet = fleet
    await fleet.start()
    if standby is not Standby.NONE:
        while not fleet.spares():  # noqa: ASYNC110 - no event tells
            await asyncio.sleep(0.05)
        print(fleet.spares()[0].pid, flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main())
