"""The rows of agents in a results file."""

import json

import pytest

from tests.clients.agents.__main__ import SHOWN, told
from tests.clients.agents.agent import CONTENT
from tests.clients.agents.relay import Exchange
from tests.clients.agents.runs import Ended, Run

ANSWER = json.dumps({"usage": {"input_tokens": 30, "cache_read_input_tokens": 12}})


def exchange(said: str, *, demanded: bool) -> Exchange:
    return Exchange("POST", "/v1/messages", {"messages": [said]}, 200, ANSWER, demanded)


def test_a_row_counts_requests_and_tokens_and_says_what_became_of_the_tool() -> None:
    asked = [exchange("Read.", demanded=True), exchange(CONTENT, demanded=False)]
    row = told("one", "1.2", Run(asked, Ended(0, "A heliotrope.")))
    assert row == (
        *("one", "1.2", "2 /v1/messages 200", "42"),
        *("its result was sent", "0", "A heliotrope."),
    )
    row = told("one", "1.2", Run(asked[:1], Ended(None, "")))
    assert row[4:] == ("was called", "not", "")
    assert told("one", "1.2", Run([], Ended(1, "")))[2:6] == ("none", "0", "none", "1")


@pytest.mark.parametrize(
    ("printed", "shown"),
    [
        ("\x1b[0m\x1b[2m1 | a\x1b[?25h\nb\x1b[38;5;2m", "1 / a b"),
        ("x" * 2 * SHOWN, "…" + "x" * SHOWN),
    ],
)
def test_what_is_printed_is_one_short_cell_without_a_terminal_s_sequences(
    printed: str, shown: str
) -> None:
    assert told("one", "1", Run([], Ended(0, printed)))[-1] == shown
