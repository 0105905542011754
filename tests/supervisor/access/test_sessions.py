"""Sessions: signed, of limited life, ended for good. And which page a request is for."""

import pytest

from supervisor.access.origin import counts_cookies, is_own
from supervisor.access.sessions import LIFE_S, Sessions
from tests.supervisor.access.test_keys import Clock


def test_a_session_is_known_to_every_front_with_its_secret() -> None:
    wall = Clock()
    text = Sessions(b"secret", wall).open("me#1")
    read = Sessions(b"secret", wall).read(text)
    assert read is not None
    assert (read.holder, read.expires) == ("me#1", 100 + LIFE_S)
    assert Sessions(b"another", wall).read(text) is None


def test_a_changed_text_is_no_session() -> None:
    sessions = Sessions(b"secret", Clock())
    text = sessions.open("me#1")
    other = sessions.open("me#2")
    changed = [text[:at] + chr(ord(text[at]) ^ 1) + text[at + 1 :] for at in range(len(text))]
    swapped = other.partition(".")[0] + "." + text.partition(".")[2]
    for wrong in ("", ".", "..", text[:-1], text + "x", "é" + text, swapped, "x" * 5000, *changed):
        # the last digits of base64 hold bits that mean nothing
        assert sessions.read(wrong) is None or wrong == text, wrong


def test_a_session_expires() -> None:
    wall = Clock()
    sessions = Sessions(b"secret", wall)
    text = sessions.open("me")
    wall.now += LIFE_S - 1
    assert sessions.read(text) is not None
    wall.now += 1
    assert sessions.read(text) is None


def test_an_ended_session_stays_ended_and_no_other_one_ends() -> None:
    sessions = Sessions(b"secret", Clock())
    first, second = sessions.open("me"), sessions.open("me")
    sessions.end(first)
    sessions.end("no session")
    assert sessions.read(first) is None
    assert sessions.read(second) is not None


HOST = {"Host": "127.0.0.1:8082"}
OWN = {"Origin": "http://127.0.0.1:8082"}


@pytest.mark.parametrize(
    ("headers", "own"),
    [
        ({}, None),
        (HOST, None),
        (HOST | OWN, True),
        ({"Host": "GPU.lan:8082", "Origin": "http://gpu.LAN:8082"}, True),
        (HOST | {"Origin": "http://127.0.0.1:3000"}, False),
        (HOST | {"Origin": "http://127.0.0.1"}, False),
        (HOST | {"Origin": "null"}, False),
        (HOST | {"Origin": ""}, False),
        ({"Origin": ""}, False),
        (HOST | {"Origin": "http://["}, False),
        (HOST | {"Sec-Fetch-Site": "same-origin", "Origin": "null"}, True),
        (HOST | OWN | {"Sec-Fetch-Site": "same-site"}, False),
        (HOST | OWN | {"Sec-Fetch-Site": "cross-site"}, False),
        (HOST | OWN | {"Sec-Fetch-Site": "none"}, False),
    ],
)
def test_a_browser_says_which_page_a_request_is_for(
    headers: dict[str, str], own: bool | None
) -> None:
    assert is_own(headers) is own
    assert counts_cookies("POST", headers) is (own is True)
    assert counts_cookies("GET", headers)
