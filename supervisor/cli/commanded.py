"""What a serving front has beside its clients: commands, and a service manager that watches it."""

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator

from supervisor import systemd
from supervisor.app import Front
from supervisor.cli import keeper
from supervisor.control import server as control
from supervisor.control.figures import add_figures
from supervisor.control.network import add_network
from supervisor.handover.command import add_upgrade


@contextlib.asynccontextmanager
async def commanded(front: Front, *, took_over: bool = False) -> AsyncIterator[None]:
    """Serve the commands of a started front at its control socket, which is made anew if it
    vanishes, and feed the service manager's watchdog."""
    app = control.create_control_app(front, front.operations)
    add_upgrade(app, front.operations)
    add_network(app, front)
    if front.cluster is not None:
        from supervisor.control.hosts import add_hosts

        add_hosts(app, front.cluster, front.operations)
    add_figures(app, front)
    runner = await control.serve(app, front.runtime.control_socket)
    limit_s = systemd.watchdog_s(os.environ, took_over=took_over)
    tasks = [
        asyncio.create_task(keeper.keep(front.runtime, runner, front.restore_token)),
        asyncio.create_task(systemd.feed_watchdog(limit_s)),
    ]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await runner.cleanup()
