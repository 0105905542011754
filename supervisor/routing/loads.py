"""The open work of the workers of one fingerprint."""

import heapq

from msgspec import Struct

from gpufc.ids import Epoch


class Load(Struct):
    """One worker's open work: sequences, and tokens of their prompts that are not computed yet.

    `turn` is the number of the last sequence that it got; a lower one was longer ago.
    """

    capacity: int
    n_sequences: int = 0
    n_prefill: int = 0
    turn: int = 0

    @property
    def has_room(self) -> bool:
        return self.n_sequences < self.capacity


Key = tuple[int, int, int]


class Loads:
    """Every worker's load, and the least of them without a scan.

    Invariant: for each worker with room the heap holds an entry with its present key. Entries with
    a former key are passed over when they come up, so a change costs one push.
    """

    def __init__(self) -> None:
        self._loads: dict[Epoch, Load] = {}
        self._heap: list[tuple[Key, Epoch]] = []
        self._with_room: dict[Epoch, None] = {}
        self._turn = 0

    def __contains__(self, worker: Epoch) -> bool:
        return worker in self._loads

    def __getitem__(self, worker: Epoch) -> Load:
        """The worker's load, which only this object changes. Raises `KeyError`."""
        return self._loads[worker]

    def __len__(self) -> int:
        return len(self._loads)

    def add(self, worker: Epoch, capacity: int) -> None:
        """A worker without work that may have `capacity` sequences at once."""
        self._loads[worker] = Load(capacity)
        self._changed(worker)

    def resize(self, capacity: int) -> None:
        """Each worker may have so many sequences at once from now on."""
        for worker, load in self._loads.items():
            load.capacity = capacity
            self._changed(worker)

    def remove(self, worker: Epoch) -> None:
        """The worker takes no more sequences. Its later accounts are ignored."""
        self._loads.pop(worker, None)
        self._with_room.pop(worker, None)

    def took(self, worker: Epoch, n_prefill: int = 0) -> None:
        """It has one sequence more, with so many tokens to prefill."""
        load = self._loads.get(worker)
        if load is None:
            return
        self._turn += 1
        load.n_sequences += 1
        load.n_prefill += n_prefill
        load.turn = self._turn
        self._with_room.pop(worker, None)  # to the end
        self._changed(worker)

    def prefilled(self, worker: Epoch, n_prefill: int) -> None:
        """So many tokens are computed, or were found in its cache."""
        load = self._loads.get(worker)
        if load is not None and n_prefill:
            load.n_prefill = max(0, load.n_prefill - n_prefill)
            self._changed(worker)

    def gave_back(self, worker: Epoch, n_prefill: int = 0) -> None:
        """It has one sequence less. `n_prefill` of its tokens had not been computed."""
        load = self._loads.get(worker)
        if load is not None:
            load.n_sequences -= 1
            load.n_prefill = max(0, load.n_prefill - n_prefill)
            self._changed(worker)

    def least(self) -> Epoch | None:
        """The worker with the fewest sequences among those with room; None if all are full.

        Among equals the one with the fewest tokens to prefill, then the one that got its last
        sequence the longest ago.
        """
        heap = self._heap
        while heap:
            key, worker = heap[0]
            load = self._loads.get(worker)
            if load is not None and load.has_room and key == _key(load):
                return worker
            heapq.heappop(heap)
        return None

    def next_in_turn(self) -> Epoch | None:
        """The worker with room that got its last sequence, or got room, the longest ago."""
        return next(iter(self._with_room), None)

    def _changed(self, worker: Epoch) -> None:
        load = self._loads[worker]
        if not load.has_room:
            self._with_room.pop(worker, None)
            return
        self._with_room.setdefault(worker, None)
        heapq.heappush(self._heap, (_key(load), worker))
        if len(self._heap) > 8 * len(self._loads) + 64:
            self._heap = [(_key(load), one) for one, load in self._loads.items() if load.has_room]
            heapq.heapify(self._heap)


def _key(load: Load) -> Key:
    return load.n_sequences, load.n_prefill, load.turn
