"""The protocol of one worker process, apart from the socket under it.

The first message must be a hello with the right token, epoch and pid. After that, messages of
another epoch are dropped, and an undecodable one breaks the link for good. The worker's state is
unknown here: messages are handed over, and a broken protocol is reported.
"""

import hmac
import logging
from collections import Counter
from collections.abc import Callable

from gpufc import wire
from gpufc.errors import LinkError
from gpufc.ids import Epoch
from gpufc.protocol import PROTOCOL_VERSION, FromWorker, Hello

logger = logging.getLogger(__name__)

MAX_HELLO_BYTES = 4096

MessageListener = Callable[[FromWorker], None]
BrokenListener = Callable[[str, bool], None]
"""Called once at most, with the fault and whether a new process might do better."""


class Peer:
    """The process that was started. After it has broken the protocol, its messages are dropped."""

    def __init__(
        self, epoch: Epoch, token: str, *, on_message: MessageListener, on_broken: BrokenListener
    ) -> None:
        self.dropped: Counter[str] = Counter()
        self.is_broken = False
        self._epoch = epoch
        self._token = token.encode()
        self._pid: int | None = None
        self._on_message = on_message
        self._on_broken = on_broken

    def expect(self, pid: int) -> None:
        """Accept the hello of this process. Until then no hello is accepted."""
        self._pid = pid

    def greet(self, data: wire.Buffer) -> bool:
        """Hand over a hello, the first message of a connection. False if it proves nothing."""
        if self.is_broken:
            self.dropped["after_break"] += 1
            return False
        hello = self._hello_in(data)
        if hello is None:
            self.dropped["stranger"] += 1
            if self.dropped["stranger"] == 1:  # one line each would flood the log
                logger.warning("message_dropped reason=stranger epoch=%d", self._epoch)
            return False
        if hello.protocol != PROTOCOL_VERSION:
            self.fail(
                f"the worker speaks protocol {hello.protocol}, the front {PROTOCOL_VERSION}: "
                "they are of different versions of gpufc",
                retryable=False,
            )
            return False
        self._on_message(hello)
        return True

    def receive(self, data: wire.Buffer) -> None:
        """Hand over a later message."""
        if self.is_broken:
            self.dropped["after_break"] += 1
            return
        try:
            message = wire.decode_from_worker(data)
        except LinkError as err:
            self.fail(str(err))
            return
        if message.epoch != self._epoch:
            self.dropped["stale"] += 1
            return
        self._on_message(message)

    def fail(self, detail: str, *, retryable: bool = True) -> None:
        """The link is broken for good. Reported once."""
        if not self.is_broken:
            self.is_broken = True
            self._on_broken(detail, retryable)

    def _hello_in(self, data: wire.Buffer) -> Hello | None:
        """The hello of the process that was started; None for any other message."""
        if len(data) > MAX_HELLO_BYTES:
            return None
        try:
            hello = wire.decode_from_worker(data)
        except LinkError:
            return None
        if not isinstance(hello, Hello):
            return None
        proven = hmac.compare_digest(hello.token.encode(), self._token)
        return hello if proven and hello.epoch == self._epoch and hello.pid == self._pid else None
