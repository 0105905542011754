"""All tokens of one engine step, chosen at once: exactly those that `Sampler.choose` gives.

Finders reduce each row to a few candidates; the chain then works on the candidates of all rows
together. `Sampler.choose_by` samples a row by itself: a row with a top-k above `MAX_TOP_K`, a row
that no finder has answered, and the only row of a step. `Sampler.choose` samples a row whose
samplers are not a plain chain.

A row with a `guide` is drawn without its mask first. `second_choice` draws the refused ones again.
"""

from collections.abc import Iterator, Mapping, Sequence
from itertools import chain
from typing import Self

import numpy as np
from msgspec import Struct, structs

from engine_worker import host
from engine_worker.backend.candidates import (
    CandidateFinder,
    Candidates,
    ChangedLogits,
    Counts,
    Logits,
    MaskWords,
    RowMasks,
)
from engine_worker.backend.port import Backend
from engine_worker.backend.profile import profile_of
from engine_worker.constraints.guide import Guide
from engine_worker.sampling.argmax import Argmax
from engine_worker.sampling.bias import BiasPlan, plan_biases
from engine_worker.sampling.chain import Scores, Steps, Table, draw
from engine_worker.sampling.columns import Columns
from engine_worker.sampling.few_allowed import FewAllowed, few_tokens
from engine_worker.sampling.reach import reaches_of
from engine_worker.sampling.sampler import AGAIN, Sampler
from engine_worker.sampling.samplers.row_chain import DRAW
from engine_worker.sampling.threads import RowThreads
from engine_worker.sampling.unseen import without_unseen
from gpufc.errors import RequestError

MAX_TOP_K = 256
"""Rows with a larger top-k, or none, and rows with other samplers are sampled one by one."""

SAMPLING_THREADS = 8
"""At most this many threads sample while a device computes, and at most half of the cores. Where
the CPU computes, sampling has one thread."""

MAX_LEFT_OUT = 4
"""Up to this many rows that a finder leaves out are sampled one by one. More rows go to the next
finder."""


class Pick(Struct, frozen=True):
    """One row to choose from, and its place in the sequence.

    `history` begins with the `n_history` tokens before the chosen one, prompt included. Later
    tokens in it are not looked at, so that the rows of one sequence share a list. `position` counts
    the generated tokens before this one. A token that `mask` forbids is never chosen; with drafts
    each row has the mask that holds after the tokens guessed before it.

    With a `guide`, `BatchSampler` leaves the mask, if there is one, out of account: its caller asks
    `refuses`, and makes the second choice (`second_choice`).
    """

    sampler: Sampler
    history: Sequence[int]
    n_history: int
    choice: int
    position: int
    mask: MaskWords | None = None
    guide: Guide | None = None

    def refuses(self, token: int) -> bool:
        """Whether the token, drawn freely, is to be drawn again within the mask."""
        if self.guide is None:
            return False
        if self.mask is None:
            return not self.guide.allows(token)
        return not self.mask[token >> 5] >> (token & 31) & 1


class Together(Struct, frozen=True):
    """The arrays by which rows are chosen together. `table` has the steps of each pick, `k` the
    number of tokens that its chain looks at: 0 if the row is sampled by itself, or not at all. The
    rows with more are `n_together`. `uniforms` are the random numbers. If every row `is_argmax`,
    none is drawn."""

    is_argmax: bool
    table: Table
    k: Counts
    n_together: int
    uniforms: Scores

    @classmethod
    def of(cls, picks: Sequence[Pick], uniforms: Sequence[float]) -> Self:
        steps = chain.from_iterable([pick.sampler.steps for pick in picks])
        table = Table(np.fromiter(steps, np.float64).reshape(len(picks), len(Steps._fields)))
        k = table.top_k.copy()
        k[k > MAX_TOP_K] = 0
        is_argmax = all([pick.sampler.is_argmax for pick in picks])
        return cls(is_argmax, table, k, int(np.count_nonzero(k)), np.array(uniforms))

    def again(self, rows: Sequence[int], uniforms: Sequence[float]) -> Self:
        """Those of a second choice from some of the rows."""
        k = np.zeros_like(self.k)
        k[rows] = self.k[rows]
        n_together = int(np.count_nonzero(k))
        return structs.replace(self, k=k, n_together=n_together, uniforms=np.array(uniforms))


