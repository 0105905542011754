"""Other values of a model's keys for all workers, or for none."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

from gpufc.errors import RequestError
from gpufc.facts import MAX_SEQUENCES
from supervisor.fleet import replacement_rules as rules
from supervisor.fleet.replacer import Replacer
from supervisor.fleet.worker import WorkerSpec

Serve = Callable[[Replacer, WorkerSpec], Awaitable[None]]
"""Replaces a worker by one of another spec."""


async def reconfigure(
    replacers: Sequence[Replacer],
    models: Mapping[str, Mapping[str, Any]],
    n_sequences: int,
    serve: Serve | None,
) -> None:
    """Give the workers of each model in `models`, by name in `Config.models`, other values.

    With `serve` the workers are replaced, one after another; if one is refused, those before it are
    replaced again. Raises `SwapRefused`, `Overloaded`.
    """
    done: list[tuple[Replacer, WorkerSpec]] = []
    try:
        for replacer in replacers:
            before = replacer.place.spec
            changed = models.get(before.group, {})
            wanted = rules.reconfigured(before, changed, min(n_sequences, MAX_SEQUENCES))
            if wanted == before:
                continue
            if serve is None:
                replacer.note(wanted)
            else:
                await serve(replacer, wanted)
            done.append((replacer, before))
    except RequestError:
        for replacer, before in reversed(done):
            if serve is None:
                replacer.note(before)
            else:
                await serve(replacer, before)
        raise
