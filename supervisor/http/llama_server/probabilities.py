"""Probabilities of tokens as llama-server writes them, for `n_probs`."""

import math
from collections.abc import Iterable
from typing import Any

from msgspec import UNSET, UnsetType

from gpufc.protocol import Logprob, LogprobsWanted, TokenLogprobs

Json = dict[str, Any]

LEAST = -9999.0
"""Stands for a probability of nothing: JSON has no infinity."""


def written(
    entries: Iterable[TokenLogprobs], wanted: LogprobsWanted | None
) -> list[Json] | UnsetType:
    """An entry for each token: logarithms, or plain probabilities where those after sampling are
    wanted. Unset if none are wanted."""
    if wanted is None:
        return UNSET
    best = "top_probs" if wanted.after_sampling else "top_logprobs"
    return [
        _one(entry.token, wanted) | {best: [_one(one, wanted) for one in entry.top]}
        for entry in entries
    ]


def _one(token: Logprob, wanted: LogprobsWanted) -> Json:
    logprob = LEAST if token.logprob is None else max(token.logprob, LEAST)
    return {
        "id": token.token,
        "token": token.piece.decode("utf-8", "replace"),
        "bytes": list(token.piece),
        **({"prob": math.exp(logprob)} if wanted.after_sampling else {"logprob": logprob}),
    }
