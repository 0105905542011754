"""Output that is held up: the caller goes on, texts are dropped and counted."""

import logging
import threading

from supervisor.outlet import Outlet, OutletHandler


class Held:
    """A sink that accepts nothing until it is let go."""

    def __init__(self) -> None:
        self.texts: list[str] = []
        self.is_reached = threading.Event()
        self.go = threading.Event()

    def write(self, text: str) -> None:
        self.is_reached.set()
        assert self.go.wait(60)
        self.texts.append(text)


def test_texts_are_dropped_and_counted_once_it_moves_again() -> None:
    outlet, sink = Outlet(capacity=3), Held()
    outlet.put(sink.write, "0\n")
    assert sink.is_reached.wait(60)
    for number in range(1, 9):
        outlet.put(sink.write, f"{number}\n")
    sink.go.set()
    outlet.close(60)
    dropped = "5 lines were dropped: the output was held up\n"
    assert sink.texts == ["0\n", dropped, "1\n", "2\n", "3\n"]


def test_closing_waits_for_a_held_sink_no_longer_than_told() -> None:
    outlet, sink = Outlet(capacity=1), Held()
    for _ in range(3):
        outlet.put(sink.write, "x")
    outlet.close(0.01)
    assert sink.texts == []
    sink.go.set()


def test_a_sink_that_fails_loses_its_own_text_only() -> None:
    texts: list[str] = []

    def full(text: str) -> None:
        raise OSError(28, "no space left")

    outlet = Outlet()
    outlet.put(full, "lost\n")
    outlet.put(texts.append, "kept\n")
    outlet.close(60)
    assert texts == ["kept\n", "1 lines were dropped: the output was held up\n"]


def test_a_faulty_log_call_does_not_end_its_caller() -> None:
    texts: list[str] = []
    outlet = Outlet()
    handler = OutletHandler(outlet, texts.append)
    handler.emit(logging.makeLogRecord({"name": "x", "msg": "%d", "args": ("no number",)}))
    outlet.close(60)
    assert len(texts) == 1
    assert texts[0].startswith("unprintable log record of x: ")
