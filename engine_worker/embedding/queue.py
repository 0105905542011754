"""The inputs that wait for their vectors, in the order in which they came. Pure."""

from collections import deque
from collections.abc import Sequence
from itertools import islice

from msgspec import Struct

from engine_worker.backend.embedder import PassLimits, Span, Vector
from engine_worker.embedding.packing import pack
from engine_worker.prompts.embedding_inputs import Key, Wanted
from gpufc.ids import RequestNo
from gpufc.protocol import Tokens


class Done(Struct, frozen=True):
    """A request whose inputs are all computed, with their vectors as the model made them."""

    wanted: Wanted
    vectors: list[Vector]


class _Input:
    """One input. `slot` is set once its first tokens are computed and while some are left."""

    def __init__(self, wanted: Wanted, index: int) -> None:
        self.wanted = wanted
        self.index = index
        self.n_computed = 0
        self.slot: int | None = None

    @property
    def tokens(self) -> Tokens:
        return self.wanted.inputs[self.index]

    @property
    def n_left(self) -> int:
        return len(self.tokens) - self.n_computed


class EmbeddingQueue:
    """Invariants: an input of an open request is in `_waiting` until its vector is known; only the
    first one has a slot."""

    def __init__(self, limits: PassLimits) -> None:
        self._limits = limits
        self._waiting: deque[_Input] = deque()
        self._vectors: dict[Key, list[Vector]] = {}

    @property
    def is_idle(self) -> bool:
        """Whether no input waits."""
        return not self._waiting

    def add(self, wanted: Wanted) -> None:
        self._vectors[wanted.key] = []
        self._waiting += (_Input(wanted, index) for index in range(len(wanted.inputs)))

    def plan(self, allowance: int) -> list[Span]:
        """The next pass; empty if nothing is allowed. It changes nothing: `computed` does."""
        counts = pack((one.n_left for one in self._waiting), self._limits, allowance)
        taken = self._waiting[0].slot if self._waiting else None
        free = iter(slot for slot in range(self._limits.n_inputs) if slot != taken)
        return [
            Span(
                next(free) if one.slot is None else one.slot,
                one.n_computed,
                one.tokens[one.n_computed : one.n_computed + count],
                is_last=count == one.n_left,
            )
            for one, count in zip(self._waiting, counts, strict=False)
        ]

    def requests(self, n_inputs: int) -> set[RequestNo]:
        """The requests of the first inputs."""
        return {one.wanted.request for one in islice(self._waiting, n_inputs)}

    def computed(self, spans: Sequence[Span], vectors: Sequence[Vector]) -> list[Done]:
        """A planned pass has been computed. Returns the requests that it completes."""
        found = iter(vectors)
        done = []
        for span in spans:
            one = self._waiting[0]
            if not span.is_last:
                one.n_computed, one.slot = span.start + len(span.tokens), span.slot
                break
            self._waiting.popleft()
            own = self._vectors[one.wanted.key]
            own.append(next(found))
            if len(own) == len(one.wanted.inputs):
                done.append(Done(one.wanted, self._vectors.pop(one.wanted.key)))
        return done

    def remove(self, request: RequestNo | None = None) -> list[int]:
        """Drop a request, or all. Returns the slots that have the beginning of an input of it."""
        for key in [key for key in self._vectors if request is None or key[1] == request]:
            del self._vectors[key]
        dropped = [one for one in self._waiting if one.wanted.key not in self._vectors]
        self._waiting = deque(one for one in self._waiting if one.wanted.key in self._vectors)
        return [one.slot for one in dropped if one.slot is not None]
