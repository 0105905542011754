import itertools
import multiprocessing
import os
import signal
from multiprocessing.connection import Connection
from pathlib import Path
from typing import NoReturn

import numpy as np
import pytest

from engine_worker.backend.fake import faults
from engine_worker.backend.fake.backend import FakeBackend, expected_text, expected_tokens
from engine_worker.backend.fake.vocabulary import (
    EOS,
    FREEZE,
    GENERATED,
    N_VOCAB,
    parse_directive,
    tokenize,
)
from engine_worker.backend.port import SPARE_OUTPUTS, Batch
from engine_worker.sampling.sampler import Sampler
from gpufc.config import BackendKind, KvUnified, ModelConfig
from gpufc.errors import ConfigError, DecodeFailed, ModelLoadError, OutOfCells
from gpufc.sampling import SamplingParams
from tests.engine_worker.backend.decoding import decode


def layout(unified: bool) -> KvUnified:
    return KvUnified.TRUE if unified else KvUnified.FALSE


def make(n_sequences: int = 4, **config: object) -> FakeBackend:
    return FakeBackend(ModelConfig(**{"n_ctx": 1024, **config}), n_sequences)  # type: ignore[arg-type]


def feed(tokens: list[int], sequence: int = 0, start: int = 0) -> Batch:
    return Batch(
        tokens=list(tokens),
        positions=list(range(start, start + len(tokens))),
        sequences=[sequence] * len(tokens),
        outputs=[False] * (len(tokens) - 1) + [True],
    )


def generate(backend: FakeBackend, history: list[int], n: int, sequence: int = 0) -> list[int]:
    """Prefill what the sequence does not have yet, then decode greedily."""
    tokens = list(history)
    done = len(backend.history(sequence))
    for _ in range(n):
        row = decode(backend, feed(tokens[done:], sequence, done))[0]
        done = len(tokens)
        tokens.append(int(row.argmax()))
        if backend.is_end(tokens[-1]):
            break
    return tokens[len(history) :]


CHAT = tokenize("<|im_start|>user\nhello<|im_end|>\n<|im_start|>assistant\n")


def test_generation_is_the_pure_function_of_the_history() -> None:
    assert generate(make(), CHAT, 40) == expected_tokens(CHAT, 40)
    text = expected_text(CHAT, 200)
    assert len(text) == 200
    assert set(text) <= set("abcdefghijklmnopqrstuvwxyz ")
    assert expected_text(tokenize("hellp"), 50) != expected_text(tokenize("hello"), 50)


def test_a_replay_goes_on_as_if_nothing_had_happened() -> None:
    whole = expected_tokens(CHAT, 40)
    for done in (1, 17, 39):
        assert generate(make(), CHAT + whole[:done], 40 - done) == whole[done:]


def test_the_time_of_a_step_includes_the_engine_s_own_work(monkeypatch: pytest.MonkeyPatch) -> None:
    slept: list[float] = []
    own_clock = itertools.count(0.0, 0.002)
    monkeypatch.setattr("time.sleep", slept.append)
    monkeypatch.setattr("time.thread_time", lambda: next(own_clock))
    backend = make(fake_script="step_ms=5")
    for position in range(2):
        decode(backend, feed(CHAT[position : position + 1], start=position))
    assert slept == [pytest.approx(0.005), pytest.approx(0.003)]


def test_a_prompt_takes_its_time_after_steps_of_one_token(monkeypatch: pytest.MonkeyPatch) -> None:
    slept: list[float] = []
    clock = itertools.count()
    monkeypatch.setattr("time.sleep", slept.append)
    monkeypatch.setattr("time.thread_time", lambda: next(clock) * 0.002)  # of any step, its own
    backend = make(fake_script="step_ms=20,prefill_us=1000")
    prompt = tokenize("ten letters and more", add_special=True)[:11]
    for start in (0, 12):
        backend.begin(feed(prompt, start=start))
        backend.begin(feed(prompt[:1], start=start + 11))
    assert slept[0] == pytest.approx(0.03)
    assert slept[2] == pytest.approx(0.03 - 0.002)


@pytest.mark.parametrize("temperature", [0.0, 0.8, 5.0])
def test_every_sampling_setting_chooses_the_same(temperature: float) -> None:
    row = decode(make(), feed(CHAT))[0]
    for seed in range(20):
        sampler = Sampler(SamplingParams(seed=seed, temperature=temperature), N_VOCAB)
        assert sampler.choose(row, CHAT, 0, 0) == expected_tokens(CHAT, 1)[0]


