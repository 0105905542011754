"""llama.cpp's log lines as Python log records.

llama.cpp gives the reason of a failure only in its log, so the last errors are kept here.
"""

import logging
from collections import deque

logger = logging.getLogger("engine_worker.llama_cpp")

# enum ggml_log_level
_DEBUG, _INFO, _WARN, _ERROR, _CONT = 1, 2, 3, 4, 5
_LEVELS = {_INFO: logging.DEBUG, _WARN: logging.WARNING, _ERROR: logging.WARNING}

_NO_MEMORY = ("out of memory", "failed to allocate", "unable to allocate")
"""Said by CUDA, by the KV cache and compute buffers, and by weights."""

_HARMLESS = ("possible training context overflow", "model default pooling_type is")
"""Said of every cache with more cells than the trained context. No request gets that many. And said
of every embedder of a model whose header names no pooling."""


class LlamaLog:
    """Gathers pieces into lines. Called by llama.cpp from any thread, under the GIL.

    llama.cpp's INFO becomes DEBUG, its WARN and ERROR become WARNING. Its DEBUG, a line for each
    node of the graph, is dropped. `flash_attention` is llama.cpp's decision for `auto` in the
    newest context; None if llama.cpp has not said.
    """

    def __init__(self) -> None:
        self._level = _DEBUG
        self._pending = ""
        self._errors: deque[str] = deque(maxlen=8)
        self.flash_attention: bool | None = None

    def write(self, level: int, text: bytes | None) -> None:
        """One call of llama.cpp's log callback."""
        if level == _DEBUG or (level == _CONT and self._level == _DEBUG):
            self._level = _DEBUG
            return
        if level != _CONT:
            self._flush()
            self._level = level
        self._pending += (text or b"").decode("utf-8", "replace")
        if self._pending.endswith("\n"):
            self._flush()

    def last_error(self) -> str:
        """The first error since `clear`, or the empty string. It names the cause; later errors are
        its consequences."""
        return next(iter(self._errors), "")

    @property
    def lacked_memory(self) -> bool:
        """Whether an error since `clear` says that memory could not be allocated."""
        return any(word in line for line in self._errors for word in _NO_MEMORY)

    def clear(self) -> None:
        """Forget the errors so far, before a new attempt."""
        self._errors.clear()
        self.flash_attention = None

    def _flush(self) -> None:
        line, self._pending = self._pending.strip(), ""
        if not line.strip("."):
            return
        if self._level == _ERROR:
            self._errors.append(line)
        self._note_flash_attention(line)
        level = _LEVELS.get(self._level, logging.DEBUG)
        is_harmless = any(words in line for words in _HARMLESS)
        logger.log(logging.DEBUG if is_harmless else level, "%s", line)

    def _note_flash_attention(self, line: str) -> None:
        # "resolve_fused_ops: Flash Attention enabled", or "… not supported, set to disabled"
        _, found, verdict = line.partition("Flash Attention ")
        if found and verdict.endswith(("enabled", "disabled")):
            self.flash_attention = verdict == "enabled"
