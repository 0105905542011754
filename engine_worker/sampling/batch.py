"""All tokens of one engine step, chosen at once: exactly those that `Sampler.choose` gives.

What a row costs is reading it once, which the device does (`First`) or several threads share, be it
here (`Columns`) or by somebody else (`TopK`); everything after that works on the few candidates of
all rows together.
Rows whose chain needs more than the first `MAX_TOP_K` tokens go through `Sampler.choose`, one by
one.
"""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import chain

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from engine_worker import host
from engine_worker.backend.port import Backend, First, TopK
from engine_worker.backend.profile import profile_of
from engine_worker.sampling.adjustment import Adjusted, Changes, Logits, adjusted, applied, changes
from engine_worker.sampling.candidates import OUT_OF_REACH, Candidates, Columns, of_first, of_top
from engine_worker.sampling.chain import Counts, Scores, Steps, Table, draw
from engine_worker.sampling.sampler import Sampler, changed, unusable
from gpufc.errors import RequestError

MAX_TOP_K = 256
"""Above it, or without top-k, a row goes alone."""

SAMPLING_THREADS = 8
"""Most of them beside a device, no more than half of the cores; where the CPU computes, its cores
are taken."""

TOP_K_THREADS = 8
"""Threads from which on a backend's top-k, which takes longer and shares better, is the faster
one."""

TOP_K_ROWS = 16
"""Fewer are found sooner than many threads are woken."""

MAX_LEFT_OUT = 4
"""Rows that go alone because what a backend has found may not be all; more are sooner looked
through together."""

_CHUNK_LOGITS = 1 << 19
"""Logits that a thread folds at a time, 2 MiB; to wake a thread for less costs more."""


class Pick(Struct, frozen=True):
    """One row to choose from: whose it is, and where in the sequence.

    `history` begins with the `n_history` tokens before the chosen one, prompt included; what
    follows is not looked at, so that rows of one sequence can share a list. `position` counts the
    generated tokens before this one.
    """

    sampler: Sampler
    history: Sequence[int]
    n_history: int
    choice: int
    position: int


class Prepared(Struct, frozen=True):
    """All of a batch that can be known before its logits are. `prepare` makes it.

    `table` has the steps of each pick, `n_first` says how many tokens of a row its chain
    looks at, `uniforms` are the random numbers. Rows of `alone` go alone; `changes` are what biases
    and penalties do to the others, or to the only one.
    """

    picks: Sequence[Pick]
    is_argmax: bool
    table: Table
    alone: NDArray[np.bool_]
    n_first: Counts
    uniforms: Scores
    changes: Changes