@pytest.mark.parametrize("unified", [True, False])
def test_a_copied_prefix_goes_on_as_its_own_sequence(unified: bool) -> None:
    backend = make(kv_unified=layout(unified))
    decode(backend, feed(CHAT))
    backend.copy_prefix(0, 2, 10)
    other = CHAT[:10] + tokenize("!")
    assert generate(backend, other, 5, sequence=2) == expected_tokens(other, 5)
    assert generate(backend, [*CHAT, 65], 5) == expected_tokens([*CHAT, 65], 5)
    with pytest.raises(DecodeFailed):
        backend.copy_prefix(0, 2, 3)


def test_shared_cells_count_once_in_one_cache_and_twice_in_streams() -> None:
    for unified, n_used in ((True, 10), (False, 20)):
        backend = make(kv_unified=layout(unified))
        decode(backend, feed(CHAT[:10]))
        backend.copy_prefix(0, 1, 10)
        assert backend.n_cells_used == n_used
        backend.remove(0)
        assert backend.n_cells_used == 10
        backend.remove(1, 4)
        assert backend.n_cells_used == 4
        assert backend.history(1) == CHAT[:4]


def test_running_out_of_cells_changes_nothing() -> None:
    backend = make(kv_cells=16)
    decode(backend, feed(CHAT[:10]))
    with pytest.raises(OutOfCells):
        decode(backend, feed(CHAT[:7], sequence=1))
    assert (backend.n_cells_used, backend.history(1)) == (10, [])
    decode(backend, feed(CHAT[:6], sequence=1))


@pytest.mark.parametrize(
    "batch",
    [
        feed([65], start=1),
        feed([65], sequence=4),
        feed([N_VOCAB]),
        feed([]),
        Batch(tokens=[1, 1], positions=[0, 0], sequences=[0, 0], outputs=[True, True]),
        Batch(tokens=[1, 1], positions=[0], sequences=[0, 0], outputs=[True, True]),
        feed([65] * 257),
    ],
)
def test_bad_batches_are_fatal(batch: Batch) -> None:
    with pytest.raises(DecodeFailed):
        decode(make(), batch)


def test_rows_come_in_batch_order() -> None:
    a, b = tokenize("first"), tokenize("second")
    batch = Batch(
        tokens=[*b, *a],
        positions=[*range(len(b)), *range(len(a))],
        sequences=[3] * len(b) + [1] * len(a),
        outputs=[False] * (len(b) - 1) + [True] + [False] * (len(a) - 1) + [True],
    )
    rows = decode(make(), batch)
    assert rows.dtype == np.float32
    assert rows.argmax(axis=1).tolist() == expected_tokens(b, 1) + expected_tokens(a, 1)


def test_say_and_stop_and_emoji() -> None:
    assert expected_text(tokenize("[[say:Hello ]END]] please"), 10).startswith("Hello ]END")
    stopped = tokenize("x [[stop@3]] y")
    assert [token == EOS for token in expected_tokens(stopped, 9)] == [False] * 3 + [True]
    assert generate(make(), stopped, 9) == expected_tokens(stopped, 9)
    emoji = expected_text(tokenize("[[emoji]]"), 60)
    assert all(ord(character) > 127 for character in emoji)
    assert len(emoji) >= 15


def test_a_directive_works_inside_any_template_and_after_a_copy() -> None:
    prompt = tokenize("<|im_start|>user\n[[stop@2]]<|im_end|>\n<|im_start|>assistant\n")
    backend = make()
    decode(backend, feed(prompt))
    backend.copy_prefix(0, 1, len(prompt) - 1)
    assert len(generate(backend, prompt, 9, sequence=1)) == 3


def test_text_that_only_looks_like_a_directive_is_text() -> None:
    for text in ("segv", "boom@3", "stop@", "segv@x", "say:"):
        assert parse_directive(text) == ()


@pytest.mark.parametrize(
    ("fault", "error"),
    [("raise", RuntimeError), ("decode_error", DecodeFailed)],
)
def test_faults_that_raise_come_after_exactly_n_tokens(fault: str, error: type[Exception]) -> None:
    prompt = tokenize(f"[[{fault}@3]]")
    assert generate(make(), prompt, 3) == expected_tokens(prompt, 3)
    with pytest.raises(error):
        generate(make(), prompt, 4)
    replayed = prompt + expected_tokens(prompt, 3)
    with pytest.raises(error):
        generate(make(), replayed, 1)
    beyond = prompt + expected_tokens(prompt, 4)
    assert generate(make(), beyond, 2) == expected_tokens(beyond, 2)


def test_logits_become_no_numbers_after_exactly_n_tokens() -> None:
    prompt = tokenize("[[nan@3]]")
    tokens = prompt + expected_tokens(prompt, 3)
    assert np.isfinite(decode(make(), feed(tokens[:-1]))).all()
    assert np.isnan(decode(make(), feed(tokens))).any()


