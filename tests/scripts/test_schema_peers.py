"""The comparison of guided decoders: a process that does not start takes no schema with it."""

from collections import deque
from collections.abc import Collection
from typing import Any, ClassVar

import pytest

from scripts.lab import schema_peers
from scripts.lab.schema_peers import ENDED, Tally

LINES = [b"one", b"two", b"three"]


class Starts:
    """Processes of a decoder: some do not start, and some end at their first row."""

    def __init__(self, *, failing: Collection[int] = (), ending: Collection[int] = ()) -> None:
        self.failing, self.ending, self.n = failing, ending, 0

    def __call__(self, name: str, model: str, *, probes: bool) -> "_Started":
        self.n += 1
        if self.n in self.failing:
            raise RuntimeError("it does not start")
        return _Started(is_ending=self.n in self.ending)


class _Started:
    facts: ClassVar[dict[str, Any]] = {}

    def __init__(self, *, is_ending: bool) -> None:
        self._is_ending = is_ending

    def found(self, line: bytes) -> dict[str, Any]:
        return {"refused": ENDED if self._is_ending else line.decode()}

    def end(self) -> None: ...


def read(lines: deque[bytes], tally: Tally) -> None:
    schema_peers.read("any", lines, "model", tally, lambda: None, probes=False)


@pytest.mark.parametrize("failing", [1, 2])
def test_a_process_that_does_not_start_leaves_its_row_to_the_others(
    monkeypatch: pytest.MonkeyPatch, failing: int
) -> None:
    monkeypatch.setattr(schema_peers, "Child", Starts(failing={failing}, ending={1}))
    lines, tally = deque(LINES), Tally()
    with pytest.raises(RuntimeError, match="does not start"):
        read(lines, tally)
    read(lines, tally)
    assert tally.n["schemas"] == len(LINES)


def test_rows_that_are_read_need_no_further_process(monkeypatch: pytest.MonkeyPatch) -> None:
    starts = Starts(ending={1, 2, 3})
    monkeypatch.setattr(schema_peers, "Child", starts)
    tally = Tally()
    read(deque(LINES), tally)
    assert starts.n == tally.n["schemas"] == len(LINES)
