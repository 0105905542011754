"""The vocabulary is read in parts, each of which is told of: it holds the interpreter's lock."""

import contextlib
import json
from collections.abc import Callable, Iterator
from typing import Any

import llguidance
import numpy as np
import pytest
from llguidance import LLTokenizer

from engine_worker.backend.fake.backend import FakeBackend
from engine_worker.constraints import llg
from engine_worker.constraints.compiler import Compiler
from gpufc.config import BackendKind, ModelConfig

SCHEMA = {
    "type": "object",
    "properties": {"path": {"type": "string"}, "n": {"type": "integer"}},
    "required": ["path", "n"],
}
TEXT = b'{"path": "/tmp/a b", "n": 12}'


class HeldLock:
    """Implements `HoldLock`. `done` are the calls, each with whether the lock was held."""

    def __init__(self) -> None:
        self.is_held = False
        self.n_held = 0
        self.done: list[tuple[str, bool]] = []

    @contextlib.contextmanager
    def __call__(self) -> Iterator[None]:
        assert not self.is_held
        self.is_held = True
        self.n_held += 1
        yield
        self.is_held = False

    def seen(self, name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def made(*args: Any, **options: Any) -> Any:
            self.done.append((name, self.is_held))
            return call(*args, **options)

        return made


class Watched:
    """llguidance's tokenizer. Its two long calls are seen."""

    def __init__(self, lock: HeldLock, *args: Any, **options: Any) -> None:
        make = lock.seen("trie", LLTokenizer)
        self._inner = make(*args, **options)
        self.with_slices = lock.seen("slices", self._inner.with_slices)
        self.general_slices = self._inner.general_slices


class Bytes:
    """A vocabulary of bytes and pairs of letters."""

    end_tokens = frozenset({256})

    def __init__(self) -> None:
        letters = range(97, 123)
        pairs = [bytes((one, other)) for one in letters for other in letters]
        self.pieces = [*(bytes((byte,)) for byte in range(256)), b"", *pairs]

    def writable(self, token: int) -> bytes:
        return self.pieces[token]

    def written(self, text: str) -> list[int]:
        return list(text.encode())


def test_each_long_call_is_made_with_the_lock_held(monkeypatch: pytest.MonkeyPatch) -> None:
    lock, vocabulary = HeldLock(), Bytes()
    monkeypatch.setattr(llg.llguidance, "LLTokenizer", lambda *a, **k: Watched(lock, *a, **k))
    llg.Tokenizer(vocabulary, len(vocabulary.pieces), lock)
    assert lock.done == [("trie", True), ("slices", True)]
    assert lock.n_held == 2


def test_masks_are_those_of_a_tokenizer_that_is_made_in_one_call() -> None:
    vocabulary = Bytes()
    n_vocab = len(vocabulary.pieces)
    ours, whole = llg.Tokenizer(vocabulary, n_vocab), llg.Tokenizer(vocabulary, n_vocab)
    whole.inner = LLTokenizer(
        llguidance.TokenizerWrapper(llg._Wrapped(vocabulary, n_vocab)),
        n_vocab=n_vocab,
        eos_token=[256],
    )
    grammar = llg.from_json_schema(json.dumps(SCHEMA))
    one, other = llg.Matcher(ours, grammar), llg.Matcher(whole, grammar)
    for token in TEXT:
        assert np.array_equal(one.mask(), other.mask())
        assert one.consume((token,)) == other.consume((token,)) == 1
    assert one.is_accepting


def test_a_compiler_reads_the_vocabulary_once() -> None:
    lock = HeldLock()
    compiler = Compiler(FakeBackend(ModelConfig(backend=BackendKind.FAKE), 1), lock)
    assert not compiler.has_vocabulary
    compiler.read_vocabulary()
    assert compiler.has_vocabulary
    compiler.read_vocabulary()
    assert lock.n_held == 2
