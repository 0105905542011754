"""Mirostat: the tokens' surprise is steered towards a target (Basu et al. 2020).

Its state is mu, the surprise that a token may have. It depends on the surprise of all tokens chosen
before, by logits that no later worker has: a replay computes known tokens in other batches, and
without rows for them. So mu goes into the sequence's log with the tokens, and a replay begins with
the logged value.
"""

import math

import numpy as np
from msgspec import Struct

from engine_worker.sampling.samplers.port import Model, Moment, Remembering, Row, State
from gpufc.sampling import SamplingParams

_FITTED = 100
"""The likeliest tokens that version 1 fits Zipf's exponent to."""

_MOST_MU = 1000.0
"""Beyond it a power of two overflows."""


def mirostat(params: SamplingParams, model: Model) -> Remembering | None:
    """The version that these parameters ask for; None for neither."""
    match params.mirostat:
        case 1:
            return Mirostat1(params.mirostat_tau, params.mirostat_eta, model.n_vocab)
        case 2:
            return Mirostat2(params.mirostat_tau, params.mirostat_eta)
        case _:
            return None


class _Mirostat(Struct, frozen=True):
    """`tau` is the target in bits, `eta` the rate of learning."""

    tau: float
    eta: float

    @property
    def start(self) -> State:
        return (2.0 * self.tau,)

    def after(self, row: Row, place: int, state: State) -> State:
        surprise = -math.log2(max(float(row.chances()[place]), np.finfo(np.float64).tiny))
        (mu,) = state
        return (mu - self.eta * (surprise - self.tau),)


class Mirostat1(_Mirostat, frozen=True):
    """Keeps as many tokens as have the wished surprise under Zipf's law. Implements
    `Remembering`."""

    n_vocab: int

    def apply(self, row: Row, moment: Moment) -> Row:
        (mu,) = moment.state
        count = self._count(row, min(mu, _MOST_MU))
        row = row.likeliest(count)
        surplus = len(row.ids) - count
        if surplus <= 0:
            return row
        kept = np.ones(len(row.ids), np.bool_)
        kept[(row.logits == row.logits.min()).nonzero()[0][-surplus:]] = False
        return row.kept(kept)

    def _count(self, row: Row, mu: float) -> int:
        n_fitted = min(_FITTED, len(row.ids))
        likeliest = np.sort(np.partition(row.logits, -n_fitted)[-n_fitted:])[::-1]
        ranks = np.log(np.arange(2, n_fitted + 1) / np.arange(1, n_fitted))
        with np.errstate(all="ignore"):
            exponent = -np.diff(likeliest) @ ranks / (ranks @ ranks)
            excess = exponent - 1.0
            share = excess * 2.0**mu / (1.0 - np.float64(self.n_vocab) ** -excess)
            count = share ** (1.0 / exponent)
        if math.isnan(count):
            return 1
        return int(min(max(count, 1.0), len(row.ids)))


class Mirostat2(_Mirostat, frozen=True):
    """Keeps the tokens with at most the wished surprise. Implements `Remembering`."""

    def apply(self, row: Row, moment: Moment) -> Row:
        (mu,) = moment.state
        scores = row.logits - row.logits.max()
        kept = scores >= math.log(np.exp(scores).sum()) - mu * math.log(2.0)
        return row.kept(kept) if kept.any() else row.best()
