"""From parts to chunks: numbers, phases and counters."""

from hypothesis import given
from hypothesis import strategies as st

from gpufc.protocol import FinishReason
from supervisor.answers.parts import BEGUN, Ended, Part, Reasoning, Text
from supervisor.dispatch.stream import Usage
from supervisor.fabric.answer import Answer
from supervisor.fabric.codec import MAX_FRAME_BYTES, encode_frame
from supervisor.fabric.messages import OutputPhase


def usage(completion: int) -> Usage:
    return Usage(prompt=9, cached=0, completion=completion)


def test_reasoning_and_text_are_phases_of_their_own() -> None:
    answer = Answer("t")
    parts: list[Part] = [BEGUN, Reasoning("why"), Reasoning(" so"), Text("thus")]
    chunks = answer.chunks(parts, usage(5))
    chunks.append(answer.done(usage(6)))
    assert [(c.seq, c.phase, c.delta, c.done) for c in chunks] == [
        (0, OutputPhase.ANALYSIS, "why so", False),
        (1, OutputPhase.FINAL, "thus", False),
        (2, OutputPhase.FINAL, "", True),
    ]
    assert [(c.prompt_tokens, c.completion_tokens) for c in chunks] == [(9, 3), (9, 5), (9, 6)]
    assert [(c.analysis_tokens, c.final_tokens) for c in chunks] == [(3, 0), (3, 2), (3, 3)]


def test_parts_without_text_make_no_chunk() -> None:
    answer = Answer("t")
    assert answer.chunks([BEGUN, Ended(FinishReason.STOP)], usage(1)) == []
    assert answer.done(usage(1)).seq == 0


def test_a_task_that_never_ran_has_one_chunk_with_its_error() -> None:
    chunk = Answer("t").done(error="no")
    assert (chunk.seq, chunk.done, chunk.error, chunk.phase) == (0, True, "no", OutputPhase.UNKNOWN)
    assert chunk.completion_tokens == 0


def test_an_error_of_any_length_can_be_sent() -> None:
    assert len(encode_frame(Answer("t").done(error="x" * MAX_FRAME_BYTES))) < 2000


PIECES = st.lists(st.builds(Text, st.text(min_size=1)) | st.builds(Reasoning, st.text(min_size=1)))


@given(st.lists(st.tuples(PIECES, st.integers(0, 50))))
def test_counters_never_fall_and_add_up(events: list[tuple[list[Part], int]]) -> None:
    answer, n_tokens, chunks = Answer("t"), 0, []
    for parts, gained in events:
        n_tokens += gained
        chunks += answer.chunks(parts, usage(n_tokens))
    chunks.append(answer.done(usage(n_tokens)))
    assert [chunk.seq for chunk in chunks] == [*range(len(chunks))]
    assert [chunk.done for chunk in chunks] == [False] * (len(chunks) - 1) + [True]
    counts = [(c.analysis_tokens, c.final_tokens, c.completion_tokens) for c in chunks]
    for column in zip(*counts, strict=True):
        assert [*column] == sorted(column)
    assert all(a + f == c for a, f, c in counts)
    assert chunks[-1].completion_tokens == n_tokens
    text = "".join(part.text for parts, _ in events for part in parts if isinstance(part, Text))
    assert "".join(c.delta for c in chunks if c.phase is OutputPhase.FINAL) == text
