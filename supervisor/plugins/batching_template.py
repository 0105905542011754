"""A batching policy to copy: some keys wait behind the others, and long prompts take small parts of
a step, so that running streams stay smooth.

    cp TEMPLATE my_batching.py
    gpufc-supervisor start --config my.toml        # plugins = ["my_batching.py"]

`PLUGINS.md` says what a policy may do, and what happens where it fails.
"""

from supervisor.plugins.api import Batching, Info, Load, Sequence, hook


class Plugin:
    """Made once for each process, with the `options` of the configuration."""

    def __init__(self, batch_keys: tuple[str, ...] = ("nightly",), long_prompt: int = 2048) -> None:
        self.batch_keys = frozenset(batch_keys)
        self.long_prompt = long_prompt

    @hook
    def on_batch(self, info: Info, sequence: Sequence, load: Load) -> Batching | None:
        """None: the engine decides alone."""
        later = 100 if info.principal in self.batch_keys else 0
        is_long = sequence.tokens >= self.long_prompt and load.running > 0
        return Batching(later, chunk_tokens=128 if is_long else None)
