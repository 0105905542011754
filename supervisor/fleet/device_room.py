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
    gpus: dict[str, None] = {}
    for facts in others:
        held.update(facts.bytes_by_device)
        gpus |= dict.fromkeys(one.name for one in facts.devices if one.kind in {"gpu", "igpu"})
    used = list(gpus)
    if config.devices is not None:
        used = [name.strip() for name in config.devices.split(",")]
    if config.split_mode is SplitMode.NONE:
        used = used[config.main_gpu :][:1]
    return max(0, limit_bytes - max((held[name] for name in used), default=0))
