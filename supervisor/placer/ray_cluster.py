"""Ray, as the placer uses it: nodes, named actors, and a look at the head. The only import of ray.

Every call may wait for Ray's head, which may be away for minutes: the placer calls from a thread.
"""

import contextlib
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import ray
from ray.exceptions import GetTimeoutError, RayError

from supervisor.placer.actor import HostActor
from supervisor.placer.checks import Head, head_of
from supervisor.placer.placing import NotPlaced
from supervisor.placer.plan import listed

logger = logging.getLogger(__name__)

NAMESPACE = "gpufc"
CALL_S = 10.0
PLACE_S = 60.0
"""An actor that does not run after so long is given up: no node has its resources."""


class RayCluster:
    """A connection to a Ray cluster. `cell` tells its hosts from those of other fronts; `command`
    is `HostActor`'s."""

    def __init__(self, address: str, cell: str, command: Sequence[str] = ()) -> None:
        """Raises `NotPlaced`."""
        try:
            ray.init(
                address=address, namespace=NAMESPACE, log_to_driver=False, logging_level="ERROR"
            )
        except (RayError, ConnectionError, RuntimeError, ValueError) as err:
            raise NotPlaced(f"Ray at {address} cannot be reached: {err}") from err
        self._cell, self._command = cell, command
        self._exits: dict[int, Any] = {}

    def head(self) -> Head | None:
        """What the head's processes say; None if none could be looked at."""
        look = ray.remote(num_cpus=0, resources={"node:__internal_head__": 0.001})(_processes)
        try:
            return head_of(ray.get(look.remote(), timeout=PLACE_S))
        except (RayError, GetTimeoutError) as err:
            logger.warning("head_unseen: %s", err)
            return None

    def found(self) -> Mapping[int, str]:
        """The hosts that run already, with their nodes: those of a placer before."""
        hosts: dict[int, str] = {}
        for name in ray.util.list_named_actors():
            cell, _, slot = name.rpartition("-")
            if cell == f"gpufc-{self._cell}" and slot.isdigit():
                node = self._follow(int(slot), ray.get_actor(name))
                if node is not None:
                    hosts[int(slot)] = node
        return hosts

    def start(
        self, slot: int, join: str, resources: Mapping[str, float], avoid: frozenset[str]
    ) -> str:
        """Have a host run on none of these nodes. Its node. Raises `NotPlaced`."""
        given = dict(resources)
        options: dict[str, Any] = {
            "name": self._name(slot),
            "lifetime": "detached",
            "num_cpus": given.pop("CPU", 0),
            "num_gpus": given.pop("GPU", 0),
            "resources": given,
            "max_restarts": 0,
        }
        if avoid:
            options["label_selector"] = {"ray.io/node-id": listed(avoid)}
        self.end(slot)
        try:
            actor = (
                ray.remote(HostActor)
                .options(**options)
                .remote(join, self._name(slot), self._command)
            )
        except (RayError, ValueError) as err:
            raise NotPlaced(f"Ray takes no actor: {err}") from err
        try:
            ray.get(actor.start.remote(), timeout=PLACE_S)
            node = self._follow(slot, actor)
        except GetTimeoutError:
            ray.kill(actor)
            wanted = {"CPU": options["num_cpus"], "GPU": options["num_gpus"]} | given
            raise NotPlaced(
                f"no node has room for a host with {wanted} ({len(avoid)} nodes are left out)"
            ) from None
        except RayError as err:
            ray.kill(actor)
            raise NotPlaced(f"a host did not start: {str(err).splitlines()[-1]}") from err
        if node is None:
            raise NotPlaced("a host ended at once")
        return node

    def end(self, slot: int) -> None:
        """End the slot's host, if there is one."""
        self._exits.pop(slot, None)
        try:
            actor = ray.get_actor(self._name(slot))
        except ValueError:
            return
        with contextlib.suppress(RayError, GetTimeoutError):
            ray.get(actor.leave.remote(), timeout=2 * CALL_S)
        ray.kill(actor)

    def nodes(self, resources: Mapping[str, float]) -> frozenset[str]:
        """The nodes that live and have these resources, in use or not. Empty if Ray does not
        tell."""
        try:
            rows = ray.nodes()
        except (RayError, RuntimeError) as err:
            logger.warning("nodes_unknown: %s", err)
            return frozenset()
        return frozenset(
            row["NodeID"]
            for row in rows
            if row["Alive"]
            and all(row["Resources"].get(name, 0) >= n for name, n in resources.items())
        )

    def ended(self) -> Mapping[int, str]:
        """The slots whose host has ended since the last call, and why. Does not wait."""
        slots = {ref: slot for slot, ref in self._exits.items()}
        done, _ = ray.wait([*slots], num_returns=len(slots), timeout=0) if slots else ([], [])
        return {slots[ref]: self._end_of(slots[ref]) for ref in done}

    def close(self) -> None:
        """Leave the cluster. Hosts go on."""
        ray.shutdown()

    def _end_of(self, slot: int) -> str:
        ref = self._exits.pop(slot)
        try:
            return str(ray.get(ref, timeout=CALL_S))
        except (RayError, GetTimeoutError) as err:
            return str(err).splitlines()[0]
        finally:
            self._remove(slot)

    def _remove(self, slot: int) -> None:
        """Free the name: an actor whose host has ended stays otherwise."""
        with contextlib.suppress(ValueError, RayError):
            ray.kill(ray.get_actor(self._name(slot)))

    def _follow(self, slot: int, actor: Any) -> str | None:
        """Watch for the end of a host. Its node; None if the actor does not answer."""
        try:
            node: str = ray.get(actor.node.remote(), timeout=CALL_S)
        except (RayError, GetTimeoutError):
            return None
        self._exits[slot] = actor.exited.remote()
        return node

    def _name(self, slot: int) -> str:
        return f"gpufc-{self._cell}-{slot}"


def _processes() -> Sequence[tuple[Sequence[str], Mapping[str, str]]]:
    """Command lines and Ray's variables of this machine's processes. Runs on the head."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            arguments = (folder / "cmdline").read_bytes().decode(errors="replace").split("\0")
            if not any(name in " ".join(arguments) for name in ("gcs_server", "dashboard.py")):
                continue
            variables = (folder / "environ").read_bytes().decode(errors="replace").split("\0")
        except OSError:
            continue
        pairs = (one.partition("=") for one in variables if one.startswith("RAY_"))
        # no secret leaves the head: the token is such a variable, too
        shown = {key: value for key, _, value in pairs if "TOKEN" not in key}
        found.append((tuple(arguments[:-1]), shown))
    return found
