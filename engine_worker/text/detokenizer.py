"""Bytes of tokens to text, one token at a time. A character may be spread over several tokens."""

import codecs

REPLACEMENT = "\ufffd"


class Detokenizer:
    """Incremental UTF-8 of one sequence. Owned by whoever feeds it; fed in order.

    What is fed so far determines what has been returned, however it was cut into pieces: the
    bytes of an unfinished character are held back, bytes that can begin no character become
    U+FFFD. What is still held back at the end is dropped: a client never sees a broken character.
    """

    def __init__(self) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")

    def feed(self, piece: bytes) -> str:
        """The text that `piece` completes, possibly empty."""
        return self._decoder.decode(piece)
