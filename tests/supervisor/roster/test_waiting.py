"""What a client that waits for a model is told."""

import pytest

from supervisor.residency.port import Wait, WaitReason
from supervisor.roster.waiting import of_load, of_wait


@pytest.mark.parametrize(
    ("wait", "text"),
    [
        (Wait("m", WaitReason.LOADING, 0, 3.4), "loading, about 3 s"),
        (Wait("m", WaitReason.LOADING, 0, None), "loading"),
        (Wait("m", WaitReason.BUSY, 1, None), "waiting for memory: other models are busy"),
        (
            Wait("m", WaitReason.MEMORY_SETTLING, 2, 0.2),
            "waiting for memory that is being given back, place 2, about 1 s",
        ),
    ],
)
def test_a_wait_has_a_reason_a_place_and_a_time(wait: Wait, text: str) -> None:
    assert of_wait(wait) == text


@pytest.mark.parametrize("reason", sorted(WaitReason))
def test_every_reason_has_words(reason: WaitReason) -> None:
    assert of_wait(Wait("m", reason, 3, None)).endswith("place 3")


def test_a_load_tells_how_far_it_is() -> None:
    assert of_load(0.4, 12.0) == "loading, 40%, about 12 s"
    assert of_load(0.0, None) == "loading, 0%"
