"""What llama-cpp-python's bindings lack of ggml: signatures for ctypes. The API is that of
ggml/include/ggml.h and ggml-backend.h."""

import ctypes
from collections.abc import Mapping, Sequence
from typing import Any

POINTER, INT, INT64, SIZE = ctypes.c_void_p, ctypes.c_int, ctypes.c_int64, ctypes.c_size_t
TEXT = ctypes.c_char_p

Signatures = Mapping[str, tuple[Any, Sequence[Any]]]
"""Of each function what it returns and what it takes."""


def bind(library: ctypes.CDLL, signatures: Signatures) -> bool:
    """Whether `library`, or one that it is linked with, exports all of them. Then they may be
    called through it."""
    try:
        for name, (result, arguments) in signatures.items():
            function = getattr(library, name)
            function.restype, function.argtypes = result, arguments
    except AttributeError:
        return False
    return True
