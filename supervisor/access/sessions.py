"""Sessions of browsers, as signed texts. Pure: the clock is given."""

import base64
import hashlib
import hmac
import secrets
from collections.abc import Callable

import msgspec
from msgspec import Struct

LIFE_S = 12 * 3600
"""A working day: then its person signs in again."""

_MAX_TEXT = 1024
_MAX_ENDED = 10_000


class Session(Struct, frozen=True, array_like=True):
    """`holder` is the identity of the key, or of the run's token, that the session stands for.

    `expires` is unix time in seconds.
    """

    holder: str
    expires: int
    nonce: str


_decoder = msgspec.json.Decoder(Session)


class Sessions:
    """Opens, reads and ends sessions.

    A session's text holds the session and a signature, and nothing is kept: fronts with one secret
    know each other's sessions. It never holds a key. Of sessions that were ended before they
    expired, the latest 10,000 are kept.
    """

    def __init__(self, secret: bytes, wall: Callable[[], float]) -> None:
        """`wall` gives unix time in seconds."""
        self._secret = hashlib.sha256(b"gpufc session\0" + secret).digest()
        self._wall = wall
        self._ended: dict[str, None] = {}

    def open(self, holder: str) -> str:
        """The text of a new session: letters, digits, `-`, `_` and a dot."""
        session = Session(holder, int(self._wall()) + LIFE_S, secrets.token_hex(8))
        body = _armoured(msgspec.json.encode(session))
        return f"{body}.{self._signature(body)}"

    def read(self, text: str) -> Session | None:
        """The session of a text; None if it is not ours, has expired or was ended."""
        body, _, signature = text.partition(".")
        if len(text) > _MAX_TEXT or not text.isascii():
            return None
        if not hmac.compare_digest(signature, self._signature(body)):
            return None
        session = _decoder.decode(_bare(body))
        if session.expires <= self._wall() or session.nonce in self._ended:
            return None
        return session

    def end(self, text: str) -> None:
        """Accept the session of a text no more."""
        session = self.read(text)
        if session is None:
            return
        self._ended[session.nonce] = None
        while len(self._ended) > _MAX_ENDED:
            del self._ended[next(iter(self._ended))]

    def _signature(self, body: str) -> str:
        return _armoured(hmac.digest(self._secret, body.encode(), "sha256"))


def _armoured(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def _bare(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