def test_a_fault_can_come_once_only(tmp_path: Path) -> None:
    prompt = tokenize(f"[[raise@0 once={tmp_path}/marker]]")
    with pytest.raises(RuntimeError):
        generate(make(), prompt, 1)
    assert generate(make(), prompt, 5) == expected_tokens(prompt, 5)


def test_a_fault_in_the_prompt_comes_while_it_is_computed() -> None:
    backend = make()
    prompt = tokenize("[[raise@-1]] and ] more ]")
    batch = feed(prompt)
    batch.outputs[-1] = False
    with pytest.raises(RuntimeError):
        decode(backend, batch)


def _meet(fault: str, told: Connection) -> None:
    backend = make()
    told.send_bytes(b"now")
    generate(backend, tokenize(f"[[{fault}]]"), 3)
    told.send_bytes(b"missed")


@pytest.mark.parametrize(
    ("fault", "exit_code"),
    [
        ("segv@1", -signal.SIGSEGV),
        ("abort@1", -signal.SIGABRT),
        ("kill@1", -signal.SIGKILL),
        ("exit@1:3", 3),
        ("exit@1:0", 0),
        ("hang@1", None),
        ("freeze@1", None),
    ],
)
def test_faults_that_end_or_hang_the_process(fault: str, exit_code: int | None) -> None:
    heard, told = multiprocessing.Pipe(duplex=False)
    child = multiprocessing.get_context("spawn").Process(target=_meet, args=(fault, told))
    child.start()
    told.close()
    assert heard.recv_bytes() == b"now"
    if exit_code is None:
        assert not heard.poll(0.5)
    else:
        child.join(60.0)
    assert child.exitcode == exit_code
    child.kill()
    child.join()
    child.close()
    heard.close()


def test_a_process_freezes_when_its_messages_have_left(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[str] = []

    class RecordingLink:
        def misspeak(self, fault: str) -> None:
            seen.append(fault)

        def wait_sent(self, timeout_s: float) -> None:
            seen.append("sent")

    def freeze(_: int) -> NoReturn:
        seen.append(FREEZE)
        raise InterruptedError

    monkeypatch.setitem(faults._DEEDS, FREEZE, freeze)
    backend = FakeBackend(ModelConfig(n_ctx=1024), 4, RecordingLink())
    with pytest.raises(InterruptedError):
        generate(backend, tokenize("[[duplicate@1]] [[freeze@2]]"), 3)
    assert seen == ["duplicate", "sent", FREEZE]


def test_the_script_makes_loading_fail_once(tmp_path: Path) -> None:
    config = ModelConfig(fake_script=f"load_fail=1, fail_once_file={tmp_path}/marker")
    with pytest.raises(ModelLoadError):
        FakeBackend.load(config, 2, lambda _: None)
    progress: list[float] = []
    FakeBackend.load(config, 2, progress.append)
    assert progress[-1] == 1.0
    assert os.path.exists(tmp_path / "marker")


@pytest.mark.parametrize(
    "script", ["nonsense=1", "step_ms", "step_ms=fast", "step_ms=-1", "load_fault=boom"]
)
def test_a_bad_script_is_a_configuration_error(script: str) -> None:
    with pytest.raises(ConfigError, match="fake_script"):
        make(fake_script=script)


def test_pieces_join_to_the_text() -> None:
    backend = make()
    text = "ünï 🙂"
    tokens = backend.tokenize(text, add_special=False, parse_special=True)
    assert b"".join(map(backend.piece, tokens)).decode() == text
    assert backend.piece(EOS) == b""
    assert backend.spelling(EOS) == b"<|eos|>"
    assert backend.piece(GENERATED + 65) == b"A"


def test_a_state_goes_over_to_another_backend() -> None:
    old, new = (FakeBackend(ModelConfig(backend=BackendKind.FAKE), 4) for _ in range(2))
    decode(old, Batch([5, 6, 7], [0, 1, 2], [1, 1, 1], [False, False, True]))
    memory = bytearray(old.state_bytes(1))
    assert old.export_state(1, memoryview(memory)) == len(memory)
    assert new.import_state(3, memoryview(memory))
    assert new.history(3) == [5, 6, 7]
    goes_on = decode(new, Batch([8], [3], [3], [True]))
    assert (goes_on == decode(old, Batch([8], [3], [1], [True]))).all()


def test_more_outputs_than_there_are_rows_are_refused() -> None:
    backend = make(2, batch_tokens=128)
    assert backend.facts.max_outputs == 2 + SPARE_OUTPUTS
    n_tokens = backend.facts.max_outputs + 1
    batch = Batch([65] * n_tokens, list(range(n_tokens)), [0] * n_tokens, [True] * n_tokens)
    with pytest.raises(DecodeFailed):
        decode(backend, batch)
    batch.outputs[0] = False
    assert len(decode(backend, batch)) == n_tokens - 1
