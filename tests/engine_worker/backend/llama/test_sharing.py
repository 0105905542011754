from collections.abc import Callable

from engine_worker.backend.llama.sharing import (
    AGREEING_S,
    FEW_TOKENS,
    FIRST_STAY,
    TRIES,
    SharedCores,
)

Seconds = Callable[[int, int], float]
"""The seconds of a pass by its tokens and threads."""


def alone(n_tokens: int, n_threads: int) -> float:
    return n_tokens / n_threads


def beside_one(n_tokens: int, n_threads: int) -> float:
    """Two cores, one other process: a second thread waits for the core that it shares."""
    return n_tokens * (1.0 if n_threads == 1 else 1.4)


def passes(cores: SharedCores, count: int, seconds: Seconds, n_tokens: int = 1) -> list[int]:
    """Compute passes; the number of threads of each."""
    used = []
    for _ in range(count):
        n_threads = cores.threads(n_tokens)
        cores.computed(n_tokens, n_threads, seconds(n_tokens, n_threads))
        used.append(n_threads)
    return used


def crowded(n_threads: int = 2, n_cores: int = 2, others: float = 1.0) -> SharedCores:
    cores = SharedCores(n_threads, n_threads, n_cores)
    cores.used(others, AGREEING_S)
    return cores


def test_all_threads_compute_on_cores_of_their_own() -> None:
    cores = SharedCores(2, 2, 2)
    for _ in range(10):
        cores.used(0.3, 0.25)
    assert passes(cores, 100, alone) == [2] * 100


def test_prompts_have_threads_of_their_own_number() -> None:
    cores = SharedCores(15, 16, 16)
    assert [cores.threads(n_tokens) for n_tokens in (1, 8, FEW_TOKENS, 512)] == [15, 15, 15, 16]
    cores.used(4.0, AGREEING_S)
    assert set(passes(cores, 3 * TRIES, alone, 512)) == {16, 12, 8}
    assert set(passes(cores, 3 * TRIES, alone, 1)) == {15, 12, 7}


def test_a_process_on_the_spared_core_competes_with_prompts_alone() -> None:
    cores = SharedCores(15, 16, 16)
    cores.used(1.0, AGREEING_S)
    assert set(passes(cores, 3 * TRIES, alone, 512)) == {16, 15, 8}
    assert set(passes(cores, 3 * TRIES, alone, 1)) == {15}
    assert not cores.is_crowded


def test_beside_another_process_the_fastest_number_stays() -> None:
    used = passes(crowded(), 2 * TRIES + FIRST_STAY, beside_one)
    assert used[: 2 * TRIES].count(2) == TRIES
    assert used[2 * TRIES :] == [1] * FIRST_STAY


def test_all_threads_stay_where_they_are_fastest_all_the_same() -> None:
    used = passes(crowded(), 2 * TRIES + FIRST_STAY, alone)
    assert used[2 * TRIES :] == [2] * FIRST_STAY


def test_it_looks_again_ever_more_rarely() -> None:
    used = passes(crowded(), 10_000, beside_one)
    assert used.count(2) < 20 * TRIES
    later = used[5_000:]
    assert 0 < later.count(2) <= 6 * TRIES


def test_a_choice_is_made_for_each_size_of_pass() -> None:
    cores = crowded()

    def seconds(n_tokens: int, n_threads: int) -> float:
        return alone(n_tokens, n_threads) if n_tokens > 64 else beside_one(n_tokens, n_threads)

    passes(cores, 2 * TRIES, seconds, 1)
    passes(cores, 2 * TRIES, seconds, 128)
    assert cores.threads(1) == 1
    assert cores.threads(128) == 2


def test_a_short_burst_changes_nothing() -> None:
    cores = SharedCores(2, 2, 2)
    cores.used(1.0, AGREEING_S / 2)
    cores.used(0.0, AGREEING_S / 2)
    cores.used(1.0, AGREEING_S / 2)
    assert not cores.is_crowded
    cores.used(1.0, AGREEING_S / 2)
    assert cores.is_crowded


def test_all_threads_are_back_when_the_others_have_gone() -> None:
    cores = crowded()
    passes(cores, 100, beside_one)
    cores.used(0.1, AGREEING_S)
    assert passes(cores, 10, alone) == [2] * 10


def test_what_others_use_of_spare_cores_is_no_competition() -> None:
    assert not crowded(8, 16, 8.4).is_crowded
    assert crowded(8, 16, 8.6).is_crowded


def test_on_many_cores_as_many_threads_as_cores_are_free_are_tried() -> None:
    cores = crowded(16, 16, 3.1)
    tried = passes(cores, 3 * TRIES, lambda _tokens, n_threads: abs(13 - n_threads) + 1.0)
    assert set(tried) == {16, 13, 8}
    assert cores.threads(1) == 13


def test_with_no_core_free_one_thread_is_tried() -> None:
    assert min(passes(crowded(2, 2, 7.0), 2 * TRIES, alone)) == 1
