"""The part of the port that finds candidates: the few tokens of a row that a sampler may choose.

A sampler asks a tuple of finders in order; each answers the rows that it can and leaves the rest
to the next. Everything passed is plain arrays, so that an adapter needs no sampler. Pure.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

Logits = NDArray[np.float32]
Counts = NDArray[np.intp]
Places = NDArray[np.int64]
MaskWords = NDArray[np.int32]
"""A mask of a vocabulary as llguidance and xgrammar write it. A token is allowed if bit `id % 32`
of word `id // 32` is set. Words after the vocabulary's last are ignored."""

OUT_OF_REACH = np.float32(-1e30)
"""Stands for -inf where sums are to stay finite."""

_LEAST = float(np.finfo(np.float32).min)
_HAIR = 2.0**-50

_BYTE_LIMITS = np.where(
    np.unpackbits(np.arange(256, dtype=np.uint8)[:, None], axis=1, bitorder="little") > 0,
    np.float32(np.inf),
    np.float32(-np.inf),
)
"""The limits of eight tokens for each value of a mask's byte, shape (256, 8)."""


class ChangedLogits(NamedTuple):
    """Logits that biases and penalties change: `places` in the flat matrix (row * n_vocab + id),
    each once, with their values `before` and `after`. All of them are tokens that masks allow."""

    places: Places
    before: Logits
    after: Logits


class RowMasks(NamedTuple):
    """Masks of some rows, at least one. `rows` are in rising order, `words` have shape (len(rows),
    n_vocab / 32 or more). Other rows allow every token."""

    rows: Counts
    words: MaskWords

    def of(self, row: int) -> MaskWords | None:
        """The words of one row; None if it allows every token."""
        at = self.rows.searchsorted(row)
        return self.words[at] if at < len(self.rows) and self.rows[at] == row else None

    def allow(self, rows: Places, ids: Places) -> NDArray[np.bool_]:
        """Whether each of the tokens `ids` is allowed in its row. The arrays are broadcast."""
        last = max(int(rows.max(initial=-1)), int(self.rows[-1]))
        at = np.full(last + 1, -1, np.intp)
        at[self.rows] = np.arange(len(self.rows))
        of_rows = at[rows]
        bits = self.words[of_rows, ids >> 5] >> (ids & 31) & 1
        allowed: NDArray[np.bool_] = (of_rows < 0) | (bits > 0)
        return allowed

    def forbid(self, values: Logits, ids: Places) -> None:
        """Set forbidden tokens to -inf. `values` and `ids` have shape (n_rows, n_found)."""
        ids = ids[self.rows]
        bits = np.take_along_axis(self.words, ids >> 5, axis=1) >> (ids & 31) & 1
        values[self.rows] = np.where(bits > 0, values[self.rows], -np.inf)


class Candidates(NamedTuple):
    """Tokens of some rows. `rows` are in rising order, `counts` says how many tokens each has. The
    other arrays have shape (len(rows), counts.max()), by rising id, padded at the end with -inf."""

    rows: Counts
    counts: Counts
    ids: Places
    logits: Logits


class CandidateFinder(Protocol):
    """One way to find the largest logits of rows. Belongs to the engine thread.

    Removing a finder changes no token: the next one in the tuple answers its rows.
    """

    def find(
        self, logits: Logits, k: Counts, changed: ChangedLogits, masks: RowMasks | None
    ) -> Candidates | None:
        """The candidates of the rows for which this finder is certain; None if there are none.

        The candidates of row i hold at least its `k[i]` largest logits and every tie with the
        smallest of these. `k` is 0 for rows that are not asked for. `logits` (n_rows, n_vocab) are
        contiguous; `changed` take the place of those in `logits`, and tokens that `masks` forbid
        count as -inf. No candidate that `k[i]` can reach is -inf. `logits` may be written
        meanwhile, and are as before on return.

        A finder answers only if it has seen that no logit of the row is NaN or +inf. The last
        finder of a tuple raises `DecodeFailed` for such a row.
        """
        ...


@contextmanager
def apply_temporarily(changed: ChangedLogits, flat: Logits) -> Iterator[None]:
    """Write changed logits into the flat matrix, and restore it at the end."""
    if not len(changed.places):
        yield
        return
    flat[changed.places] = changed.after
    try:
        yield
    finally:
        flat[changed.places] = changed.before


def masked(row: Logits, words: MaskWords, memory: Logits | None = None) -> Logits:
    """A copy of one row with -inf for the tokens that its words forbid. NaN stays NaN.

    `memory` of shape (32 * len(words),) holds the result; new memory costs as much as the work.
    """
    limits = np.empty(32 * len(words), np.float32) if memory is None else memory
    np.take(_BYTE_LIMITS, words.view(np.uint8), axis=0, out=limits.reshape(-1, 8), mode="clip")
    copied = limits[: len(row)]
    np.minimum(row, copied, out=copied)
    return copied


def certain_candidates(ids: Places, values: Logits, least: Logits, k: Counts) -> Candidates | None:
    """The rows whose `k` first tokens are certainly among the found ones; None if there are none.

    `ids` and `values` have shape (n_rows, n_found), by rising id; a changed or forbidden token has
    its new value. No token that was not found is above its row's `least` (n_rows,).
    """
    n_found = ids.shape[1]
    wanted = (k > 0) & (k < n_found)
    if not wanted.any():
        return None
    reached = kth_largest(values, k if wanted.all() else np.where(wanted, k, 1))
    certain = least < tie_bounds(reached, values.max(axis=1))
    certain &= reached > OUT_OF_REACH
    certain &= wanted
    rows = certain.nonzero()[0]
    if not len(rows):
        return None
    if len(rows) < len(ids):
        ids, values = ids[rows], values[rows]
    return Candidates(rows, np.full(len(rows), n_found), ids, values)


def kth_largest(values: Logits, k: Counts) -> Logits:
    """Of each row its `k`-th largest value; 1 ≤ k ≤ the row's length."""
    places = values.shape[1] - k
    distinct = sorted(set(places.tolist()))
    ranked = np.partition(values, distinct, axis=1)
    kth: Logits
    kth = ranked[:, distinct[0]] if len(distinct) == 1 else ranked[np.arange(len(places)), places]
    return kth


def tie_bounds(reached: Logits, *best: Logits) -> Logits:
    """Bounds for logits that reach `reached` or tie with one that does, and are not -inf.

    Ties are of scores, a logit minus the row's best: near zero scores tell fewer values apart than
    logits do. Where the best one is not known, two values are given that it lies between.
    """
    bounds = reached - np.abs(reached) * _HAIR
    for some in best:
        bounds -= np.abs(some) * _HAIR
    return np.maximum(bounds, _LEAST)


def tie_bound(reached: float, best: float) -> np.float32:
    """`tie_bounds` of one row."""
    return np.float32(max(reached - (abs(reached) + abs(best)) * _HAIR, _LEAST))
