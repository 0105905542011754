"""The parent's side of a process that tokenizes what may end a process, or take it for ever.

It has the model's vocabulary only, is started when it is first needed and ends when idle for long.
"""

import logging
import time
from collections.abc import Callable

import msgspec

from engine_worker.disposable import CallCancelled, Child, ChildDied
from engine_worker.prompts.tokenizer import PrepareCancelled
from gpufc.errors import EngineUnavailable, InvalidRequest

logger = logging.getLogger(__name__)

START_TIMEOUT_S = 60.0
"""Until the vocabulary is read: a busy machine is not the text's fault."""
TIMEOUT_S = 60.0
CPU_S = 20
IDLE_S = 60.0
"""After so long without use the process ends: a vocabulary takes some 100 MiB."""

_encoder = msgspec.msgpack.Encoder()
_tokens = msgspec.msgpack.Decoder(list[int])


class TokenizerProcess:
    """Implements `tokenizer.Apart`. Used from one thread, which lives as long as the process."""

    def __init__(self, module: str, model_path: str) -> None:
        self._module, self._model_path = module, model_path
        self._child: Child | None = None
        self._used_at = 0.0

    def tokenize(self, piece: str, cancelled: Callable[[], bool]) -> list[int]:
        """Raises `InvalidRequest` for a text that ends the process or takes too long,
        `EngineUnavailable` if the process cannot be started, and `PrepareCancelled`."""
        data = piece.encode("utf-8", "replace")
        child = self._ready(cancelled)
        try:
            answer = child.call(data, TIMEOUT_S, cancelled)
        except CallCancelled:
            self.close()
            raise PrepareCancelled from None
        except (ChildDied, TimeoutError) as err:
            logger.warning("tokenizer_process_died reason=%s n_bytes=%d", err, len(data))
            self.close()
            raise InvalidRequest(
                f"the text has a stretch of {len(piece)} characters without a break, which the"
                " model's tokenizer cannot take",
            ) from None
        self._used_at = time.monotonic()
        return _tokens.decode(answer)

    def close_if_idle(self) -> None:
        """End the process if it has not been used for `IDLE_S`."""
        if time.monotonic() - self._used_at > IDLE_S:
            self.close()

    def close(self) -> None:
        """End the process, if there is one."""
        if self._child is not None:
            self._child.kill()
            self._child = None

    def _ready(self, cancelled: Callable[[], bool]) -> Child:
        if self._child is not None:
            return self._child
        try:
            self._child = Child(self._module, environ=_WITHOUT_GPU)
            setup = _encoder.encode((self._model_path, CPU_S))
            self._child.call(setup, START_TIMEOUT_S, cancelled)
        except CallCancelled:
            self.close()
            raise PrepareCancelled from None
        except (ChildDied, TimeoutError) as err:
            self.close()
            logger.error("tokenizer_process_failed reason=%s", err)
            raise EngineUnavailable(
                "The process for texts without breaks does not start", retry_after_s=5.0
            ) from None
        return self._child


_WITHOUT_GPU = {
    "CUDA_VISIBLE_DEVICES": "",
    "HIP_VISIBLE_DEVICES": "",
    "GGML_VK_VISIBLE_DEVICES": "",
}
"""A vocabulary needs none, and a driver's start would take seconds and gigabytes."""
