"""The placer's process: `python -m supervisor.placer ADDRESS --cell NAME [--insecure-ray]`.

Orders come in on stdin, facts go out on stdout. It ends when its front has closed stdin; the hosts
go on.
"""

import argparse
import json
import logging
import os
import queue
import sys
import threading
from typing import BinaryIO

import msgspec

from gpufc import prctl
from supervisor.placer import messages
from supervisor.placer.checks import refusal
from supervisor.placer.messages import Join, JoinWanted, Order, Placed, Refusal
from supervisor.placer.placing import NotPlaced, Placing

LOOK_S = 0.5
JOIN_S = 30.0
REFUSED = 5

logger = logging.getLogger(__name__)


class Inbox:
    """The lines from the front, read in a thread of their own."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self._joins: queue.SimpleQueue[str] = queue.SimpleQueue()
        self._changed = threading.Event()
        self.order: Order | None = None
        self.has_ended = False
        threading.Thread(target=self._read, name="inbox", daemon=True).start()

    def wait(self, timeout_s: float) -> None:
        """Wait for a change, or for so long."""
        self._changed.wait(timeout_s)
        self._changed.clear()

    def join(self) -> str:
        """The next invitation. Raises `NotPlaced`."""
        try:
            return self._joins.get(timeout=JOIN_S)
        except queue.Empty:
            raise NotPlaced("the front gives no invitation") from None

    def _read(self) -> None:
        while line := self._stream.readline(messages.MAX_LINE_BYTES):
            match messages.order_of(line):
                case Order() as order:
                    self.order = order
                case Join(text):
                    self._joins.put(text)
            self._changed.set()
        self.has_ended = True
        self._changed.set()
        os._exit(0)  # a call of Ray's may hang: the front is gone, and nothing is left to do


def main() -> int:
    """Run until the front has gone. The exit code 5 means that the cluster is refused."""
    prctl.end_with_parent()
    parser = argparse.ArgumentParser(prog="supervisor.placer")
    parser.add_argument("address")
    parser.add_argument("--cell", required=True)
    parser.add_argument("--insecure-ray", action="store_true")
    parser.add_argument("--host-command", type=json.loads, default=(), help="for tests")
    options = parser.parse_args()
    logging.basicConfig(level="INFO", format="%(levelname)s %(message)s", stream=sys.stderr)
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    out = _only_output()
    inbox = Inbox(sys.stdin.buffer)

    def tell(fact: messages.FromPlacer) -> None:
        out.write(messages.line(fact))
        out.flush()

    def join() -> str:
        tell(JoinWanted())
        return inbox.join()

    try:
        from supervisor.placer.ray_cluster import RayCluster
    except ImportError:
        tell(Refusal("Ray is missing: pip install 'gpufc[ray]'"))
        return REFUSED
    try:
        cluster = RayCluster(options.address, options.cell, options.host_command)
    except NotPlaced as err:
        tell(Placed((), str(err)))
        return 1
    said = None if options.insecure_ray else refusal(cluster.head())
    if said is not None:
        tell(Refusal(said))
        return REFUSED
    placing = Placing(cluster, cluster.found(), join, tell)
    while not inbox.has_ended:
        if inbox.order is not None:
            placing.look(inbox.order.n_hosts, inbox.order.resources)
        inbox.wait(LOOK_S)
    return 0


def _only_output() -> BinaryIO:
    """The stream of facts. Whatever else prints goes to stderr: Ray does now and then."""
    fd = os.dup(1)
    os.dup2(2, 1)
    return os.fdopen(fd, "wb")


if __name__ == "__main__":
    try:
        code = main()
    except (msgspec.MsgspecError, BrokenPipeError) as err:
        logger.error("front_lost: %s", err)
        code = 1
    except Exception:  # the process boundary
        logger.exception("placer_failed")
        code = 1
    sys.stderr.flush()
    os._exit(code)  # Python's own end aborts if the inbox's thread waits for a line
