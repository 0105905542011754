"""Threads of the worker process. None of them dies silently."""

import logging
import os
import threading
from collections.abc import Callable
from typing import Never

from engine_worker import time_slice

logger = logging.getLogger(__name__)

EXIT_THREAD_DIED = 70


def start(name: str, run: Callable[[], None]) -> None:
    """Run it in a thread. An exception that escapes from it ends the process at once."""

    def run_or_end() -> None:
        try:
            time_slice.choose(None)  # it may be the thread that computes which starts this one
            run()
        except BaseException:
            logger.critical("thread_died name=%s", name, exc_info=True)
            end_process(EXIT_THREAD_DIED)

    threading.Thread(target=run_or_end, name=name, daemon=True).start()


def end_process(code: int) -> Never:
    """End now. An ordinary exit would wait for threads that may be inside the C library."""
    logging.shutdown()
    os._exit(code)
