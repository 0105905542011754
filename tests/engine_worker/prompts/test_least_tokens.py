import random

from engine_worker.prompts.least_tokens import LeastTokens

BYTES = [bytes((byte,)) for byte in range(256)]


def test_a_run_counts_by_the_longest_token_with_its_byte() -> None:
    least = LeastTokens([*BYTES, b"AAAA", b"longest"])
    assert least.of(b"A" * 4000) in {999, 1000}
    assert least.of(b"o" * 7000) in {999, 1000}


def test_it_never_counts_more_than_there_are() -> None:
    rng = random.Random(3)
    tokens = [bytes(rng.choices(b"abcd ", k=rng.randint(1, 6))) for _ in range(50)]
    least = LeastTokens([*BYTES, *tokens])
    for _ in range(200):
        n = rng.randint(1, 200)
        assert least.of(b"".join(rng.choices(tokens, k=n))) <= n


def test_bytes_that_may_vanish_count_nothing() -> None:
    assert LeastTokens(BYTES, b" ").of(b" " * 1000) == 0


def test_nothing_is_known_where_a_token_may_stand_for_any_text() -> None:
    assert LeastTokens([b"word", b"a"]).of(b"a" * 1000) == 0
