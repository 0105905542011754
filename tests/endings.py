"""The end of a run by SIGTERM."""

import contextlib
import signal
import threading
from collections.abc import Iterator


@contextlib.contextmanager
def unwound() -> Iterator[None]:
    """SIGTERM raises `KeyboardInterrupt` within, as Ctrl-C does, so that what the run has started
    is ended. It would end this process alone. A run's own handler is left in place."""
    is_main = threading.current_thread() is threading.main_thread()
    if not is_main or signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL:
        yield
        return
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
