"""The least of many changing keys, without a scan. Pure."""

import heapq
from typing import Generic, TypeVar

from gpufc.ids import Epoch

KeyT = TypeVar("KeyT", bound=tuple[int, ...])

LOOK_AFTER = 64
"""Pushes after which the heap's size is looked at."""


class Ranking(Generic[KeyT]):
    """Workers by their keys.

    Invariant: for each worker the heap holds an entry with its present key. Entries with a former
    key are passed over when they come up, so a change costs one push.
    """

    def __init__(self) -> None:
        self._keys: dict[Epoch, KeyT] = {}
        self._heap: list[tuple[KeyT, Epoch]] = []
        self._n_pushed = 0

    def put(self, worker: Epoch, key: KeyT) -> None:
        """The worker's key from now on."""
        if self._keys.get(worker) == key:
            return
        self._keys[worker] = key
        heapq.heappush(self._heap, (key, worker))
        self._n_pushed += 1
        if self._n_pushed % LOOK_AFTER == 0 and len(self._heap) > 8 * len(self._keys):
            self._heap = [(key, one) for one, key in self._keys.items()]
            heapq.heapify(self._heap)

    def drop(self, worker: Epoch) -> None:
        """It is not ranked any more."""
        self._keys.pop(worker, None)

    def first(self) -> Epoch | None:
        """The worker with the least key; None without any."""
        heap, keys = self._heap, self._keys
        while heap:
            key, worker = heap[0]
            if keys.get(worker) == key:
                return worker
            heapq.heappop(heap)
        return None