class Prepared(Struct, frozen=True):
    """The part of a step's sampling that needs no logits. Made by `prepare`.

    A token is chosen for each of `rows`, in rising order. `uniforms` are the random numbers of the
    picks. `plan` has the changes of the rows together, or of the only row. `together` is None in a
    step of one row, which needs none of its arrays.
    """

    picks: Sequence[Pick]
    rows: Sequence[int]
    uniforms: Sequence[float]
    plan: BiasPlan
    masks: RowMasks | None
    together: Together | None


def sampler_for(backend: Backend) -> "BatchSampler":
    """The sampler of this backend, with as many threads as the host can spare."""
    facts = backend.facts
    n_threads = (
        min(SAMPLING_THREADS, host.usable_cores() // 2) if profile_of(facts).on_device else 1
    )
    n_threads = max(1, n_threads)
    return BatchSampler(facts.n_vocab, n_threads, backend.finders(n_threads))


def prepare(picks: Sequence[Pick]) -> Prepared:
    """The part of the sampling that needs no logits. A device computes these meanwhile.

    Raises `ValueError` for a mask with fewer bits than the vocabulary has tokens.
    """
    masks = _masks(picks, range(len(picks)))
    plan = _plan(picks)
    if masks is not None and len(plan.places):
        plan = plan.within(masks, picks[0].sampler.n_vocab)
    uniforms = [_uniform(pick) for pick in picks]
    together = Together.of(picks, uniforms) if len(picks) > 1 else None
    return Prepared(picks, range(len(picks)), uniforms, plan, masks, together)


def second_choice(first: Prepared, masks: Mapping[int, MaskWords]) -> Prepared:
    """The choice from some of a step's rows again, within their masks, which are given by rising
    row. It draws with random numbers that are independent of the first ones.

    The first choice of a row is from `p`, and a token that the mask forbids is refused. So a token
    is the result with probability `p(token) + p(refused) q(token)`, where `q` is the distribution
    within the mask. Where the chain truncates nothing that is `q` itself: rejection sampling.
    """
    rows = list(masks)
    picks = list(first.picks)
    for row, mask in masks.items():
        picks[row] = structs.replace(picks[row], mask=mask, guide=None)
    uniforms = list(first.uniforms)
    for row in rows:
        uniforms[row] = _uniform(picks[row], AGAIN)
    row_masks, plan = _masks(picks, rows), first.plan
    if row_masks is not None and len(plan.places):
        plan = plan.within(row_masks, picks[0].sampler.n_vocab)
    return structs.replace(
        first,
        picks=picks,
        rows=rows,
        uniforms=uniforms,
        plan=plan,
        masks=row_masks,
        together=None if first.together is None else first.together.again(rows, uniforms),
    )


class BatchSampler:
    """Owned by the engine thread. Its result does not depend on `finders` nor on `n_threads`."""

    def __init__(
        self, n_vocab: int, n_threads: int, finders: Sequence[CandidateFinder] = ()
    ) -> None:
        """`n_threads` includes the caller's thread. `finders` are asked in order, before the
        sampler's own."""
        self._threads = RowThreads(n_threads)
        self._finders: tuple[CandidateFinder, ...] = (
            *finders,
            FewAllowed(self._threads),
            Argmax(self._threads),
            Columns(n_vocab, self._threads),
        )

    def close(self) -> None:
        """End the threads. No token can be chosen afterwards."""
        self._threads.close()

    def choose(self, logits: Logits, prepared: Prepared) -> list[int | RequestError]:
        """A token for each of `rows` of `logits`, shape (len(picks), n_vocab), contiguous. They are
        as before on return; biases and penalties may be written into them meanwhile.

        A row without any token left has the `RequestError` that ends its request. Raises
        `DecodeFailed` if any row has NaN, +inf or no finite logit: the whole step is unusable.
        """
        rows, together = prepared.rows, prepared.together
        if together is None or len(rows) <= 1:  # so many calls take longer than they save
            return [_choose_alone(logits, prepared, row) for row in rows]
        chosen: dict[int, int] = {}
        changed = prepared.plan.on(logits.reshape(-1))
        for found in self._find(logits, together, changed, prepared.masks):
            reaches = self._reaches(logits, together.table, changed, prepared.masks, found.rows)
            tokens: list[int] = _drawn(found, together, reaches).tolist()
            if len(tokens) == len(rows):
                return list(tokens)
            chosen.update(zip(found.rows.tolist(), tokens, strict=True))
        return [
            chosen[row] if row in chosen else _choose_alone(logits, prepared, row) for row in rows
        ]

    def _find(
        self, logits: Logits, together: Together, changed: ChangedLogits, masks: RowMasks | None
    ) -> Iterator[Candidates]:
        """Ask the finders, until at most `MAX_LEFT_OUT` rows are left. Each row is found once."""
        left = together.k
        if not together.n_together:
            return
        for finder in self._finders:
            found = finder.find(logits, left, changed, masks)
            if found is not None and found.unseen is not None:
                found = without_unseen(found, together.table.of(found.rows))
            if found is None or not len(found.rows):
                continue
            yield found
            left = left.copy()
            left[found.rows] = 0
            if np.count_nonzero(left) <= MAX_LEFT_OUT:
                return

    def _reaches(
        self,
        logits: Logits,
        table: Table,
        changed: ChangedLogits,
        masks: RowMasks | None,
        rows: Counts,
    ) -> Scores | None:
        """The reaches of rows that were found; None if top-n-sigma is off in all of the step."""
        if not table.is_n_sigma:
            return None
        return reaches_of(logits, rows, table.top_n_sigma[rows], changed, masks, self._threads)


def _drawn(found: Candidates, together: Together, reaches: Scores | None) -> Counts:
    """The chosen token of each row that was found."""
    if together.is_argmax:
        if found.ids.shape[1] == 1:
            return found.ids[:, 0]
        # candidates are by rising id, and argmax takes the first of equals
        places = found.logits.argmax(axis=1)
    else:
        scores, ranked = _scores(found)
        table, uniforms = together.table, together.uniforms
        if len(found.rows) < len(table):
            table, uniforms = table.of(found.rows), uniforms[found.rows]
        places = draw(scores, found.counts, table, uniforms, reaches=reaches, ranked=ranked)
    ids: Counts = found.ids[np.arange(len(places)), places]
    return ids


def _scores(found: Candidates) -> tuple[Scores, Scores | None]:
    """The candidates' scores for the chain, and in falling order if they are sorted."""
    scores = found.logits.astype(np.float64)
    if found.ranked is None:
        scores -= scores.max(axis=1, keepdims=True)
        return scores, None
    falling = found.ranked[:, ::-1].astype(np.float64)
    best = falling[:, :1].copy()
    scores -= best
    falling -= best
    return scores, falling


def _plan(picks: Sequence[Pick]) -> BiasPlan:
    rows, biases, penalized = [], [], []
    for row, pick in enumerate(picks):
        bias = pick.sampler.bias
        is_alone = pick.sampler.steps.top_k > MAX_TOP_K and len(picks) > 1
        if bias is not None and not is_alone:
            rows.append(row)
            biases.append(bias)
            penalized.append(bias.penalized(pick.history, pick.n_history))
    return plan_biases(picks[0].sampler.n_vocab if picks else 0, rows, biases, penalized)


def _masks(picks: Sequence[Pick], rows: Sequence[int]) -> RowMasks | None:
    """Those of the rows that are drawn within a mask."""
    of_rows = [(row, picks[row]) for row in rows]
    given = [
        (row, pick.mask) for row, pick in of_rows if pick.mask is not None and pick.guide is None
    ]
    if not given:
        return None
    n_vocab = picks[0].sampler.n_vocab
    n_words = -(-n_vocab // 32)
    if min(mask.size for _, mask in given) < n_words:
        raise ValueError(f"a mask has fewer bits than the vocabulary has tokens ({n_vocab})")
    words = np.stack([mask.reshape(-1)[:n_words] for _, mask in given])
    words.view(np.uint32)[:, -1] &= 0xFFFFFFFF >> -n_vocab % 32
    masked = np.array([row for row, _ in given], np.intp)
    return RowMasks(masked, words, few_tokens(masked, words))


def _uniform(pick: Pick, purpose: str = DRAW) -> float:
    return pick.sampler.uniform(pick.choice, pick.position, purpose)


def _choose_alone(logits: Logits, prepared: Prepared, row: int) -> int | RequestError:
    pick = prepared.picks[row]
    mask = None if prepared.masks is None else prepared.masks.of(row)
    sampler, plan = pick.sampler, prepared.plan
    try:
        if not sampler.is_plain:
            place = (pick.choice, pick.position)
            return sampler.choose(logits[row], pick.history, *place, mask, pick.n_history)
        if len(prepared.picks) > 1:
            plan = sampler.plan(pick.history, pick.n_history, mask)
        return sampler.choose_by(logits[row], plan, prepared.uniforms[row], mask)
    except RequestError as err:
        return err
