"""From a plan to what a backend computes, and to the rows that are chosen from. Pure."""

from collections.abc import Iterator
from functools import cache

from engine_worker.backend.port import Batch
from engine_worker.sampling.batch import Pick
from engine_worker.sampling.sampler import Sampler
from engine_worker.scheduling.plan import Plan, Work
from gpufc.sampling import SamplingParams


def batch_of(plan: Plan) -> Batch:
    """All tokens of a plan, in the order of its work."""
    batch = Batch([], [], [], [])
    for work in plan.work:
        sequence = work.sequence
        slot, start = work.start
        stop = start + work.count
        if work.count == 1 and not work.draft:  # most of all, and a device waits meanwhile
            # of one that lingers the end token may be next, which is not among its own
            batch.tokens.append(sequence.tokens[min(start, len(sequence.tokens) - 1)])
            batch.positions.append(start)
            batch.sequences.append(slot)
            batch.outputs.append(work.n_rows == 1)
            continue
        batch.tokens += sequence.tokens[start:stop]
        batch.tokens += work.draft
        count = work.count + len(work.draft)
        batch.positions += range(start, start + count)
        batch.sequences += [slot] * count
        batch.outputs += [False] * (count - work.n_rows)
        batch.outputs += [True] * work.n_rows
        if plan.n_decoding and work.count > 1:
            batch.chunks.add(slot)
            batch.in_one_pass = plan.in_one_pass
    return batch


def picks(work: Work) -> Iterator[Pick]:
    """A row to choose from for the last computed token, and for each guess after it."""
    sequence = work.sequence
    if work.padding:
        yield Pick(_nobodys(sequence.sampler.n_vocab), (), 0, choice=0, position=0)
        return
    history = [*sequence.tokens, *work.draft] if work.draft else sequence.tokens
    for at in range(work.n_rows):
        yield Pick(
            sequence.sampler,
            history,
            len(sequence.tokens) + at,
            sequence.spec.choice,
            sequence.n_generated + at,
        )


@cache
def _nobodys(n_vocab: int) -> Sampler:
    """The cheapest."""
    return Sampler(SamplingParams(seed=0, temperature=0.0), n_vocab)
