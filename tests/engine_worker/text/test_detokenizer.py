from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from engine_worker.text.detokenizer import REPLACEMENT, Detokenizer


def test_an_unfinished_character_is_held_back() -> None:
    detokenizer = Detokenizer()
    emoji = "🙂".encode()
    assert [detokenizer.feed(emoji[i : i + 1]) for i in range(4)] == ["", "", "", "🙂"]


def test_bytes_that_begin_no_character_are_replaced() -> None:
    assert Detokenizer().feed(b"a\xffb") == f"a{REPLACEMENT}b"


def test_incomplete_bytes_at_the_end_are_never_sent() -> None:
    assert Detokenizer().feed(b"ok \xf0\x9f\x99") == "ok "


@given(st.text(), st.data())
def test_any_cutting_of_text_gives_the_text(text: str, data: st.DataObject) -> None:
    raw = text.encode("utf-8", "ignore")
    cuts = sorted(data.draw(st.sets(st.integers(0, len(raw)), max_size=8)))
    edges = [0, *cuts, len(raw)]
    detokenizer = Detokenizer()
    parts = [detokenizer.feed(raw[a:b]) for a, b in pairwise(edges)]
    assert "".join(parts) == raw.decode()


@given(st.binary(max_size=20))
def test_any_cutting_of_any_bytes_gives_the_same(raw: bytes) -> None:
    detokenizer = Detokenizer()
    singly = "".join(detokenizer.feed(bytes((byte,))) for byte in raw)
    assert singly == Detokenizer().feed(raw)
