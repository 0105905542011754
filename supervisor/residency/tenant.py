"""One worker in memory, from the decision to load it until its memory is back."""

from enum import StrEnum

from supervisor.residency.memory import Memory
from supervisor.residency.port import Placement, TenantNo


class Stage(StrEnum):
    """The stages of a tenant.

        LOADING ──▶ OPEN ◀──▶ CLOSED ──▶ LEAVING ──▶ GONE
           └────────────────────────────────▶┘

    A CLOSED tenant gets no new sequences. A GONE one is forgotten with the next measurement of
    memory, which shows what it has given back.
    """

    LOADING = "loading"
    OPEN = "open"
    CLOSED = "closed"
    LEAVING = "leaving"
    GONE = "gone"


SERVING = frozenset({Stage.OPEN, Stage.CLOSED})


class Tenant:
    """Only the `Residency` changes it. Times are monotonic seconds.

    `held` is what it takes, or is about to take. `ready_at` is when it was loaded first, None
    before. `settled_at` is when its memory was all taken; a measurement from before does not show
    it. `closed_for` is the newcomer that it was closed for. `unloads` is set where it has to go as
    soon as it is idle.
    """

    __slots__ = (
        "closed_for",
        "gone_at",
        "held",
        "last_used",
        "model",
        "n_open",
        "no",
        "placement",
        "ready_at",
        "settled_at",
        "stage",
        "started_at",
        "unloads",
    )

    def __init__(self, no: TenantNo, model: str, placement: Placement, now: float) -> None:
        self.no = no
        self.model = model
        self.placement = placement
        self.held: Memory = placement.need
        self.stage = Stage.LOADING
        self.started_at = now
        self.ready_at: float | None = None
        self.settled_at: float | None = None
        self.gone_at: float | None = None
        self.last_used = now
        self.n_open = 0
        self.closed_for: str | None = None
        self.unloads = False

    @property
    def is_idle(self) -> bool:
        """Whether it serves and has no sequence."""
        return self.stage in SERVING and not self.n_open
