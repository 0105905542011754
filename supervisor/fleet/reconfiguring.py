"""Other values of models' keys for all workers, or for none."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial
from typing import Any

from gpufc.errors import Overloaded, RequestError
from gpufc.facts import MAX_SEQUENCES
from supervisor.fleet import replacement_rules as rules
from supervisor.fleet.group import Group
from supervisor.fleet.place import BUSY_S, PlaceState
from supervisor.fleet.replacer import Replacer
from supervisor.fleet.worker import WorkerSpec

Serve = Callable[[Replacer, WorkerSpec], Awaitable[None]]
"""Replaces a worker by one of another spec."""


async def reconfigure(
    groups: Sequence[tuple[Group, Mapping[str, Any]]], n_sequences: int, serve: Serve | None
) -> None:
    """Give each group the values beside it, and room for so many sequences at once.

    With `serve` the workers are replaced, one after another; if one is refused, those before it are
    replaced again. Without it the next workers have the values. Raises `SwapRefused`, `Overloaded`.
    """
    most = min(n_sequences, MAX_SEQUENCES)
    done: list[tuple[Replacer, WorkerSpec]] = []
    try:
        for group, changed in groups:
            for replacer in group.replacers:
                before = replacer.place.spec
                wanted = rules.reconfigured(before, changed, most)
                if wanted != before:
                    await _give(replacer, wanted, serve)
                    done.append((replacer, before))
    except RequestError:
        for replacer, before in reversed(done):
            await _give(replacer, before, serve)
        raise
    for group, changed in groups:
        group.respecify(partial(rules.reconfigured, changed=changed, n_sequences=most))


async def _give(replacer: Replacer, wanted: WorkerSpec, serve: Serve | None) -> None:
    if replacer.place.state is PlaceState.LEAVING:
        raise Overloaded(
            f"worker {wanted.name} is being unloaded just now; try again", retry_after_s=BUSY_S
        )
    if serve is None:
        replacer.note(wanted)
    else:
        await serve(replacer, wanted)
