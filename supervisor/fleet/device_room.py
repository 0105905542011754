"""The memory of each GPU that a new worker may take under the configured limit. Pure."""

from collections import Counter
from collections.abc import Iterable

from gpufc.config import ModelConfig, SplitMode
from gpufc.facts import ModelFacts


def left_for(
    config: ModelConfig, limit_bytes: int | None, others: Iterable[ModelFacts]
) -> int | None:
    """The limit less what other workers hold, on that GPU of the new worker where they hold most.
    None without a limit."""
    if limit_bytes is None:
        return None
    held: Counter[str] = Counter()
    kinds: dict[str, str] = {}
    for facts in others:
        held.update(facts.bytes_by_device)
        kinds |= {one.name: one.kind for one in facts.devices}
    used = [name for name, kind in kinds.items() if kind == "gpu"]
    used = used or [name for name, kind in kinds.items() if kind == "igpu"]
    if config.devices is not None:
        used = [name.strip() for name in config.devices.split(",")]
    if config.split_mode is SplitMode.NONE:
        used = used[config.main_gpu :][:1]
    return max(0, limit_bytes - max((held[name] for name in used), default=0))
