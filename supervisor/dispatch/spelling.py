"""Questions for the bytes of tokens, cut into messages of bounded size."""

from collections.abc import Iterable, Iterator, Sequence

from gpufc.protocol import Tokens

MOST_TOKENS = 16_384
"""Tokens of one message. The loop's thread writes its list, and reads the answer, in some ms."""


def in_messages(
    sequences: Iterable[Sequence[int]], most: int = MOST_TOKENS
) -> Iterator[tuple[list[int], tuple[Tokens, ...]]]:
    """The token lists, a long one in several parts: the parts of each message, and for each part
    the index of its list."""
    indices: list[int] = []
    parts: list[Tokens] = []
    left = most
    for index, tokens in enumerate(sequences):
        for at in range(0, max(1, len(tokens)), most):
            part = tuple(tokens[at : at + most])
            if len(part) > left or left == 0:
                yield indices, tuple(parts)
                indices, parts, left = [], [], most
            indices.append(index)
            parts.append(part)
            left -= max(1, len(part))
    if parts:
        yield indices, tuple(parts)


def joined(indices: Iterable[int], pieces: Iterable[bytes], texts: list[bytes]) -> None:
    """Add the answer to one message to the texts of all lists."""
    for index, piece in zip(indices, pieces, strict=True):
        if index == len(texts):
            texts.append(piece)
        else:
            texts[index] += piece
