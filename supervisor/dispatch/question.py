"""One question to a worker: a prompt to be tokenized, tokens to be spelt, inputs to be embedded."""

import hashlib
from collections.abc import Callable
from typing import Protocol

import msgspec

from gpufc.errors import RequestError
from gpufc.ids import Epoch, RequestNo
from gpufc.protocol import Detokenized, Embed, Embedded, Prepare, Prepared, ToWorker

Answer = Prepared | Detokenized | Embedded


class Asked(Protocol):
    """A worker, as far as a question needs one."""

    @property
    def epoch(self) -> Epoch: ...
    def send(self, message: ToWorker) -> None: ...
    def explain_deaths(self, count: int) -> None: ...


class Question:
    """One question. Exactly one of `answered` and `failed` is called, unless it is dropped."""

    def __init__(
        self,
        no: RequestNo,
        message: Callable[[Epoch], ToWorker],
        *,
        answered: Callable[[Answer], None],
        failed: Callable[[RequestError], None],
        since: float,
        is_computed: bool = False,
    ) -> None:
        """`since`: when it was first put (monotonic seconds). With `is_computed`, the engine thread
        answers it."""
        self.no = no
        self.is_computed = is_computed
        self.message = message
        self.answered = answered
        self.failed = failed
        self.since = since
        self.asked_at = since
        self.n_deaths = 0

    @property
    def fingerprint(self) -> bytes:
        """Equal for questions about the same prompt, tokens or inputs."""
        message = self.message(Epoch(0))
        match message:
            case Prepare():
                return _digest((message.prompt, message.constraint))
            case Embed():
                return _digest((message.inputs, message.truncate))
            case _:
                return _digest((message, self.no))


def _digest(subject: object) -> bytes:
    return hashlib.sha256(msgspec.msgpack.encode(subject)).digest()
