"""The fate of a replacement: pure decisions, which `replacer.py` carries out.

| the candidate | restart, recycle | swap |
| --- | --- | --- |
| passed its trial | takes over | takes over |
| lacks memory, and the old worker's memory would suffice | stop first | stop first |
| lacks memory, and the old worker's memory would not suffice | stop first | refused |
| was killed by the kernel for memory | stop first | refused |
| no machine has room for it | stop first | stop first |
| failed otherwise | the old one goes on, error | refused |

*Stop first*: the old worker ends before the new one is loaded. Streams that can go on with the new
one wait and are replayed; before a swap to another model they end on the old one. If the new one
still cannot serve, the old one is loaded again.
"""

from collections.abc import Mapping
from enum import StrEnum
from typing import Any

import msgspec
from msgspec import Struct

from gpufc.config import KvUnified, ModelConfig
from gpufc.errors import GpufcError
from gpufc.facts import ModelFacts
from supervisor.fleet.exit_reason import ExitReason, Reason
from supervisor.fleet.lifecycle_terms import Shortage
from supervisor.fleet.port import ModelChange
from supervisor.fleet.worker import WorkerSpec, of_replica


class CandidateFailure(Struct, frozen=True):
    """Why a candidate cannot take over. `detail` is for people."""

    detail: str
    shortage: Shortage = Shortage(0, 0)
    out_of_memory: bool = False
    no_machine: bool = False


class CandidateFailed(GpufcError):
    """A candidate cannot take over."""

    def __init__(self, failure: CandidateFailure) -> None:
        super().__init__(failure.detail)
        self.failure = failure


class Verdict(StrEnum):
    """The consequence of a candidate's failure."""

    STOP_FIRST = "stop_first"
    GIVE_UP = "give_up"


def candidate_failed(last_exit: ExitReason | None, shortage: Shortage) -> CandidateFailure:
    """The failure of a candidate that ended before it was ready."""
    if last_exit is None:
        return CandidateFailure("it did not start")
    short = shortage if last_exit.reason is Reason.LOAD_FAILED else Shortage(0, 0)
    says_why = last_exit.reason in {Reason.LOAD_FAILED, Reason.TRIAL_FAILED}
    detail = last_exit.detail if says_why and last_exit.detail else str(last_exit)
    return CandidateFailure(detail, short, last_exit.reason is Reason.OUT_OF_MEMORY)


def after_failed_restart(failure: CandidateFailure) -> Verdict:
    """Stop first if memory or a machine was lacking: the old worker has the same needs. Else give
    up."""
    if failure.shortage.needed_bytes or failure.out_of_memory or failure.no_machine:
        return Verdict.STOP_FIRST
    return Verdict.GIVE_UP


def after_failed_swap(failure: CandidateFailure, *, freed_bytes: int) -> Verdict:
    """Stop first if the old worker's `freed_bytes`, or its machine, would close the gap. Else give
    up."""
    if failure.no_machine:
        return Verdict.STOP_FIRST
    short = failure.shortage
    if short.needed_bytes and short.needed_bytes <= short.available_bytes + freed_bytes:
        return Verdict.STOP_FIRST
    return Verdict.GIVE_UP


def freed_bytes(facts: ModelFacts | None, anonymous_bytes: int) -> int:
    """Bytes that a worker's end gives back: its anonymous memory and its devices' memory.

    Mapped weights lie in the page cache and count as free already."""
    return anonymous_bytes + (facts.device_bytes if facts is not None else 0)


def continues(old: ModelFacts, new: ModelFacts) -> bool:
    """Whether the old worker's sequences can go on with the new one."""
    return old.fingerprint == new.fingerprint and new.n_ctx >= old.n_ctx


def can_replay(before: ModelConfig, wanted: ModelConfig) -> bool:
    """The same question before the new worker is loaded, from the configuration alone."""
    return before.model_path == wanted.model_path and wanted.n_ctx >= before.n_ctx


def changed(config: ModelConfig, change: ModelChange) -> ModelConfig:
    """The configuration that a swap asks for; the served name stays. Adapters of one model do not
    fit another, and neither does its checksum."""
    wanted = {
        "model_path": change.model_path,
        "n_ctx": change.n_ctx,
        "n_gpu_layers": change.n_gpu_layers,
    }
    given = {key: value for key, value in wanted.items() if value is not None}
    if change.model_path != config.model_path:
        config = msgspec.structs.replace(config, adapters=(), model_sha256=None)
    return msgspec.structs.replace(config, **given)


def swapped(spec: WorkerSpec, change: ModelChange) -> WorkerSpec:
    """The spec after a swap."""
    return msgspec.structs.replace(spec, config=changed(spec.config, change), within=change.within)


def reconfigured(spec: WorkerSpec, changed: Mapping[str, Any], n_sequences: int) -> WorkerSpec:
    """The spec after a reload: with other values of some keys of the model, and room for at least
    so many sequences. A swap since the start stays, unless the reload is about the same key."""
    return msgspec.structs.replace(
        spec,
        within=() if "model_path" in changed else spec.within,
        config=of_replica(msgspec.structs.replace(spec.config, **changed), spec.replica),
        n_sequences=max(n_sequences, spec.n_sequences),
    )


def pinned(config: ModelConfig, facts: ModelFacts | None) -> ModelConfig:
    """The configuration of a second worker of the same model, next to the first one.

    It gets the first one's cells, their layout and its GPU layers, or fails: less memory is free
    now, and fitting anew would make it slower."""
    if facts is None:
        return config
    config = msgspec.structs.replace(config, min_gpu_layers=facts.n_gpu_layers)
    if not facts.unified:
        return msgspec.structs.replace(config, kv_unified=KvUnified.FALSE)
    n_cells = facts.kv_cells if config.kv_cells is None else config.kv_cells
    return msgspec.structs.replace(config, kv_unified=KvUnified.TRUE, kv_cells=n_cells)


def with_all_gpu_layers(config: ModelConfig, facts: ModelFacts | None) -> ModelConfig:
    """The configuration of another model's worker, next to one that holds GPU memory.

    It gets all its GPU layers, or fails: the first worker's memory will be free for it later."""
    if facts is None or not facts.n_gpu_layers:
        return config
    return msgspec.structs.replace(config, min_gpu_layers=config.n_gpu_layers)
