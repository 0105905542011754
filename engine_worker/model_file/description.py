"""The part of a header that a client may be shown: bounded, and only values that JSON can hold."""

import math

from engine_worker.model_file.gguf_header import GgufHeader
from engine_worker.model_file.gguf_reader import Value
from gpufc.facts import Metadata

MAX_KEYS = 256
MAX_TEXT_CHARS = 2048
MAX_ELEMENTS = 128
"""Of an array: one number for each layer fits for all but the deepest models."""

_LEFT_OUT = ("tokenizer.chat_template",)
"""The beginnings of keys whose values are among the facts already."""


def described(header: GgufHeader) -> Metadata:
    """The first `MAX_KEYS` entries of the metadata that are short enough.

    The header comes from a file of unknown origin: its texts and arrays may have any size.
    """
    fitting = [
        (key, value)
        for key, value in header.metadata.items()
        if len(key) <= MAX_TEXT_CHARS and not key.startswith(_LEFT_OUT) and _fits(value)
    ]
    return dict(fitting[:MAX_KEYS])


def _fits(value: Value) -> bool:
    match value:
        case str():
            return len(value) <= MAX_TEXT_CHARS
        case float():
            return math.isfinite(value)
        case tuple():
            return len(value) <= MAX_ELEMENTS and all(math.isfinite(entry) for entry in value)
        case _:
            return True
