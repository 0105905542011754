"""From the configuration to the residency's rules."""

from gpufc.config import Config, ModelConfig
from supervisor.fleet.group import Group
from supervisor.residency.memory import HOST
from supervisor.residency.port import Rules, Terms
from supervisor.roster.needs import Needs

KEEP_ALIVE_S = 300.0
"""After so long without requests a model is unloaded, unless it is the only one."""


MIN_STAY_S = 1.0
"""A model that was just loaded serves so long before it is unloaded for another; a model with long
loads stays longer (`Rules.stay_per_load`). Someone who tries two models in turn should not wait."""


def terms_of(
    group: Group, keep_alive_s: float | None, needs: Needs, devices: tuple[str, ...]
) -> Terms:
    """The terms of one model, by what is known of it now. What it needs is what its next worker
    does: each replica may have other devices."""
    config = group.next_config
    return Terms(
        placements=needs.placements(config, devices),
        keep_alive_s=None if keep_alive_s is None or keep_alive_s < 0 else keep_alive_s,
        pinned=config.pinned,
        replicas=group.n_replicas,
        priority=config.priority,
        load_s=needs.load_s(config),
    )


def keep_alive(config: ModelConfig, *, is_only: bool) -> float | None:
    """How long a model stays without requests; None: until its memory is wanted."""
    if config.keep_alive_s is not None:
        return config.keep_alive_s
    return None if is_only else KEEP_ALIVE_S


def longer(now_s: float | None, wanted_s: float) -> float:
    """The longer one of two times that a model stays. None and negative mean until its memory is
    wanted."""
    return -1.0 if now_s is None or min(now_s, wanted_s) < 0 else max(now_s, wanted_s)


def rules_of(config: Config) -> Rules:
    """The configured limits. Devices are not known yet at the start: their monitor begins later."""
    fleet = config.fleet
    return Rules(
        limit_bytes={} if fleet.memory_limit_bytes is None else {HOST: fleet.memory_limit_bytes},
        device_limit_bytes=fleet.device_memory_limit_bytes,
        min_stay_s=MIN_STAY_S,
    )
