import ctypes
import logging
import threading
from collections.abc import Iterator
from pathlib import Path

import llama_cpp.llama_cpp as llama_cpp  # before numpy: see engine_worker/__main__.py
import numpy as np
import pytest

from engine_worker import host
from engine_worker.backend.llama.backend import LlamaBackend
from engine_worker.backend.port import SPARE_OUTPUTS, Backend, Batch
from engine_worker.model_file.gguf_header import read_header
from engine_worker.placement.footprint import footprint
from gpufc.config import KvType, KvUnified, ModelConfig
from gpufc.errors import DecodeFailed, OutOfCells
from tests.engine_worker.backend.decoding import decode
from tests.engine_worker.backend.llama.loaded import (
    N_CTX,
    feed,
    joined,
    load,
    refusal,
    tokens_of,
)
from tests.models.making import made

pytestmark = pytest.mark.model
ALL_CORES = host.usable_cores()
"""With so many threads the thread that asks for a pass computes it."""
LAYOUTS = [KvUnified.TRUE, KvUnified.FALSE]


@pytest.fixture(scope="module", params=LAYOUTS, ids=["unified", "streams"])
def backend(request: pytest.FixtureRequest, model_path: Path) -> Iterator[LlamaBackend]:
    loaded = load(model_path, kv_unified=request.param)
    yield loaded
    loaded.close()


@pytest.fixture(scope="module", params=LAYOUTS, ids=["unified", "streams"])
def tiny(request: pytest.FixtureRequest) -> Iterator[LlamaBackend]:
    """For tests that count cells and rows of long prompts: its numbers make no sense."""
    loaded = load(made("llama"), kv_unified=request.param, n_threads=ALL_CORES)
    yield loaded
    loaded.close()


