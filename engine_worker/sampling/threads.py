"""Threads that share a pass over the rows of a matrix of logits."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

CHUNK_LOGITS = 1 << 19
"""Logits that a thread takes at a time, 2 MiB. Measured: waking a thread for less costs more."""


class RowThreads:
    """A pool for one caller at a time. `close` ends its threads."""

    def __init__(self, n_threads: int) -> None:
        """`n_threads` includes the caller's."""
        self._n_helpers = n_threads - 1
        self._helpers = ThreadPoolExecutor(max(1, self._n_helpers), "sampling")

    def share(self, n_rows: int, n_vocab: int, work: Callable[[slice], object]) -> None:
        """Call `work` with slices that together cover all rows, in several threads."""
        step = max(1, CHUNK_LOGITS // n_vocab)
        # one iterator for all threads: each takes the next chunk when its last one is done
        chunks = iter(range(0, n_rows, step))

        def take_part() -> None:
            for start in chunks:
                work(slice(start, start + step))

        n_helpers = min(self._n_helpers, (n_rows - 1) // step)
        helping = [self._helpers.submit(take_part) for _ in range(n_helpers)]
        take_part()
        for helper in helping:
            helper.result()

    def close(self) -> None:
        self._helpers.shutdown()
