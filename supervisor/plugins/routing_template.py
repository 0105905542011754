"""A routing policy to copy: long prompts go where the least is left to prefill. Each key's other
prompts go to the same workers, in an order of its own.

    cp TEMPLATE my_routing.py
    gpufc-supervisor start --config my.toml        # plugins = ["my_routing.py"]

`PLUGINS.md` says what a policy may do, and what happens where it fails.
"""

from hashlib import blake2b

from supervisor.plugins.api import Info, Sequence, Worker, hook


class Plugin:
    """Made once for each process, with the `options` of the configuration."""

    def __init__(self, long_prompt: int = 4096) -> None:
        self.long_prompt = long_prompt

    @hook
    def on_route(self, info: Info, sequence: Sequence, workers: list[Worker]) -> list[str]:
        """The workers to try, the best one first. None leaves the choice to `routing`."""
        if sequence.tokens >= self.long_prompt:
            ordered = sorted(workers, key=lambda one: (one.prefill, one.outstanding))
        else:
            ordered = sorted(workers, key=lambda one: rank(info.principal, one.name))
        return [one.name for one in ordered]


def rank(principal: str, worker: str) -> bytes:
    """A worker's place in the order of a principal. It stays when other workers come and go."""
    return blake2b(f"{principal} {worker}".encode(), digest_size=8).digest()
