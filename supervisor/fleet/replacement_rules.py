"""What becomes of a replacement: pure decisions, apart from `replacer.py`, which carries them out.

| the candidate | restart, recycle | swap |
| --- | --- | --- |
| passed its trial | takes over | takes over |
| could not have its memory, and would do without the old worker's | stop first | stop first |
| could not have its memory, and could not have it then | stop first | refused |
| was killed by the kernel for memory | stop first | refused |
| anything else | the old one goes on, error | refused |

*Stop first*: the old worker ends before the new one is loaded. Streams that may go on with the new
one wait and are replayed; before a swap to another model they end first. If the new one cannot
serve then either, the old one is loaded again.
"""

from enum import StrEnum

import msgspec
from msgspec import Struct

from gpufc.config import KvUnified, ModelConfig
from gpufc.errors import GpufcError
from gpufc.facts import ModelFacts
from supervisor.fleet.exit_reason import ExitReason, Reason
from supervisor.fleet.lifecycle import Shortage
from supervisor.fleet.port import ModelChange


class CandidateFailure(Struct, frozen=True):
    """Why a candidate cannot take over. `detail` is for people."""

    detail: str
    shortage: Shortage = Shortage(0, 0)
    out_of_memory: bool = False


class CandidateFailed(GpufcError):
    """A candidate cannot take over."""

    def __init__(self, failure: CandidateFailure) -> None:
        super().__init__(failure.detail)
        self.failure = failure


class Verdict(StrEnum):
    """What to do when a candidate has failed."""

    STOP_FIRST = "stop_first"
    GIVE_UP = "give_up"


def candidate_failed(last_exit: ExitReason | None, shortage: Shortage) -> CandidateFailure:
    """The failure of a candidate whose process ended before it was facts."""
    if last_exit is None:
        return CandidateFailure("it did not start")
    short = shortage if last_exit.reason is Reason.LOAD_FAILED else Shortage(0, 0)
    detail = last_exit.detail or str(last_exit)
    return CandidateFailure(detail, short, last_exit.reason is Reason.OUT_OF_MEMORY)


def after_failed_restart(failure: CandidateFailure) -> Verdict:
    """Two at once are too many, or the new one does not work."""
    if failure.shortage.needed_bytes or failure.out_of_memory:
        return Verdict.STOP_FIRST
    return Verdict.GIVE_UP


def after_failed_swap(failure: CandidateFailure, *, freed_bytes: int) -> Verdict:
    """`freed_bytes` is what the old worker's end would give back."""
    short = failure.shortage
    if short.needed_bytes and short.needed_bytes <= short.available_bytes + freed_bytes:
        return Verdict.STOP_FIRST
    return Verdict.GIVE_UP


def freed_bytes(facts: ModelFacts | None, anonymous_bytes: int) -> int:
    """What a worker's end gives back: its anonymous memory, and what it has taken on devices.
    Weights that are mapped are the page cache's, and count as free alfacts."""
    return anonymous_bytes + (facts.device_bytes if facts is not None else 0)


def continues(old: ModelFacts, new: ModelFacts) -> bool:
    """Whether what runs on the old worker can go on with the new one."""
    return old.fingerprint == new.fingerprint and new.n_ctx >= old.n_ctx


def can_replay(before: ModelConfig, wanted: ModelConfig) -> bool:
    """The same, as far as it can be told before the new one is loaded."""
    return before.model_path == wanted.model_path and wanted.n_ctx >= before.n_ctx


def changed(config: ModelConfig, change: ModelChange) -> ModelConfig:
    """The configuration that a swap asks for; the served name stays."""
    wanted = {
        "model_path": change.model_path,
        "n_ctx": change.n_ctx,
        "n_gpu_layers": change.n_gpu_layers,
    }
    given = {key: value for key, value in wanted.items() if value is not None}
    return msgspec.structs.replace(config, **given)


def pinned(config: ModelConfig, facts: ModelFacts | None) -> ModelConfig:
    """The configuration by which a second worker gets what the first one has, though less memory is
    free now: its cells in their layout, and its layers on the GPU."""
    if facts is None:
        return config
    config = msgspec.structs.replace(config, min_gpu_layers=facts.n_gpu_layers)
    if not facts.unified:
        return msgspec.structs.replace(config, kv_unified=KvUnified.FALSE)
    n_cells = facts.kv_cells if config.kv_cells is None else config.kv_cells
    return msgspec.structs.replace(config, kv_unified=KvUnified.TRUE, kv_cells=n_cells)


def beside(config: ModelConfig, facts: ModelFacts | None) -> ModelConfig:
    """The configuration of another model's worker that is loaded while the first one holds GPU
    memory: it must not do with fewer layers there for the want of what that one gives back."""
    if facts is None or not facts.n_gpu_layers:
        return config
    return msgspec.structs.replace(config, min_gpu_layers=config.n_gpu_layers)
