from collections.abc import Sequence

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from engine_worker.backend.embedder import PassLimits, Span, Vector
from engine_worker.embedding.queue import Done, EmbeddingQueue
from engine_worker.prompts.embedding_inputs import Wanted
from gpufc.ids import Epoch, RequestNo

LIMITS = PassLimits(n_inputs=3, n_tokens=16, may_split=True)


def wanted(no: int, *lengths: int) -> Wanted:
    """Inputs whose tokens are all different."""
    inputs = tuple(
        tuple(range(1000 * no + 100 * at, 1000 * no + 100 * at + n)) for at, n in enumerate(lengths)
    )
    return Wanted(Epoch(1), RequestNo(no), inputs)


class Sums:
    """Computes the sum of an input's tokens; checks slots and positions."""

    def __init__(self) -> None:
        self.begun: dict[int, list[int]] = {}

    def compute(self, spans: Sequence[Span]) -> list[Vector]:
        found = []
        assert len({span.slot for span in spans}) == len(spans)
        for span in spans:
            tokens = self.begun.pop(span.slot, [])
            assert span.start == len(tokens)
            tokens = [*tokens, *span.tokens]
            if span.is_last:
                found.append(np.array([sum(tokens)], np.float32))
            else:
                self.begun[span.slot] = tokens
        return found


def run(queue: EmbeddingQueue, sums: Sums, allowance: int) -> list[Done]:
    done = []
    while not queue.is_idle:
        spans = queue.plan(allowance)
        assert spans
        done += queue.computed(spans, sums.compute(spans))
    return done


@given(
    lengths=st.lists(st.lists(st.integers(1, 40), min_size=1, max_size=5), min_size=1, max_size=5),
    allowance=st.integers(1, 30),
)
def test_every_request_gets_the_vectors_of_its_inputs_in_their_order(
    lengths: list[list[int]], allowance: int
) -> None:
    queue, requests = EmbeddingQueue(LIMITS), [wanted(no, *n) for no, n in enumerate(lengths)]
    for each in requests:
        queue.add(each)
    done = run(queue, Sums(), allowance)
    assert [one.wanted for one in done] == requests
    for one in done:
        sums = [float(vector[0]) for vector in one.vectors]
        assert sums == [sum(tokens) for tokens in one.wanted.inputs]


def test_a_plan_that_was_not_computed_is_made_again() -> None:
    queue = EmbeddingQueue(LIMITS)
    queue.add(wanted(1, 40, 2))
    assert queue.plan(8) == queue.plan(8)
    assert queue.requests(2) == {1}


def test_a_removed_request_leaves_the_others_and_tells_its_begun_slot() -> None:
    queue, sums = EmbeddingQueue(LIMITS), Sums()
    for each in (wanted(1, 40), wanted(2, 3)):
        queue.add(each)
    spans = queue.plan(8)
    queue.computed(spans, sums.compute(spans))
    (slot,) = queue.remove(RequestNo(1))
    del sums.begun[slot]
    assert [one.wanted.request for one in run(queue, sums, 8)] == [2]
    assert queue.remove(RequestNo(1)) == []


def test_all_can_be_removed_at_once() -> None:
    queue = EmbeddingQueue(LIMITS)
    for each in (wanted(1, 3, 3), wanted(2, 3)):
        queue.add(each)
    assert queue.remove() == []
    assert queue.is_idle
    assert queue.plan(8) == []
