"""The tokens that spell DRY's breakers, in a vocabulary that is easy to read."""

from typing import Any

from engine_worker.sampling.samplers.breakers import MAX_BREAKER_BYTES, MAX_TAIL, BreakerStore
from gpufc.ids import Epoch, RequestId, RequestNo
from gpufc.protocol import Generate
from gpufc.sampling import SamplingParams

WORDS = [b"a", b"b", b"ab", b"xa", b"aba", b"\n", b" \n\n", b"", "é".encode(), b"<|end|>"]


class Letters:
    """A vocabulary of `WORDS`. A text is tokenized letter by letter."""

    n_read = 0

    def spelling(self, token: int) -> bytes:
        self.n_read += 1
        return WORDS[token]

    def tokenize(self, text: str, **_: bool) -> list[int]:
        return [WORDS.index(letter.encode()) for letter in text if letter.encode() in WORDS]


def store() -> BreakerStore:
    return BreakerStore(Letters(), len(WORDS))


def spec(**given: Any) -> Generate:
    sampling = SamplingParams(seed=1, **given)
    return Generate(Epoch(1), RequestNo(1), RequestId("r"), 0, (1,), sampling)


def test_a_token_that_holds_a_breaker_is_one_by_itself() -> None:
    assert store().tails(["\n"]) == {5: ((),), 6: ((),)}
    assert store().tails(["<|end|>"]) == {9: ((),)}
    assert store().tails(["é"]) == {8: ((),)}


def test_a_breaker_may_begin_in_a_token_and_go_on_in_others() -> None:
    a, b = 0, 1
    assert store().tails(["ab"]) == {a: ((b,),), 2: ((),), 3: ((b,),), 4: ((),)}
    assert store().tails(["ba"]) == {b: ((a,),), 2: ((a,),), 4: ((),)}


def test_a_long_breaker_is_cut_as_llama_cpp_cuts_it() -> None:
    tails = store().tails(["a" + "b" * 100])
    assert tails[0] == ((1,) * MAX_TAIL,)
    assert tails == store().tails(["a" + "b" * (MAX_BREAKER_BYTES - 1)])


def test_texts_of_several_breakers_are_joined_and_an_empty_one_is_none() -> None:
    assert store().tails(["\n", "ab", ""])[0] == ((1,),)
    assert store().tails([""]) == {}


def test_a_sequence_is_ready_once_its_breakers_are_known() -> None:
    made = store()
    wanted = spec(dry_multiplier=1.0)
    assert not made.is_ready(wanted)
    made.make_ready(wanted)
    assert made.is_ready(wanted)
    assert not made.is_ready(spec(dry_multiplier=1.0, dry_sequence_breakers=("ab",)))
    for without in ({}, {"dry_multiplier": 1.0, "dry_penalty_last_n": 0}):
        assert store().is_ready(spec(**without))


def test_the_vocabulary_is_read_once() -> None:
    letters = Letters()
    made = BreakerStore(letters, len(WORDS))
    for text in ("a", "b", "a", "ab"):
        made.tails([text])
    assert letters.n_read == len(WORDS)
