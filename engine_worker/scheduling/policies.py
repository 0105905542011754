"""The one place in which the scheduler's policies are chosen.

An optimisation is a class that is named here. To take one out is to delete its file, its import
and its line here.
"""

from engine_worker.backend.profile import Profile, Shape
from engine_worker.kv.checkpoint_slots import CheckpointSlots, IsControl
from engine_worker.kv.prefix_cache import KeepsPrefix, PrefixCache
from engine_worker.kv.slots import Slots
from engine_worker.kv.stream_slots import StreamSlots
from engine_worker.scheduling.adapter_turns import AdapterTurns
from engine_worker.scheduling.arrivals import BeginTogether
from engine_worker.scheduling.equal_chunks import EqualChunks
from engine_worker.scheduling.newcomers import NewcomersFirst
from engine_worker.scheduling.pausing import NeverPause, Pausing
from engine_worker.scheduling.placeholders import with_placeholders
from engine_worker.scheduling.prefill_budget import PrefillBudget
from engine_worker.scheduling.scheduler import Scheduler
from engine_worker.scheduling.step_costs import StepCosts
from engine_worker.scheduling.step_shape import Mixed, StepShape
from engine_worker.scheduling.turns import Turns


def scheduler_for(
    profile: Profile,
    *,
    max_running: int,
    batch_tokens: int,
    costs: StepCosts,
    keeps_prefix: KeepsPrefix = lambda _slot, _n_tokens: True,
    is_control: IsControl = lambda _token: False,
) -> Scheduler:
    """A scheduler for `max_running` sequences and steps of `batch_tokens`, with the policies that
    suit the backend."""
    cache = PrefixCache(can_cut=profile.cuts_prefixes, keeps_prefix=keeps_prefix)
    slots, shape = _slots_and_shape(profile, max_running, cache, is_control)
    return Scheduler(
        max_running=max_running,
        batch_tokens=batch_tokens,
        slots=slots,
        shape=shape,
        pausing=_pausing(max_running, batch_tokens),
        turns=_turns(profile, max_running, costs),
        budget=PrefillBudget(batch_tokens, costs),
    )


MAX_JUMP = 16
"""Forced tokens that one step computes for one sequence beside its chosen one."""


def max_jump(profile: Profile, *, max_running: int, batch_tokens: int) -> int:
    """How many forced tokens a sequence may have computed in one step; 0: one by one.

    All sequences may do so at once within `batch_tokens`. A device pays for every change of its
    pass's shape, so that forced tokens are computed one a step there.
    """
    if profile.shape is not Shape.MIXED or not profile.cuts_prefixes:
        return 0
    return max(0, min(MAX_JUMP, batch_tokens // max_running - 1))


def _slots_and_shape(
    profile: Profile, max_running: int, cache: PrefixCache, is_control: IsControl
) -> tuple[Slots, StepShape]:
    shape: StepShape
    match profile.shape:
        case Shape.FIXED:
            return with_placeholders(profile, cache)
        case Shape.EQUAL:
            shape = EqualChunks()
        case Shape.MIXED:
            shape = Mixed()
    n_slots, least = profile.n_slots, profile.least_copied
    max_idle = max(0, n_slots - max_running)
    if not profile.cuts_prefixes:
        slots = CheckpointSlots(n_slots, max_idle=max_idle, cache=cache, is_control=is_control)
        return slots, shape
    if not profile.consecutive:
        return Slots(n_slots, max_idle=max_idle, cache=cache), shape
    # idle cells of another stream slow no sequence down
    return StreamSlots(n_slots, max_idle=n_slots, cache=cache, least_copied=least), shape


def _pausing(max_running: int, batch_tokens: int) -> Pausing:
    return BeginTogether(batch_tokens) if max_running > 1 else NeverPause()


def _turns(profile: Profile, max_running: int, costs: StepCosts) -> Turns:
    """A device computes a prompt in little more time beside a crowd than without."""
    turns = AdapterTurns()
    if profile.overlaps or max_running == 1:
        return turns
    return NewcomersFirst(turns, max_running=max_running, costs=costs)
