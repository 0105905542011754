"""Incremental UTF-8 decoding: a token may end within a character."""

import codecs

REPLACEMENT = "\ufffd"


class Detokenizer:
    """The text of one sequence, fed in order.

    The text returned so far depends on the bytes fed so far, not on how they were cut into pieces.
    Bytes of an unfinished character are held back, and dropped if the sequence ends there. Bytes
    that cannot begin a character become U+FFFD.
    """

    def __init__(self) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")

    def feed(self, piece: bytes) -> str:
        """The text that `piece` completes, possibly empty."""
        return self._decoder.decode(piece)
