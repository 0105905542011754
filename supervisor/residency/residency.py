"""The owner of residency: facts in, actions out."""

from enum import StrEnum

from supervisor.residency.memory import Free, Memory
from supervisor.residency.port import Action, Rules, TenantNo, Terms


class State(StrEnum):
    """A model's state, the words of `/v1/models`."""

    UNLOADED = "unloaded"
    LOADING = "loading"
    READY = "ready"
    BUSY = "busy"
    UNLOADING = "unloading"
    FAILED = "failed"
    """It cools down after a load that failed."""


class Residency:
    """Decides which models are in memory. One object for the front, called in the event loop.

    The fleet tells it facts by the methods below, and calls `decide` after each, and at `wake_at`.
    It carries out each action that `decide` returns, in order. `Load`, `Evict`, `Close` and
    `Reopen` are said once; `Wait` and `Refuse` are said at each call for as long as they hold.

    Invariants:

    - A busy or pinned worker is not evicted, and none for a model that would not fit then.
    - The reserved memory of loads and the memory of workers never exceed what there is.
    - A model whose requests wait is loaded after a bounded time, if it fits at all.
    """

    def __init__(self, rules: Rules = Rules()) -> None:  # noqa: B008
        raise NotImplementedError

    # models

    def register(self, model: str, terms: Terms) -> None:
        """Make a model known, or change its terms. Workers that are loaded stay as they are."""

    def forget(self, model: str) -> None:
        """The model is not served any more: its workers go when they are idle."""

    def forgive(self, model: str) -> None:
        """End a model's cool-down: its file or its configuration has changed."""

    # requests

    def demand(self, model: str, n_waiting: int, now: float) -> None:
        """So many requests of a model wait for a worker now. The wait begins at the call that
        raises the number above 0. A hint to load, or a preload, is a demand of one.

        A hint that should not evict: `demand(…)` only while `would_fit(model)`.
        """

    def unload(self, model: str, now: float) -> None:
        """An operator wants a model unloaded: closed, then evicted when idle. Pinned ones too."""

    # workers

    def used(self, tenant: TenantNo, n_open: int, now: float) -> None:
        """A sequence of this worker has begun or ended; `n_open` are left. With any it is busy."""

    def loaded(self, tenant: TenantNo, held: Memory, now: float) -> None:
        """The worker is ready, and takes this memory at its peak."""

    def restarting(self, tenant: TenantNo, now: float) -> None:
        """The worker died and is started again in its place. `loaded` or `load_failed` follows."""

    def load_failed(
        self, tenant: TenantNo, reason: str, now: float, *, lacked_memory: bool = False
    ) -> None:
        """The load has failed for good. `gone` follows, when its process has ended.

        The model cools down, unless memory was lacking and a degraded placement has not been tried.
        """

    def gone(self, tenant: TenantNo, now: float) -> None:
        """The worker's process has ended. Its memory counts as free from the next measurement."""

    def measured(self, free: Free) -> None:
        """A measurement of the machine's memory. At least after each `gone`, and each few seconds
        while anything waits."""

    # decisions

    def decide(self, now: float) -> tuple[Action, ...]:
        """The actions of now."""
        return ()

    def wake_at(self, now: float) -> float | None:
        """When to call `decide` again without a new fact: a keep-alive, a stay, a cool-down or a
        patience ends then. None if nothing is due."""
        return None

    # views

    def state(self, model: str, now: float) -> State:
        """A registered model's state."""
        raise NotImplementedError

    def failure(self, model: str, now: float) -> tuple[str, float] | None:
        """Why a model's load failed, and in how many seconds it is tried again."""

    def would_fit(self, model: str) -> bool:
        """Whether a worker of the model fits now without any eviction."""
        return False

    def refusal(self, model: str, now: float) -> str | None:
        """Why a model can never be loaded as things are; None if it can. Says so before any
        eviction."""
