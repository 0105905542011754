"""The port between speculation and the drafters, which propose a sequence's next tokens.

The engine computes drafted tokens in the same batch as the sequence's next token and samples every
position as it would without a draft. It keeps a drafted token only where sampling chose the same
one. So a draft changes how fast a sequence is decoded and never which distribution its tokens have.

Adapters: `prompt_lookup.PromptLookup` and `draft_model.DraftModel`. A new drafter implements
`Drafter`, and its `LoadWith` is an entry in `engine.loading`.
"""

from collections.abc import Callable, Sequence
from typing import Protocol

from msgspec import Struct

from engine_worker.backend.port import Backend
from gpufc.config import ModelConfig
from gpufc.ids import RequestNo
from gpufc.protocol import Tokens


class DraftRequest(Struct, frozen=True):
    """A request to draft for one sequence that decodes in the next step.

    `tokens` are all known tokens, prompt first. A drafter neither keeps nor changes the list;
    between two requests with the same `key` it only grows at its end.

    The client expects the answer to be like `prediction`; its first token has position `n_prompt`.

    At most `limit` tokens may be drafted: more do not fit into the context or the batch. At most
    `n_useful` tokens can become part of the answer. Speculators use that number, drafters do not.
    """

    key: RequestNo
    tokens: list[int]
    limit: int
    n_useful: int
    prediction: Tokens = ()
    n_prompt: int = 0


class Draft(Struct, frozen=True):
    """The proposed tokens after a sequence's last one, possibly none.

    `evidence` ≥ 0 rates the first token in the drafter's own unit, such as the number of tokens
    that matched before it. Token i has evidence `evidence + i`.
    """

    tokens: list[int]
    evidence: int


class Drafter(Protocol):
    """Drafts for all sequences of a step at once. Only the engine's thread calls it."""

    position_s: float | None
    """Seconds that drafting one more position for all sequences adds to a step.

    None if drafting is free. Free drafts are also made just to compare them with the next tokens.
    """

    def assumed_rate(self, evidence: int) -> float:
        """The acceptance rate to assume for an evidence until sequences have shown theirs."""
        ...

    def draft_all(self, requests: Sequence[DraftRequest]) -> list[Draft]:
        """One draft for each request, in order, none longer than its request's `limit`.

        Raises `DecodeFailed` when the drafter's model is lost: the process must not go on.
        """
        ...

    def forget(self, key: RequestNo) -> None:
        """Drop the state kept for a sequence, which may come back. Unknown keys are ignored."""
        ...


class Loads(Struct, frozen=True):
    """The models that can be loaded. Each call blocks, and raises `ModelLoadError`."""

    model: Callable[[], Backend]
    """The model of the configuration."""
    beside: Callable[[ModelConfig], Backend]
    """Another model, with a slot for each running sequence. It is loaded first: the model's cells
    are fitted to the memory left."""


LoadWith = Callable[[ModelConfig, Loads], tuple[Backend, Drafter | None]]
"""Loads the model and makes its drafter; None where the model cannot verify drafts."""
