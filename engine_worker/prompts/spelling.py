"""From token ids to the bytes that they stand for."""

from collections.abc import Callable, Iterable

from gpufc.errors import InvalidRequest
from gpufc.protocol import Tokens

MAX_SPELT_BYTES = 16 << 20
"""Of one answer: some vocabularies have tokens of hundreds of bytes."""

_LOOK_EVERY = 4096


def spelt(
    sequences: Iterable[Tokens],
    spelling: Callable[[int], bytes],
    n_vocab: int,
    look: Callable[[], None],
) -> tuple[bytes, ...]:
    """The bytes of each sequence, control tokens spelt out.

    `look` is called now and then, and may raise. Raises `InvalidRequest` for ids outside the
    vocabulary and more than `MAX_SPELT_BYTES`.
    """
    room, n_read = MAX_SPELT_BYTES, 0
    texts = []
    for tokens in sequences:
        parts = []
        for token in tokens:
            if not 0 <= token < n_vocab:
                raise InvalidRequest("a token id is outside the vocabulary", param="tokens")
            parts.append(spelling(token))
            room -= len(parts[-1])
            if room < 0:
                raise InvalidRequest(
                    f"the text would be larger than {MAX_SPELT_BYTES} bytes", param="tokens"
                )
            n_read += 1
            if n_read % _LOOK_EVERY == 0:
                look()
        texts.append(b"".join(parts))
    return tuple(texts)
