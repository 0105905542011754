"""The port between the engine and whatever computes logits.

Two adapters: `llama_backend.LlamaBackend` (the only import of llama_cpp) and
`fake_backend.FakeBackend` (scripted, no model). Everything above this line of the house knows
tokens, positions and sequence ids only.
"""

from collections.abc import Callable
from typing import NamedTuple, Protocol

import numpy as np
from msgspec import Struct, field
from numpy.typing import NDArray

from gpufc.facts import ModelFacts

Logits = NDArray[np.float32]

MAX_SEQUENCES = 256
"""LLAMA_MAX_SEQ: no context has more."""

SPARE_OUTPUTS = 64
"""Rows of logits beyond one for each sequence that a backend offers, for checking drafts."""

LoadProgress = Callable[[float], None]
"""Called with 0…1 while the model loads, from the loading thread."""


class Batch(Struct):
    """What one decode computes: parallel lists, one entry for each token.

    `sequences` are KV sequence ids, 0 ≤ id < `ModelFacts.n_sequences`; `positions` are those
    within the sequence; `outputs` marks the tokens whose logits are wanted,
    of one sequence as many as one likes. `chunks` are the sequences whose prompt is computed while
    the others decode: a backend may compute them apart. With `in_one_pass` the others have one
    token each, and the last one of each chunk is to be computed beside these, after the rest.
    """

    tokens: list[int]
    positions: list[int]
    sequences: list[int]
    outputs: list[bool]
    chunks: set[int] = field(default_factory=set)
    in_one_pass: bool = False


class Top(NamedTuple):
    """The `k` tokens of each row with the largest logits, in any order, of equals any: `ids`
    (n_rows, k). `sums` (n_rows,) of all logits of a row are finite only if all of them are."""

    ids: NDArray[np.int32]
    sums: Logits


class First(NamedTuple):
    """The tokens of each row with the k largest logits, of equals any, as a backend has found them:
    `ids` and `logits` (n_rows, k), by rising id. `sums` as in `Top`."""

    ids: NDArray[np.int64]
    logits: Logits
    sums: Logits


class TopK(Protocol):
    """What finds the first tokens of rows in another way than the sampler's own."""

    def first(self, logits: Logits, k: int) -> Top | None:
        """Valid until the next call. None where it cannot tell."""
        ...

    def close(self) -> None:
        """Nothing may be called afterwards."""
        ...


class Backend(Protocol):
    """A loaded model with its KV cache.

    `begin`, `logits`, `remove` and `copy_prefix` belong to the engine thread. `tokenize`, `piece`
    and `is_end` may be called from any thread at any time. `close` is called once, last.
    """

    facts: ModelFacts
    end_tokens: frozenset[int]
    """The tokens that end a generation (EOS, EOT and the like)."""

    def begin(self, batch: Batch) -> None:
        """Begin to compute a batch. Returns when it is done, or with `facts.asynchronous` when the
        device is at it: then what comes next may run beside.

        Raises `OutOfCells` (nothing was computed, nothing changed) or `DecodeFailed` (the
        process must not go on).
        """
        ...

    def logits(self) -> Logits:
        """Wait for the batch that was begun; the logits of its marked tokens, in batch order.

        Shape (marked tokens, n_vocab), float32; a view that is valid until the next `begin`.
        Raises `DecodeFailed`.
        """
        ...

    def first(self) -> First | None:
        """The largest of the last `logits`, if the device has looked for them: not in every step.

        They have to be as they were given.
        """
        ...

    def remove(self, sequence: int, start: int = 0) -> None:
        """Forget a sequence's cells from position `start` on; 0 forgets the sequence."""
        ...

    def copy_prefix(self, source: int, target: int, n_tokens: int) -> None:
        """Make the empty sequence `target` begin with the first `n_tokens` of `source`."""
        ...

    def state_bytes(self, sequence: int) -> int:
        """The size of a sequence's state; 0 if it cannot be exported."""
        ...

    def export_state(self, sequence: int, memory: memoryview) -> int:
        """Write a sequence's KV cells into memory of that size; returns the bytes written."""
        ...

    def import_state(self, sequence: int, memory: memoryview) -> bool:
        """Give the empty `sequence` what another worker of the same fingerprint exported. False
        (and it stays empty) if that fails."""
        ...

    def top_k(self, n_threads: int) -> TopK | None:
        """What finds the largest logits of many rows with so many threads, if there is such a
        thing. It belongs to the engine thread."""
        ...

    def tokenize(self, text: str, *, add_special: bool, parse_special: bool) -> list[int]:
        """Text to token ids."""
        ...

    def piece(self, token: int) -> bytes:
        """A token's bytes as they belong into an answer: empty for control tokens."""
        ...

    def spelling(self, token: int) -> bytes:
        """A token's bytes with control tokens spelt out, such as `<|im_end|>`."""
        ...

    def is_end(self, token: int) -> bool:
        """Whether the token ends a generation (EOS, EOT and the like)."""
        ...

    def close(self) -> None:
        """Free the model and its memory."""
        ...
