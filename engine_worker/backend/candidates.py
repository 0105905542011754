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


class FewTokens(NamedTuple):
    """All tokens of rows with short masks: `ids` (len(rows), counts.max()), rising, padded with 0.
    `rows` are in rising order."""

    rows: Counts
    counts: Counts
    ids: Places


class RowMasks(NamedTuple):
    """Masks of some rows, at least one. `rows` are in rising order, `words` have shape (len(rows),
    n_vocab / 32 or more). Other rows allow every token. `few` has the rows with short masks."""

    rows: Counts
    words: MaskWords
    few: FewTokens | None = None

    def of(self, row: int) -> MaskWords | None:
        """The words of one row; None if it allows every token."""
        at = self.rows.searchsorted(row)
        return self.words[at] if at < len(self.rows) and self.rows[at] == row else None

    def among(self, rows: Counts) -> "RowMasks | None":
        """Those of these rows, which are rising, by their places among them; None without any."""
        if len(rows) == len(self.rows) and (rows == self.rows).all():
            return RowMasks(np.arange(len(rows)), self.words)
        _, own, places = np.intersect1d(self.rows, rows, assume_unique=True, return_indices=True)
        return RowMasks(places, self.words[own]) if len(own) else None

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
        is_every_row = len(self.rows) == len(values)  # the most frequent case: a device waits
        ids = ids if is_every_row else ids[self.rows]
        places = (ids >> 5) + np.arange(0, self.words.size, self.words.shape[1])[:, None]
        bits = self.words.reshape(-1).take(places) >> (ids & 31) & 1
        if is_every_row:
            values[bits == 0] = -np.inf
        else:
            values[self.rows] = np.where(bits > 0, values[self.rows], -np.inf)


class Candidates(NamedTuple):
    """Tokens of some rows. `rows` are in rising order, `counts` says how many tokens each has. The
    other arrays have shape (len(rows), counts.max() or more), by rising id, filled up with -inf.

    `unseen` (len(rows),) is None where the candidates of all rows hold what `k` asks for. Otherwise
    it is -inf for such rows, and finite for a row with fewer than `k` candidates: no other token of
    the row has a larger logit. `ranked` has the logits of each row in rising order; None where they
    are not sorted.
    """

    rows: Counts
    counts: Counts
    ids: Places
    logits: Logits
    unseen: Logits | None = None
    ranked: Logits | None = None

    def of(self, kept: NDArray[np.bool_] | Counts) -> "Candidates":
        """The candidates of the kept rows."""
        unseen = None if self.unseen is None else self.unseen[kept]
        ranked = None if self.ranked is None else self.ranked[kept]
        return Candidates(
            *(self.rows[kept], self.counts[kept], self.ids[kept], self.logits[kept]),
            *(unseen, ranked),
        )


def joined(first: Candidates | None, second: Candidates | None) -> Candidates | None:
    """The candidates of both, which have no row in common."""
    if first is None or second is None:
        return second if first is None else first
    both = (first, second)
    width = max(one.ids.shape[1] for one in both)
    missing = [((0, 0), (0, width - one.ids.shape[1])) for one in both]
    ids = [np.pad(one.ids, pad) for one, pad in zip(both, missing, strict=True)]
    logits = [
        np.pad(one.logits, pad, constant_values=-np.inf)
        for one, pad in zip(both, missing, strict=True)
    ]
    unseen = [
        np.full(len(one.rows), -np.inf, np.float32) if one.unseen is None else one.unseen
        for one in both
    ]
    is_seen = first.unseen is None and second.unseen is None
    made = Candidates(
        np.concatenate([one.rows for one in both]),
        np.concatenate([one.counts for one in both]),
        np.concatenate(ids),
        np.concatenate(logits),
        None if is_seen else np.concatenate(unseen),
    )
    return made.of(made.rows.argsort())


def few_candidates(
    logits: Logits, k: Counts, changed: ChangedLogits, masks: RowMasks | None
) -> Candidates | None:
    """The rows of `RowMasks.few` that are asked for, with all of their tokens that are not -inf.

    Rows without such a token are left out. The arguments are as in `CandidateFinder.find`; the
    caller has seen that the logits are sound.
    """
    few = None if masks is None else masks.few
    if few is None:
        return None
    wanted = k[few.rows] > 0
    rows, ids = few.rows[wanted], few.ids[wanted]
    if not len(rows):
        return None
    with apply_temporarily(changed, logits.reshape(-1)):
        values = logits[rows[:, None], ids]
    values[np.arange(ids.shape[1]) >= few.counts[wanted][:, None]] = -np.inf
    counts = np.count_nonzero(values > -np.inf, axis=1)
    found = Candidates(rows, counts, ids, values)
    return found if counts.all() else found.of(counts > 0)


class CandidateFinder(Protocol):
    """One way to find the largest logits of rows. Belongs to the engine thread.

    Removing a finder changes no token: the next one in the tuple answers its rows.
    """

    def find(
        self, logits: Logits, k: Counts, changed: ChangedLogits, masks: RowMasks | None
    ) -> Candidates | None:
        """The candidates of the rows for which this finder is certain; None if there are none.

        The candidates of row i hold at least its `k[i]` largest logits and every tie with the
        smallest of these, or they are fewer and the row has an `unseen` logit. `k` is 0 for rows
        that are not asked for. `logits` (n_rows, n_vocab) are contiguous; `changed` take the place
        of those in `logits`, and tokens that `masks` forbid count as -inf. No candidate that `k[i]`
        can reach is -inf. `logits` may be written meanwhile, and are as before on return.

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


def certain_candidates(
    ids: Places, values: Logits, least: Logits | None, k: Counts, partly: Counts | None = None
) -> Candidates | None:
    """The rows whose `k` first tokens are certainly among the found ones; None if there are none.

    `ids` and `values` have shape (n_rows, n_found), by rising id; a changed or forbidden token has
    its new value. No token that was not found is above its row's `least` (n_rows,), which is the
    smallest value if it is None. Rows in `partly` are given with fewer tokens as well, and need a
    `least`.
    """
    found = _all_certain(ids, values, least, k)
    if partly is None or least is None:
        return found
    is_open = np.zeros(len(ids), np.bool_)
    is_open[partly] = k[partly] > 0
    if found is not None:
        is_open[found.rows] = False
    counts: Counts = np.count_nonzero(values > OUT_OF_REACH, axis=1)
    is_open &= (counts > 0) & (counts < k)
    if not is_open.any():
        return found
    unseen = np.where(is_open, least, -np.inf)
    if found is not None:
        counts[found.rows] = found.counts
        is_open[found.rows] = True
    return Candidates(np.arange(len(ids)), counts, ids, values, unseen).of(is_open)


def _all_certain(ids: Places, values: Logits, least: Logits | None, k: Counts) -> Candidates | None:
    n_found = ids.shape[1]
    wanted = (k > 0) & (k < n_found)
    is_all = bool(wanted.all())
    if not (is_all or wanted.any()):
        return None
    ranked = np.sort(values, axis=1)
    reached = ranked[np.arange(len(k)), n_found - (k if is_all else np.where(wanted, k, 1))]
    certain = (ranked[:, 0] if least is None else least) < tie_bounds(reached, ranked[:, -1])
    certain &= reached > OUT_OF_REACH
    certain &= wanted
    rows = certain.nonzero()[0]
    if not len(rows):
        return None
    if len(rows) < len(ids):
        ids, values, ranked = ids[rows], values[rows], ranked[rows]
    return Candidates(rows, np.full(len(rows), n_found), ids, values, None, ranked)


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
