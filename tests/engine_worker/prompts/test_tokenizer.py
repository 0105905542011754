"""Long and hostile texts in the real tokenizer, and its process apart."""

import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from engine_worker.backend.llama.vocabulary import Vocabulary
from engine_worker.prompts.apart import TokenizerProcess
from engine_worker.prompts.pieces import MAX_PIECE_CHARS
from engine_worker.prompts.tokenizer import (
    NeedsApart,
    PrepareCancelled,
    Tokenizer,
    TooManyTokens,
)
from gpufc.errors import EngineUnavailable, InvalidRequest
from tests.engine_worker.prompts.vocabularies import (
    MODULE,
    backend_of,
    load_vocabulary,
    write_vocabulary,
)

pytestmark = pytest.mark.model

LONG = 2 * MAX_PIECE_CHARS
CRASHING = 30_000
"""Characters in a row that overflow a stack of 8 MiB with this pre-tokenizer."""


@pytest.fixture(scope="module")
def path(model_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_vocabulary(model_path, tmp_path_factory.mktemp("v") / "v.gguf", pre="tekken")


@pytest.fixture(scope="module")
def vocabulary(path: Path) -> Vocabulary:
    return load_vocabulary(path)


@pytest.fixture(scope="module")
def tokenizer(vocabulary: Vocabulary) -> Tokenizer:
    return Tokenizer(backend_of(vocabulary))


@pytest.fixture(scope="module")
def apart(path: Path) -> Iterator[TokenizerProcess]:
    process = TokenizerProcess(MODULE, str(path))
    yield process
    process.close()


@pytest.mark.parametrize("character", ["A", "\n", " ", "#", "\u4e2d"])
def test_a_long_run_of_one_character_is_tokenized_without_harm(
    tokenizer: Tokenizer, apart: TokenizerProcess, vocabulary: Vocabulary, character: str
) -> None:
    text = character * CRASHING
    with pytest.raises(NeedsApart):
        tokenizer.tokenize(text, parse_special=True)
    found = tokenizer.tokenize(text, parse_special=True, apart=apart)
    assert b"".join(map(vocabulary.spelling, found)).decode() == text


@pytest.mark.parametrize("unit", ["A", "\n", " ", "the quick fox ", "<|im_start|>", "\u4e2d"])
def test_a_text_nine_times_too_long_is_refused_without_a_process_apart(
    tokenizer: Tokenizer, unit: str
) -> None:
    n_ctx = 2048
    with pytest.raises(TooManyTokens) as caught:
        tokenizer.tokenize(unit * (200 * n_ctx), parse_special=True, limit=2 * n_ctx)
    assert caught.value.n_tokens > 2 * n_ctx


def test_special_tokens_among_long_texts_are_found_and_nothing_is_lost(
    tokenizer: Tokenizer, vocabulary: Vocabulary
) -> None:
    text = "<|im_start|>user\n" + "some words, " * LONG + "<|im_end|>\n"
    found = tokenizer.tokenize(text, parse_special=True)
    assert b"".join(map(vocabulary.spelling, found)).decode() == text
    assert found[0] == 1


def test_a_cancelled_text_is_given_up_between_two_pieces(tokenizer: Tokenizer) -> None:
    looks = iter([False, False, True])
    with pytest.raises(PrepareCancelled):
        tokenizer.tokenize("words " * LONG, parse_special=True, cancelled=lambda: next(looks))
    assert next(looks, None) is None


def test_a_text_that_ends_the_process_apart_is_refused_and_the_next_is_served(
    apart: TokenizerProcess, path: Path
) -> None:
    with pytest.raises(InvalidRequest, match="without a break"):
        apart.tokenize("A" * (6 << 20), lambda: False)
    assert apart.tokenize("fine", lambda: False)


def test_cancel_ends_the_process_apart(path: Path) -> None:
    process = TokenizerProcess(MODULE, str(path))
    with pytest.raises(PrepareCancelled):
        process.tokenize("A", lambda: True)
    assert process.tokenize("A", lambda: False)
    process.close()


def test_a_process_that_does_not_start_is_our_fault(tmp_path: Path) -> None:
    process = TokenizerProcess(MODULE, str(tmp_path / "missing.gguf"))
    with pytest.raises(EngineUnavailable):
        process.tokenize("A", lambda: False)


def test_a_thread_with_the_prepare_threads_stack_holds_the_longest_piece(
    vocabulary: Vocabulary,
) -> None:
    tokens: list[int] = []

    def run() -> None:
        tokens.extend(
            vocabulary.tokenize("A" * MAX_PIECE_CHARS, add_special=False, parse_special=False)
        )

    _in_thread(run, 8 << 20)
    assert tokens


def _in_thread(run: Callable[[], None], stack_bytes: int) -> None:
    before = threading.stack_size(stack_bytes)
    try:
        thread = threading.Thread(target=run)
        thread.start()
    finally:
        threading.stack_size(before)
    thread.join()
