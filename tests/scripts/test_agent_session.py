"""The agent's session: what is sent, and what its table says."""

from scripts.lab.agent_session import COLUMNS, N_TOOLS, Session, Turn, ratios, rows

OURS = [[Turn(9.0, 100, 0.0, ""), Turn(1.0, 120, 0.97, ""), Turn(2.0, 140, 0.96, "")]]
THEIRS = [[Turn(1.0, 90, 0.0, ""), Turn(2.0, 110, 0.5, ""), Turn(8.0, 130, 0.99, "")]]


def test_the_first_turn_counts_neither_for_the_share_nor_for_the_ratio() -> None:
    found = {"ours": OURS, "theirs": THEIRS}
    table = rows(found)
    assert all(len(row) == len(COLUMNS) for row in table)
    assert table[0] == ("1", "ours", "100 to 100", "0.0%", "9000", "9000")
    assert table[-2:] == [
        ("from 2", "ours", "120 to 140", "96.0%", "", "1500"),
        ("from 2", "theirs", "110 to 130", "50.0%", "", "5000"),
    ]
    assert ratios(found, "ours", "theirs") == "0.38 (0.25 to 0.50)"


def test_both_sides_of_a_round_have_the_same_rules_tools_and_wish() -> None:
    one, other, later = (Session("http://none", seed, 8, 0.1) for seed in (1, 1, 2))
    assert one.opening == other.opening != later.opening
    assert len(one.opening["tools"]) == N_TOOLS
