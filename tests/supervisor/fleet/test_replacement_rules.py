"""The decisions about a replacement that need no worker."""

import msgspec
import pytest

from gpufc.config import ModelConfig
from gpufc.ids import WorkerName
from supervisor.fleet.exit_reason import ExitReason, Reason
from supervisor.fleet.lifecycle_terms import Shortage
from supervisor.fleet.port import ModelChange
from supervisor.fleet.replacement_rules import (
    CandidateFailure,
    Verdict,
    after_failed_restart,
    after_failed_swap,
    can_replay,
    candidate_failed,
    changed,
    continues,
    freed_bytes,
    reconfigured,
)
from supervisor.fleet.worker import WorkerSpec
from tests.fakes.facts import model_facts

FACTS = model_facts()
SHORT = Shortage(needed_bytes=100, available_bytes=60)


@pytest.mark.parametrize(
    ("failure", "verdict"),
    [
        (CandidateFailure("", SHORT), Verdict.STOP_FIRST),
        (CandidateFailure("", out_of_memory=True), Verdict.STOP_FIRST),
        (CandidateFailure("", no_machine=True), Verdict.STOP_FIRST),
        (CandidateFailure("corrupt"), Verdict.GIVE_UP),
    ],
)
def test_a_restart_stops_first_whenever_memory_was_short(
    failure: CandidateFailure, verdict: Verdict
) -> None:
    assert after_failed_restart(failure) is verdict


@pytest.mark.parametrize(
    ("failure", "freed", "verdict"),
    [
        (CandidateFailure("", SHORT), 40, Verdict.STOP_FIRST),
        (CandidateFailure("", SHORT), 39, Verdict.GIVE_UP),
        (CandidateFailure("", out_of_memory=True), 1 << 40, Verdict.GIVE_UP),
        (CandidateFailure("corrupt"), 1 << 40, Verdict.GIVE_UP),
        (CandidateFailure("", no_machine=True), 0, Verdict.STOP_FIRST),
    ],
)
def test_a_swap_stops_first_only_if_that_makes_room(
    failure: CandidateFailure, freed: int, verdict: Verdict
) -> None:
    assert after_failed_swap(failure, freed_bytes=freed) is verdict


def test_a_reload_gives_a_replica_its_own_devices() -> None:
    spec = WorkerSpec(WorkerName("m-1"), "m", ModelConfig(), 1, "info", replica=1)
    wanted = reconfigured(spec, {"devices": "CUDA0;CUDA1"}, 1)
    assert wanted.config.devices == "CUDA1"
    assert reconfigured(wanted, {"n_ctx": 64}, 1).config.devices == "CUDA1"
    assert reconfigured(wanted, {"devices": None}, 1).config.devices is None


def test_a_shortage_counts_only_where_loading_failed_for_it() -> None:
    end = ExitReason(reason=Reason.LOAD_FAILED, at=0.0, detail="too large")
    assert candidate_failed(end, SHORT) == CandidateFailure("too large", SHORT)
    killed = ExitReason(signal=9, reason=Reason.OUT_OF_MEMORY, at=0.0)
    assert candidate_failed(killed, SHORT) == CandidateFailure(
        "out_of_memory (SIGKILL)", out_of_memory=True
    )
    assert candidate_failed(None, SHORT).detail == "it did not start"


def test_mapped_weights_free_nothing_and_those_on_a_device_do() -> None:
    assert freed_bytes(None, 7) == 7
    assert freed_bytes(FACTS, 7) == 7
    on_device = msgspec.structs.replace(FACTS, device_bytes=100)
    assert freed_bytes(on_device, 7) == 107


def test_streams_go_on_with_an_equal_model_that_has_no_less_context() -> None:
    larger = msgspec.structs.replace(FACTS, n_ctx=FACTS.n_ctx + 1)
    other = msgspec.structs.replace(FACTS, fingerprint="other")
    assert continues(FACTS, FACTS)
    assert continues(FACTS, larger)
    assert not continues(larger, FACTS)
    assert not continues(FACTS, other)


@pytest.mark.parametrize(
    ("wanted", "answer"),
    [
        (ModelConfig(model_path="/a", n_ctx=100), True),
        (ModelConfig(model_path="/a", n_ctx=200), True),
        (ModelConfig(model_path="/a", n_ctx=99), False),
        (ModelConfig(model_path="/b", n_ctx=100), False),
    ],
)
def test_before_a_model_is_loaded_its_file_tells_whether_streams_go_on(
    wanted: ModelConfig, answer: bool
) -> None:
    assert can_replay(ModelConfig(model_path="/a", n_ctx=100), wanted) is answer


def test_a_swap_changes_what_it_names_and_nothing_else() -> None:
    config = ModelConfig(model_path="/a", model="served", n_ctx=100, n_gpu_layers=5)
    assert changed(config, ModelChange(model_path="/b")) == msgspec.structs.replace(
        config, model_path="/b"
    )
    assert changed(config, ModelChange(model_path="/b", n_ctx=7, n_gpu_layers=0)) == (
        msgspec.structs.replace(config, model_path="/b", n_ctx=7, n_gpu_layers=0)
    )


def test_a_swap_to_another_file_leaves_the_checksum_behind() -> None:
    config = ModelConfig(model_path="/a.gguf", model_sha256="0" * 64)
    assert changed(config, ModelChange(model_path="/b.gguf")).model_sha256 is None
    assert changed(config, ModelChange(model_path="/a.gguf")).model_sha256 == "0" * 64