@pytest.fixture(scope="module")
def f32_model_path(model_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The demo model's weights in single precision.

    llama.cpp rounds activations to the width of the weights. On some processors the same sequence
    then has other logits in another batch shape, by more than a mistake would change them.
    """
    path = tmp_path_factory.mktemp("f32") / "model.gguf"
    wanted = llama_cpp.llama_model_quantize_default_params()
    wanted.ftype, wanted.allow_requantize = llama_cpp.LLAMA_FTYPE_ALL_F32, True
    given = str(model_path).encode(), str(path).encode(), ctypes.byref(wanted)
    assert llama_cpp.llama_model_quantize(*given) == 0
    yield path
    path.unlink()


@pytest.fixture(scope="module", params=LAYOUTS, ids=["unified", "streams"])
def f32_backend(request: pytest.FixtureRequest, f32_model_path: Path) -> Iterator[LlamaBackend]:
    """For tests that compare logits of different batch shapes: nothing is rounded."""
    types = {"cache_type_k": "f32", "cache_type_v": "f32"}
    loaded = load(f32_model_path, kv_unified=request.param, **types)
    yield loaded
    loaded.close()


@pytest.fixture(autouse=True)
def _empty(request: pytest.FixtureRequest) -> Iterator[None]:
    yield
    for name in {"backend", "tiny", "f32_backend"} & set(request.fixturenames):
        loaded: LlamaBackend = request.getfixturevalue(name)
        for sequence in range(loaded.facts.n_sequences):
            loaded.remove(sequence)


def test_facts_say_what_was_obtained(backend: LlamaBackend) -> None:
    facts = backend.facts
    assert (facts.architecture, facts.n_layers, facts.n_vocab) == ("llama", 30, 49152)
    assert facts.n_ctx == N_CTX
    assert facts.kv_cells == (512 if facts.unified else 4 * N_CTX)
    assert facts.can_cut
    assert facts.chat_template
    assert facts.eos_text == "<|im_end|>"
    assert any(device.kind == "cpu" for device in facts.devices)
    assert len(facts.fingerprint) == 64


def test_it_is_a_backend(backend: LlamaBackend) -> None:
    port: Backend = backend
    assert port.facts is backend.facts


def test_it_computes_a_sensible_next_token(backend: LlamaBackend) -> None:
    row = decode(backend, feed(tokens_of(backend, "The capital of France is")))[0]
    assert backend.piece(int(row.argmax())) == b" Paris"


def test_rows_are_in_the_order_of_the_batch(f32_backend: LlamaBackend) -> None:
    first, second = (
        tokens_of(f32_backend, words) for words in ("Water boils at", "One, two, three,")
    )
    alone = []
    for tokens in (first, second):
        alone.append(decode(f32_backend, feed(tokens))[0].copy())
        f32_backend.remove(0)
    rows = decode(f32_backend, joined(feed(first, sequence=3), feed(second, sequence=1)))
    assert rows.shape == (2, 49152)
    for row, expected in zip(rows, alone, strict=True):
        np.testing.assert_allclose(row, expected, atol=0.001)
    assert abs(alone[0] - alone[1]).max() > 1


def test_one_token_of_each_sequence_is_one_pass_with_nothing_ahead(
    f32_backend: LlamaBackend,
) -> None:
    """Of a prompt that was asked for before, only the last token is left to compute."""
    tokens = tokens_of(f32_backend, "Water boils at")
    decode(f32_backend, joined(feed(tokens, sequence=0), feed(tokens, sequence=1)))
    last = [feed([5], sequence=at, start=len(tokens)) for at in (0, 1)]
    expected = decode(f32_backend, joined(*last)).copy()
    for sequence in (0, 1):
        f32_backend.remove(sequence, len(tokens))
    together = joined(*last)
    together.chunks, together.in_one_pass = {1}, True
    np.testing.assert_allclose(decode(f32_backend, together), expected, atol=0.001)


@pytest.mark.parametrize(("in_one_pass", "wanted"), [(False, 2), (True, 1)])
def test_prompts_beside_decoding_sequences_give_the_same_rows(
    f32_backend: LlamaBackend, in_one_pass: bool, wanted: int
) -> None:
    tokens = tokens_of(f32_backend, "The quick brown fox jumps over the lazy dog and then it")
    decode(f32_backend, feed(tokens, sequence=2))
    parts = (
        feed(tokens, sequence=0, wanted=wanted),
        feed([5], sequence=2, start=len(tokens)),
        feed(tokens[:7], sequence=3),
    )
    expected = decode(f32_backend, joined(*parts)).copy()
    for sequence, start in ((0, 0), (2, len(tokens)), (3, 0)):
        f32_backend.remove(sequence, start)
    together = joined(*parts)
    together.chunks, together.in_one_pass = {0, 3}, in_one_pass
    np.testing.assert_allclose(decode(f32_backend, together), expected, atol=0.001)


def test_where_a_prompt_does_not_fit_nobody_has_gone_on() -> None:
    backend = load(made("llama"), kv_unified=KvUnified.FALSE, n_threads=ALL_CORES)
    try:
        tokens = tokens_of(backend, "word " * 250)[:250]
        decode(backend, joined(feed(tokens[:4], sequence=0), feed(tokens[:100], sequence=1)))
        batch = joined(feed([5], sequence=0, start=4), feed(tokens[:200], sequence=1, start=100))
        batch.chunks = {1}
        with pytest.raises(OutOfCells):
            backend.begin(batch)
        again = decode(backend, feed([5], sequence=0, start=4))
        assert np.isfinite(again).all()
    finally:
        backend.close()


def test_where_the_last_pass_does_not_fit_nothing_ahead_of_it_remains() -> None:
    backend = load(made("llama"), kv_unified=KvUnified.FALSE, n_threads=ALL_CORES)
    try:
        tokens = tokens_of(backend, "word " * 256)[:N_CTX]
        decode(backend, feed(tokens, sequence=0))
        decode(backend, feed(tokens[:9], sequence=1))
        chunk = feed(tokens[9:50], sequence=1, start=9)
        batch = joined(feed([5], sequence=0, start=N_CTX), chunk)
        batch.chunks, batch.in_one_pass = {1}, True
        with pytest.raises(OutOfCells):
            backend.begin(batch)
        assert np.isfinite(decode(backend, chunk)).all()
    finally:
        backend.close()


def test_a_batch_may_have_many_more_tokens_than_outputs(tiny: LlamaBackend) -> None:
    tokens, n_vocab = tokens_of(tiny, "word " * 200)[:200], tiny.facts.n_vocab
    assert decode(tiny, feed(tokens, wanted=0)).shape == (0, n_vocab)
    assert decode(tiny, feed(tokens[:3], start=200, wanted=3)).shape == (3, n_vocab)


def test_logits_are_those_of_the_last_pass_after_any_number_of_rows(tiny: LlamaBackend) -> None:
    tokens, start = tokens_of(tiny, "word " * 50)[:50], 0
    for n_rows in (1, 1, 3, 1, 40, 1, 3):
        tiny.begin(feed(tokens[start : start + n_rows], start=start, wanted=n_rows))
        start += n_rows
        if n_rows < 40:  # else llama.cpp's buffer moves, and no view of it is asked for
            rows = [
                llama_cpp.llama_get_logits_ith(tiny._context, row)[: tiny.facts.n_vocab]
                for row in range(n_rows)
            ]
            assert tiny.logits().tolist() == rows


def test_one_step_gives_logits_for_sequences_and_drafts(f32_backend: LlamaBackend) -> None:
    assert f32_backend.facts.max_outputs == 4 + SPARE_OUTPUTS
    tokens = tokens_of(f32_backend, "One, two, three, four, five, six, seven, " * 9)[:68]
    rows = decode(f32_backend, feed(tokens, wanted=68)).copy()
    assert rows.shape == (68, 49152)
    f32_backend.remove(0)
    for end in (30, 68):
        row = decode(f32_backend, feed(tokens[:end]))[0]
        assert rows[end - 1].argmax() == row.argmax()
        f32_backend.remove(0)


def test_a_copied_prefix_gives_the_same_logits(f32_backend: LlamaBackend) -> None:
    tokens = tokens_of(f32_backend, "The quick brown fox jumps over the lazy dog and then it")
    expected = decode(f32_backend, feed(tokens))[0].copy()
    cut = len(tokens) - 4
    f32_backend.copy_prefix(0, 2, cut)
    row = decode(f32_backend, feed(tokens[cut:], sequence=2, start=cut))[0].copy()
    np.testing.assert_allclose(row, expected, atol=0.001)
    f32_backend.remove(0)
    again = decode(f32_backend, feed(tokens[-1:], sequence=2, start=len(tokens)))[0]
    assert np.isfinite(again).all()


def test_a_sequence_that_was_cut_goes_on_from_there(f32_backend: LlamaBackend) -> None:
    tokens = tokens_of(f32_backend, "The quick brown fox jumps over the lazy dog")
    expected = decode(f32_backend, feed(tokens))[0].copy()
    f32_backend.remove(0, 3)
    row = decode(f32_backend, feed(tokens[3:], start=3))[0]
    np.testing.assert_allclose(row, expected, atol=0.001)


def test_no_room_is_told_and_changes_nothing(tiny: LlamaBackend) -> None:
    n_batch, room = 256, 512 if tiny.facts.unified else N_CTX
    tokens = (tokens_of(tiny, "word " * 300))[:n_batch]
    for start in range(0, room, n_batch):
        decode(tiny, feed(tokens, start=start, wanted=0))
    with pytest.raises(OutOfCells):
        decode(tiny, feed(tokens[:1], start=room))
    tiny.remove(0, room - 1)
    assert decode(tiny, feed(tokens[:1], start=room - 1)).shape == (1, tiny.facts.n_vocab)


def test_what_would_abort_the_process_is_refused(backend: LlamaBackend) -> None:
    for batch in (feed([]), feed([5] * 300, wanted=0), feed([5] * 69, wanted=69)):
        with pytest.raises(DecodeFailed):
            decode(backend, batch)


def test_a_bad_batch_is_fatal_and_says_why(backend: LlamaBackend) -> None:
    with pytest.raises(DecodeFailed, match="llama_decode returned -1"):
        decode(backend, feed([1 << 20]))


@pytest.mark.parametrize("kind", ["f32", "bf16", "q8_0", "q5_1", "q5_0", "q4_1", "q4_0"])
def test_a_cache_of_any_type_takes_what_was_reckoned_and_makes_sense(
    model_path: Path, kind: str
) -> None:
    backend = load(model_path, 1, cache_type_k=kind, cache_type_v=kind)
    row = decode(backend, feed(tokens_of(backend, "The capital of France is")))[0]
    assert backend.piece(int(row.argmax())) == b" Paris"
    n_bytes = footprint(read_header(model_path), KvType(kind), KvType(kind)).bytes_per_cell
    n_tokens = len(tokens_of(backend, "The capital of France is"))
    assert backend.state_bytes(0) == pytest.approx(n_tokens * n_bytes, rel=0.2)
    backend.close()


def test_packed_values_need_flash_attention(model_path: Path) -> None:
    assert "flash_attn" in refusal(model_path, cache_type_v="q8_0", flash_attention="off")


def test_streams_are_had_where_they_fit(model_path: Path) -> None:
    backend = load(model_path, 2, kv_cells=None, kv_unified="auto")
    assert (backend.facts.unified, backend.facts.kv_cells) == (False, 2 * N_CTX)
    backend.close()


def test_text_to_tokens_and_back(backend: LlamaBackend) -> None:
    for words in ("Hallo 🙂 世界\n\tünd", "", "nul\0byte", "x" * 100_000):
        tokens = backend.tokenize(words, add_special=False, parse_special=True)
        assert b"".join(map(backend.piece, tokens)).decode() == words
    assert backend.tokenize("\ud83d", add_special=False, parse_special=True)


def test_control_tokens_are_spelt_only_where_asked(backend: LlamaBackend) -> None:
    (end,) = backend.tokenize("<|im_end|>", add_special=False, parse_special=True)
    assert backend.is_end(end)
    assert backend.piece(end) == b""
    assert backend.spelling(end) == b"<|im_end|>"
    assert end in backend.end_tokens
    assert len(backend.tokenize("<|im_end|>", add_special=False, parse_special=False)) > 1


def test_the_vocabulary_may_be_used_by_many_threads(backend: LlamaBackend) -> None:
    words = "The quick brown fox. " * 50
    expected = tokens_of(backend, words)
    results: list[list[int]] = []
    threads = [
        threading.Thread(
            target=lambda: results.extend(tokens_of(backend, words) for _ in range(20))
        )
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    decode(backend, feed(expected[:100]))
    for thread in threads:
        thread.join()
    assert results == [expected] * 80


def test_progress_rises_to_one(model_path: Path) -> None:
    progress: list[float] = []
    config = ModelConfig(model_path=str(model_path), n_ctx=64, kv_cells=256, n_threads=1)
    LlamaBackend.load(config, 1, progress.append).close()
    assert progress == sorted(progress)
    assert progress[-1] == 1.0


def test_a_context_over_the_trained_one_is_lowered(
    model_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    backend = load(model_path, 1, n_ctx=100_000, kv_cells=None)
    assert (backend.facts.n_ctx, backend.facts.n_ctx_train) == (8192, 8192)
    assert backend.facts.kv_cells == 8192
    assert any("n_ctx_lowered" in record.message for record in caplog.records)
    backend.close()


def test_the_fingerprint_depends_on_what_logits_depend_on(model_path: Path) -> None:
    prints = []
    for config in (
        {"n_ctx": 64, "flash_attention": "on"},
        {"n_ctx": 128},
        {"n_ctx": 64, "flash_attention": "off"},
        {"n_ctx": 64, "cache_type_k": "q8_0"},
    ):
        backend = load(model_path, 1, **{"kv_cells": 256, **config})
        prints.append(backend.facts.fingerprint)
        backend.close()
    assert prints[0] == prints[1]
    assert len(set(prints)) == 3


def test_loading_again_and_again_does_not_grow(model_path: Path) -> None:
    def rss_mib() -> float:
        return int(Path("/proc/self/statm").read_text().split()[1]) * 4096 / 2**20

    sizes = []
    for _ in range(6):
        load(model_path, 2).close()
        sizes.append(rss_mib())
    assert sizes[-1] - sizes[2] < 20


def test_llama_cpp_is_quiet(model_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    load(model_path, 2, n_ctx=8192, kv_cells=10_240).close()
    said = [record for record in caplog.records if record.name == "engine_worker.llama_cpp"]
    assert said == []


def test_a_state_that_was_handed_over_goes_on_to_the_bit(backend: LlamaBackend) -> None:
    tokens = tokens_of(backend, "The quick brown fox jumps over the lazy dog, and then")
    n = len(tokens)
    decode(backend, Batch(tokens, list(range(n)), [0] * n, [False] * (n - 1) + [True]))
    memory = bytearray(backend.state_bytes(0))
    assert backend.export_state(0, memoryview(memory)) == len(memory) > 0
    before = decode(backend, Batch([tokens[-1]], [n], [0], [True])).copy()
    backend.remove(0)
    assert backend.import_state(0, memoryview(memory))
    after = decode(backend, Batch([tokens[-1]], [n], [0], [True]))
    assert (before == after).all()


def test_a_state_that_is_no_state_is_refused_and_leaves_nothing(backend: LlamaBackend) -> None:
    assert not backend.import_state(0, memoryview(bytearray(4096)))
    tokens = tokens_of(backend, "The")
    n = len(tokens)
    decode(backend, Batch(tokens, list(range(n)), [0] * n, [False] * (n - 1) + [True]))
