"""The port between the worker and a backend: a loaded model that computes logits.

Two adapters implement it: `llama.backend.LlamaBackend` and `fake.backend.FakeBackend`. `candidates`
is the part of the port that samplers use.
"""

from collections.abc import Callable
from typing import Protocol

from msgspec import Struct, field

from engine_worker.backend.candidates import CandidateFinder, Logits
from engine_worker.backend.embedder import Embedder
from gpufc.adapters import Adapters
from gpufc.facts import MAX_SEQUENCES, ModelFacts

__all__ = ["MAX_SEQUENCES", "Backend", "Batch", "LoadProgress", "Logits", "ModelFacts"]

SPARE_OUTPUTS = 64
"""Rows of logits for drafts that a backend offers, beyond one row for each slot."""

LoadProgress = Callable[[float], None]
"""Called with 0…1 while the model loads, from the loading thread."""


def step_tokens(usual: int, n_sequences: int, wanted: int | None) -> int:
    """The most tokens of a step: `wanted` of them, or else a backend's `usual` number.

    There is room for the next token of every slot. By default half of a usual step is left for
    prompts: else a newcomer's prompt would be computed a few tokens a step.
    """
    return max(wanted or max(usual, n_sequences + usual // 2), n_sequences)


class Batch(Struct):
    """The tokens of one decode: parallel lists, one entry for each token.

    `sequences` are slots, 0 ≤ slot < `ModelFacts.n_sequences`; `positions` count within the slot.
    `outputs` marks the tokens whose logits are wanted, any number of them in a slot. `chunks` are
    the slots with a prompt chunk in a step that also decodes: a backend may compute these in a pass
    of their own. With `in_one_pass` every other slot has one token; the last token of each chunk is
    computed in one pass with these, after the rest of the chunk. `adapters` are applied to all
    tokens.
    """

    tokens: list[int]
    positions: list[int]
    sequences: list[int]
    outputs: list[bool]
    chunks: set[int] = field(default_factory=set)
    in_one_pass: bool = False
    adapters: Adapters = ()


class SpecialToken(Struct, frozen=True):
    """A token that is found in a text before the rest of the text is tokenized.

    `is_control`: only where control tokens are read. `strips_left` and `strips_right`: the token
    swallows the whitespace on that side.
    """

    id: int
    text: str
    is_control: bool
    strips_left: bool = False
    strips_right: bool = False


class InfillTokens(Struct, frozen=True):
    """The ids of a vocabulary's fill-in-the-middle tokens."""

    prefix: int
    suffix: int
    middle: int
    repository: int | None = None
    file: int | None = None


class SpecialTokens(Struct, frozen=True, kw_only=True):
    """A vocabulary's special tokens.

    `names` are what chat templates call them (`bos_token`, …), with their spellings. `first` and
    `last` are put around a text that is tokenized with special tokens, `between` between the texts
    of a pair. `infill` is None for a model that was not trained to fill a gap.
    """

    tokens: tuple[SpecialToken, ...] = ()
    names: dict[str, str] = field(default_factory=dict)
    first: tuple[int, ...] = ()
    last: tuple[int, ...] = ()
    between: tuple[int, ...] = ()
    infill: InfillTokens | None = None


class Backend(Protocol):
    """A loaded model with its KV cache.

    The vocabulary's methods (`tokenize`, `piece`, `written`, `spelling`, `is_end` …) may be called
    from any thread at any time, every other method by the engine thread only. `close` is called
    once, last.
    """

    facts: ModelFacts
    end_tokens: frozenset[int]  # EOS, EOT and the like

    def begin(self, batch: Batch) -> None:
        """Begin to compute a batch. Returns when it is computed, or when a device or another thread
        has begun (`facts.asynchronous`, `facts.computes_beside`).

        Raises `OutOfCells` (nothing was computed, nothing changed) or `DecodeFailed` (the
        process must not go on).
        """
        ...

    def logits(self) -> Logits:
        """Wait for the batch that was begun, and return the logits of its marked tokens in order.

        Shape (marked tokens, n_vocab), float32; a view that is valid until the next `begin`.
        Raises `DecodeFailed`.
        """
        ...

    def remove(self, slot: int, start: int = 0) -> None:
        """Remove a slot's cells from position `start` on; 0 empties the slot."""
        ...

    def copy_prefix(self, source: int, target: int, n_tokens: int) -> None:
        """Copy the first `n_tokens` of slot `source` to the empty slot `target`."""
        ...

    @property
    def n_threads(self) -> int:
        """CPU threads that computed the last pass."""
        ...

    def keeps_prefix(self, slot: int, n_tokens: int) -> bool:
        """Whether a sequence can go on after the first `n_tokens` of a slot.

        Layers with a sliding window lose cells that the window has passed: other slots take them.
        """
        ...

    def state_bytes(self, slot: int) -> int:
        """The size of a slot's state; 0 if it cannot be exported."""
        ...

    def export_state(self, slot: int, memory: memoryview) -> int:
        """Write a slot's KV cells into memory of `state_bytes`; returns the bytes written."""
        ...

    def import_state(self, slot: int, memory: memoryview) -> bool:
        """Fill the empty `slot` with a state that a worker of the same fingerprint has exported.
        False if that fails; the slot is then empty."""
        ...

    def embedder(self) -> Embedder:
        """The embedder, made at the first call. Closed with the backend. Raises `RequestError`
        where memory is short now."""
        ...

    def finders(self, n_threads: int) -> tuple[CandidateFinder, ...]:
        """Ways to find the largest of the last `logits`, in the order to ask them; may be empty.

        Called once, by the engine thread, to which the finders belong until `close`. They may use
        `n_threads` threads, the caller's included.
        """
        ...

    def tokenize(self, text: str, *, add_special: bool, parse_special: bool) -> list[int]:
        """The token ids of a text. A long text may end the process: see `prompts.tokenizer`."""
        ...

    def special_tokens(self) -> SpecialTokens:
        """The vocabulary's special tokens. The first call reads the whole vocabulary."""
        ...

    def template(self, name: str) -> str | None:
        """The chat template that the model brings under this name."""
        ...

    @property
    def tokenizer_module(self) -> str | None:
        """The module that tokenizes for the model's file in a process of its own, if there is
        one (`prompts.apart`)."""
        ...

    def piece(self, token: int) -> bytes:
        """A token's bytes in an answer: empty for control tokens."""
        ...

    def written(self, text: str) -> list[int]:
        """The token ids in which the model writes a text in an answer, without special tokens."""
        ...

    def writable(self, token: int) -> bytes:
        """The bytes that the model writes with a token in an answer; empty if it never does."""
        ...

    def spelling(self, token: int) -> bytes:
        """A token's bytes with control tokens spelt out, such as `<|im_end|>`."""
        ...

    def is_end(self, token: int) -> bool:
        """Whether the token ends a generation (EOS, EOT and the like)."""
        ...

    def close(self) -> None:
        """Free the model, its memory and the finders."""
        ...