def sampler_for(backend: Backend) -> "BatchSampler":
    """With as many threads as the host can spare beside this backend."""
    facts = backend.facts
    n_threads = min(SAMPLING_THREADS, host.usable_cores() // 2) if profile_of(facts).overlaps else 1
    top_k = backend.top_k(n_threads) if n_threads >= TOP_K_THREADS else None
    return BatchSampler(facts.n_vocab, max(1, n_threads), top_k, backend.first)


def prepare(picks: Sequence[Pick]) -> Prepared:
    """Do beforehand, while a device computes the logits, what does not take them."""
    steps = chain.from_iterable([pick.sampler.steps for pick in picks])
    table = Table(np.fromiter(steps, np.float64).reshape(len(picks), len(Steps._fields)))
    alone = table.top_k > MAX_TOP_K
    is_argmax = all(pick.sampler.is_argmax for pick in picks)
    return Prepared(
        picks,
        is_argmax,
        table,
        alone,
        np.where(alone, 1, table.top_k).astype(np.intp),
        np.array([] if is_argmax else [_uniform(pick) for pick in picks], np.float64),
        _changes(picks),
    )


class BatchSampler:
    """Owned by the engine thread. Its memory is used again at every step: a sixteenth of the logits
    there ever were at once, and while it chooses some hundred KiB a row at the most."""

    def __init__(
        self,
        n_vocab: int,
        n_threads: int,
        top_k: TopK | None = None,
        first: Callable[[], First | None] = lambda: None,
        top_k_rows: int = TOP_K_ROWS,
    ) -> None:
        """`n_threads` in all, the caller's one included. `close` ends the others, and `top_k`,
        which finds the first tokens of `top_k_rows` and more, where it can and `first` has not."""
        self._top_k, self._top_k_rows = top_k, top_k_rows
        self._backends_first = first
        self._columns = Columns(n_vocab)
        self._maxima = np.empty((0, self._columns.n_columns), np.float32)
        self._n_helpers = n_threads - 1
        self._helpers = ThreadPoolExecutor(max(1, self._n_helpers), "sampling")

    def close(self) -> None:
        """Ends the threads. Nothing can be chosen afterwards."""
        self._helpers.shutdown()
        if self._top_k is not None:
            self._top_k.close()

    def choose(self, logits: Logits, prepared: Prepared) -> list[int | RequestError]:
        """A token for each row of `logits`, shape (len(picks), n_vocab), contiguous. They are as
        before when it returns; biases and penalties may be written into them meanwhile.

        In the place of a token stands the `RequestError` that ends its request, if biases leave
        nothing to choose from. Raises `DecodeFailed` if any row has NaN or +inf, or no finite
        logit: then the whole batch is worth nothing.
        """
        if not prepared.picks:
            return []
        if prepared.is_argmax:
            return self._best(logits, prepared)
        if len(prepared.picks) == 1:  # the way of many rows costs one more than it saves
            return [_choose_alone(logits, prepared, 0)]
        chosen = self._choose_from_first(logits, prepared)
        return [
            chosen[row] if row in chosen else _choose_alone(logits, prepared, row)
            for row in range(len(logits))
        ]

    def _best(self, logits: Logits, prepared: Prepared) -> list[int | RequestError]:
        found = self._found_beforehand(logits, prepared)
        if found is not None and len(found.rows) == len(logits):
            # by rising id, of which argmax takes the first
            best_of = found.ids[np.arange(len(logits)), found.logits.argmax(axis=1)]
            return list(best_of.tolist())
        ids = np.empty(len(logits), np.intp)
        with changed(logits.reshape(-1), prepared.changes):
            self._share(logits, lambda rows: logits[rows].argmax(axis=1, out=ids[rows]))
            best = logits[np.arange(len(ids)), ids]
        chosen: list[int | RequestError] = list(ids.tolist())
        for row in (~np.isfinite(best)).nonzero()[0].tolist():
            chosen[row] = _choose_alone(logits, prepared, row)  # it knows whose fault that is
        return chosen

    def _fold(self, logits: Logits) -> Logits:
        if len(self._maxima) < len(logits):
            self._maxima = np.empty((len(logits), self._columns.n_columns), np.float32)
        maxima = self._maxima[: len(logits)]
        self._share(logits, lambda rows: self._columns.fold(logits[rows], maxima[rows]))
        return maxima

    def _share(self, logits: Logits, work: Callable[[slice], object]) -> None:
        """Have all threads do the work on all rows."""
        n_rows, n_vocab = logits.shape
        step = max(1, _CHUNK_LOGITS // n_vocab)
        # one iterator for all: each thread takes the next chunk when it has done one
        chunks = iter(range(0, n_rows, step))

        def take_part() -> None:
            for start in chunks:
                work(slice(start, start + step))

        n_helpers = min(self._n_helpers, (n_rows - 1) // step)
        helping = [self._helpers.submit(take_part) for _ in range(n_helpers)]
        take_part()
        for helper in helping:
            helper.result()

    def _choose_from_first(self, logits: Logits, prepared: Prepared) -> dict[int, int]:
        """The tokens of all rows, by row, but of those that need much of their row or have none."""
        found = self._first(logits, prepared)
        if not len(found.rows):
            return {}
        scores = found.logits.astype(np.float64)
        scores -= scores.max(axis=1, keepdims=True)
        rows = found.rows
        table, uniforms = prepared.table, prepared.uniforms
        if len(rows) < len(table):
            table, uniforms = table.of(rows), uniforms[rows]
        places = draw(scores, found.counts, table, uniforms)
        ids = found.ids[np.arange(len(rows)), places]
        return dict(zip(rows.tolist(), ids.tolist(), strict=True))

    def _found_beforehand(self, logits: Logits, prepared: Prepared) -> Candidates | None:
        """The candidates of all rows for which the backend's suffice, if there are any."""
        first = self._backends_first()
        return None if first is None else _from_first(first, logits, prepared)

    def _first(self, logits: Logits, prepared: Prepared) -> Candidates:
        """The candidates of all rows where these are few."""
        found = self._found_beforehand(logits, prepared)
        if found is not None:
            return found
        top_k = self._top_k
        if len(logits) < self._top_k_rows or prepared.alone.all():
            top_k = None
        found = None if top_k is None else _from_top(top_k, logits, prepared)
        if found is not None:
            return found
        maxima = self._fold(logits)
        best = maxima.max(axis=1)
        if not np.isfinite(best).all():
            raise unusable()
        if top_k is not None:
            # it could not tell about sound logits, nor will it: who masks tokens does so always
            top_k.close()
            self._top_k = None
        maxima[prepared.alone] = -np.inf
        becoming = adjusted(logits.reshape(-1), prepared.changes)
        return self._columns.first(logits, maxima, best, becoming, prepared.n_first)


def _from_first(first: First, logits: Logits, prepared: Prepared) -> Candidates | None:
    """What the backend has found, but for rows that need more of it; None where these are many, or
    some logits are not finite."""
    if not np.isfinite(first.sums).all():
        return None
    flat = logits.reshape(-1)
    places, values = adjusted(flat, prepared.changes)
    fits = ~prepared.alone & (prepared.n_first < first.ids.shape[1])
    raised = places[values > flat[places]]
    if len(raised):
        fits[raised // logits.shape[1]] = False
    lowered = Adjusted(places, np.maximum(values, OUT_OF_REACH))
    found = of_first(logits, first, lowered, fits, prepared.n_first)
    n_together = np.count_nonzero(~prepared.alone)
    return found if found and n_together - len(found.rows) <= MAX_LEFT_OUT else None


def _from_top(top_k: TopK, logits: Logits, prepared: Prepared) -> Candidates | None:
    """What `TopK` finds; None where it cannot tell, or some logits are not finite."""
    flat = logits.reshape(-1)
    places, values = adjusted(flat, prepared.changes)
    if not np.isfinite(flat[places]).all():
        return None
    with applied(flat, Adjusted(places, np.maximum(values, OUT_OF_REACH))):
        top = top_k.first(logits, int(prepared.n_first.max()) + 1)
        if top is None or not np.isfinite(top.sums).all():
            return None
        return of_top(logits, top.ids, ~prepared.alone)


def _changes(picks: Sequence[Pick]) -> Changes:
    rows, adjustments, recents = [], [], []
    for row, pick in enumerate(picks):
        adjustment = pick.sampler.adjustment
        is_alone = pick.sampler.steps.top_k > MAX_TOP_K and len(picks) > 1
        if adjustment is not None and not is_alone:
            rows.append(row)
            adjustments.append(adjustment)
            recents.append(adjustment.recent(pick.history, pick.n_history))
    return changes(picks[0].sampler.n_vocab if picks else 0, rows, adjustments, recents)


def _uniform(pick: Pick) -> float:
    return pick.sampler.uniform(pick.choice, pick.position)


def _choose_alone(logits: Logits, prepared: Prepared, row: int) -> int | RequestError:
    pick = prepared.picks[row]
    wanted = None
    if pick.sampler.adjustment is not None:
        is_only = len(prepared.picks) == 1
        wanted = prepared.changes if is_only else pick.sampler.changes(pick.history, pick.n_history)
    try:
        return pick.sampler.choose_by(logits[row], wanted, prepared.uniforms[row : row + 1])
    except RequestError as err:
        return err
