"""What is made of the lines that llama.cpp writes."""

import pytest

from engine_worker.backend.llama.log import LlamaLog

INFO, ERROR, CONT = 2, 4, 5


def said(*lines: str, level: int = INFO) -> LlamaLog:
    log = LlamaLog()
    for line in lines:
        log.write(level, line.encode() + b"\n")
    return log


@pytest.mark.parametrize(
    ("line", "verdict"),
    [
        ("resolve_fused_ops: Flash Attention enabled", True),
        ("resolve_fused_ops: Flash Attention not supported, set to disabled", False),
        ("resolve_fused_ops: Lightning Indexer enabled", None),
        ("llama_context: flash_attn            = auto", None),
    ],
)
def test_what_auto_came_to_is_noted(line: str, verdict: bool | None) -> None:
    assert said(line).flash_attention is verdict


@pytest.mark.parametrize(
    "line",
    [
        "ggml_backend_cuda_buffer_type_alloc_buffer: cudaMalloc failed: out of memory",
        "llama_model_load: error loading model: unable to allocate CUDA0 buffer",
        "llama_init_from_model: failed to allocate buffer for kv cache",
    ],
)
def test_memory_that_could_not_be_had_is_noted(line: str) -> None:
    assert said("llama_model_load: error", line, level=ERROR).lacked_memory


def test_other_errors_are_not_of_memory_and_the_first_is_the_reason() -> None:
    log = said("key not found", "failed to load model", level=ERROR)
    assert not log.lacked_memory
    assert log.last_error() == "key not found"


def test_what_was_said_before_does_not_count() -> None:
    log = said("cudaMalloc failed: out of memory", level=ERROR)
    log.write(INFO, b"resolve_fused_ops: Flash Attention enabled\n")
    log.clear()
    assert (log.lacked_memory, log.last_error(), log.flash_attention) == (False, "", None)


def test_pieces_of_a_line_are_put_together() -> None:
    log = LlamaLog()
    log.write(ERROR, b"out of ")
    log.write(CONT, b"memory\n")
    assert log.lacked_memory
