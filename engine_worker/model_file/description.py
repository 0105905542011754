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

# llama.h, enum llama_ftype
_FILE_TYPES = {
    0: "F32", 1: "F16", 2: "Q4_0", 3: "Q4_1", 7: "Q8_0", 8: "Q5_0", 9: "Q5_1", 10: "Q2_K",
    11: "Q3_K_S", 12: "Q3_K_M", 13: "Q3_K_L", 14: "Q4_K_S", 15: "Q4_K_M", 16: "Q5_K_S",
    17: "Q5_K_M", 18: "Q6_K", 19: "IQ2_XXS", 20: "IQ2_XS", 21: "Q2_K_S", 22: "IQ3_XS",
    23: "IQ3_XXS", 24: "IQ1_S", 25: "IQ4_NL", 26: "IQ3_S", 27: "IQ3_M", 28: "IQ2_S",
    29: "IQ2_M", 30: "IQ4_XS", 31: "IQ1_M", 32: "BF16", 36: "TQ1_0", 37: "TQ2_0",
    38: "MXFP4",
}  # fmt: skip


def quantization(file_type: int) -> str:
    """The name of a file's usual weights, by `general.file_type`."""
    return _FILE_TYPES.get(file_type, "unknown")


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
