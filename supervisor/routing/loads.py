"""The open work of the workers of one fingerprint."""

from msgspec import Struct

from gpufc.ids import Epoch
from supervisor.routing.ranking import Ranking


class Load(Struct):
    """One worker's open work: sequences, and tokens of their prompts that are not computed yet.

    `turn` is the number of the last sequence that it got, `asked` that of the last question; a
    lower one was longer ago. `is_far` says that a network lies between it and the front.
    """

    capacity: int
    n_sequences: int = 0
    n_prefill: int = 0
    turn: int = 0
    asked: int = 0
    is_far: bool = False

    @property
    def has_room(self) -> bool:
        return self.n_sequences < self.capacity


class Loads:
    """Every worker's load, and the least of them without a scan.

    Invariant: `_with_room`, `_by_room` and `_by_prefill` hold exactly the workers with room,
    `_by_quiet` all.
    """

    def __init__(self) -> None:
        self._loads: dict[Epoch, Load] = {}
        self._by_room = Ranking[tuple[int, int, bool, int]]()
        self._by_prefill = Ranking[tuple[int, int, bool, int]]()
        self._by_quiet = Ranking[tuple[int, int]]()
        self._with_room: dict[Epoch, None] = {}
        self._turn = 0

    def __contains__(self, worker: Epoch) -> bool:
        return worker in self._loads

    def __getitem__(self, worker: Epoch) -> Load:
        """The worker's load, which only this object changes. Raises `KeyError`."""
        return self._loads[worker]

    def __len__(self) -> int:
        return len(self._loads)

    def add(
        self, worker: Epoch, capacity: int, n_sequences: int = 0, *, is_far: bool = False
    ) -> None:
        """A worker that may have `capacity` sequences at once, and has some already."""
        self._loads[worker] = load = Load(capacity, n_sequences, is_far=is_far)
        self._changed(worker, load)
        self._by_quiet.put(worker, (load.n_sequences, load.asked))

    def resize(self, capacity: int) -> None:
        """Each worker may have so many sequences at once from now on."""
        for worker, load in self._loads.items():
            load.capacity = capacity
            self._changed(worker, load)

    def remove(self, worker: Epoch) -> None:
        """The worker takes no more sequences. Its later accounts are ignored."""
        if self._loads.pop(worker, None) is not None:
            self._with_room.pop(worker, None)
            self._by_room.drop(worker)
            self._by_prefill.drop(worker)
            self._by_quiet.drop(worker)

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
        self._changed(worker, load)
        self._by_quiet.put(worker, (load.n_sequences, load.asked))

    def prefilled(self, worker: Epoch, n_prefill: int) -> None:
        """So many tokens are computed, or were found in its cache."""
        load = self._loads.get(worker)
        if load is not None and n_prefill:
            load.n_prefill = max(0, load.n_prefill - n_prefill)
            self._changed(worker, load)

    def gave_back(self, worker: Epoch, n_prefill: int = 0) -> None:
        """It has one sequence less. `n_prefill` of its tokens had not been computed."""
        load = self._loads.get(worker)
        if load is not None:
            load.n_sequences -= 1
            load.n_prefill = max(0, load.n_prefill - n_prefill)
            self._changed(worker, load)
            self._by_quiet.put(worker, (load.n_sequences, load.asked))

    def was_asked(self, worker: Epoch) -> None:
        """It has got a question."""
        load = self._loads.get(worker)
        if load is not None:
            self._turn += 1
            load.asked = self._turn
            self._by_quiet.put(worker, (load.n_sequences, load.asked))

    def least(self) -> Epoch | None:
        """The worker with the fewest sequences among those with room; None if all are full.

        Among equals the one with the fewest tokens to prefill, then one on the front's machine,
        then the one that got its last sequence the longest ago.
        """
        return self._by_room.first()

    def soonest(self) -> Epoch | None:
        """The worker with the fewest tokens to prefill among those with room; None if all are full.

        Among equals the one with the fewest sequences, then as in `least`.
        """
        return self._by_prefill.first()

    def quietest(self) -> Epoch | None:
        """The worker with the fewest sequences, full ones included; among equals the one that was
        asked the longest ago."""
        return self._by_quiet.first()

    def next_in_turn(self) -> Epoch | None:
        """The worker with room that got its last sequence, or got room, the longest ago."""
        return next(iter(self._with_room), None)

    def _changed(self, worker: Epoch, load: Load) -> None:
        if load.has_room:
            self._with_room.setdefault(worker, None)
            self._by_room.put(worker, (load.n_sequences, load.n_prefill, load.is_far, load.turn))
            self._by_prefill.put(worker, (load.n_prefill, load.n_sequences, load.is_far, load.turn))
        else:
            self._with_room.pop(worker, None)
            self._by_room.drop(worker)
            self._by_prefill.drop(worker)
