"""The program of a new front that takes over: `python -m supervisor.handover --fd N`.

The old front starts it, with a socket to itself as descriptor N.
"""

import argparse
import asyncio
import os
import socket
import sys
from pathlib import Path

import uvloop

from gpufc.config import Config
from gpufc.errors import GpufcError
from gpufc.settings import Settings, Stamp
from supervisor import descriptors, front_process, systemd
from supervisor.app import Front
from supervisor.cli import preflight
from supervisor.cli.commanded import commanded
from supervisor.cli.foreground import LAST_LINES_S, log_to
from supervisor.cli.options import resolve
from supervisor.cli.origins import checked
from supervisor.devices.monitor import default_monitor
from supervisor.handover import taker
from supervisor.handover.messages import Estate
from supervisor.handover.packets import PacketSocket
from supervisor.handover.taker import Inheritance, Taker
from supervisor.outlet import Terminal
from supervisor.reload import Origins

EXIT_REFUSED = 3


def main(fd: int) -> None:
    """Take over and serve until a stop is requested. `fd` is the socket to the old front."""
    front_process.confine()
    os.set_inheritable(fd, False)
    packets = PacketSocket(socket.socket(fileno=fd))
    try:
        inheritance = taker.receive(packets)
        settings = taker.configure(inheritance.estate, resolve)
        config = preflight.check_configuration(settings).config
        taker.require_same_model(config, inheritance.estate)
    except GpufcError as err:
        taker.refuse(packets, str(err))
        sys.exit(EXIT_REFUSED)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_serve(packets, inheritance, config, settings))


async def _serve(
    packets: PacketSocket, inheritance: Inheritance, config: Config, settings: Settings
) -> None:
    descriptors.raise_limit()
    front_process.start_threads()
    take = Taker(packets, inheritance)
    runtime = take.runtime
    monitor = default_monitor(str(runtime.path))
    try:
        front = Front(
            config,
            values=settings.values,
            origins=_origins(inheritance.estate, settings.stamp),
            devices=monitor,
            taker=take,
        )
        log = log_to(runtime.logs, config.server, Terminal())
        await front.load_plugins()
        await take.prepare(front)
    except BaseException as err:
        # no orderly end: it would close sockets and locks that the old front still uses
        taker.refuse(packets, str(err) or type(err).__name__)
        os._exit(EXIT_REFUSED)
    front_process.attend_signals(
        lambda _number, now: front.request_stop(now),
        lambda: front.reload_soon("SIGHUP was received"),
    )
    monitor.start()
    try:
        async with front, commanded(front, took_over=True):
            take.serving(front.addresses)
            systemd.notify("READY=1")
            await front.wait_stop()
    finally:
        monitor.stop()
        log.close(LAST_LINES_S)


def _origins(estate: Estate, stamp: Stamp | None) -> Origins:
    """Those of the front before. `stamp` is that of the file which was read."""
    file = estate.origins.file
    return Origins(
        read=lambda: checked(taker.configure(estate, resolve)),
        file=Path(file) if file else None,
        stamp=stamp,
    )


def run() -> None:
    """Read the command line, then take over and serve."""
    parser = argparse.ArgumentParser(prog="supervisor.handover", description=__doc__)
    parser.add_argument("--fd", type=int, required=True, help="socket to the old front")
    main(parser.parse_args().fd)
