"""Requests without a prompt: they load a model, or ask to unload it."""

import re

from supervisor.http.edge.context import Services
from supervisor.http.generation.loaded import loaded

LOADED, UNLOADED = "load", "unload"

MOST_CHARS = 64
"""Of a duration. A longer text is read as none."""
_NUMBER = re.compile(r"\d*\.?\d+")


async def done_reason(front: Services, model: str, keep_alive: object) -> str:
    """Wait until the model is loaded, unless it is to be unloaded; the reason of the answer.

    A served model stays loaded, and `/api/ps` goes on to show it: only an operator can replace it.
    Raises `RequestError` if no worker comes.
    """
    if is_over(keep_alive):
        return UNLOADED
    await loaded(front, model)
    return LOADED


def is_over(keep_alive: object) -> bool:
    """Whether a duration is zero: a number of seconds, or a text such as `0`, `0s` or `0h0m`."""
    if isinstance(keep_alive, str) and len(keep_alive) <= MOST_CHARS:
        numbers = _NUMBER.findall(keep_alive)
        return bool(numbers) and all(float(number) == 0 for number in numbers)
    return isinstance(keep_alive, int | float) and keep_alive == 0
