"""The one place in which the scheduler's policies are chosen.

An optimisation is a class that is named here. To take one out is to delete its file, its import
and its line here.
"""

from functools import partial

from engine_worker.backend.profile import Profile, Shape
from engine_worker.kv.checkpoint_slots import CheckpointSlots, IsControl
from engine_worker.kv.prefix_cache import MIN_MATCH, KeepsPrefix, PrefixCache
from engine_worker.kv.slots import Slots
from engine_worker.kv.stream_slots import StreamSlots
from engine_worker.scheduling.adapter_turns import AdapterTurns
from engine_worker.scheduling.arrivals import BeginTogether
from engine_worker.scheduling.early_tokens import EarlyTokens
from engine_worker.scheduling.equal_chunks import EqualChunks
from engine_worker.scheduling.fixed_pass import FixedPass
from engine_worker.scheduling.newcomers import NewcomersFirst
from engine_worker.scheduling.overlapped_replays import OverlappedReplays
from engine_worker.scheduling.pausing import NeverPause, Pausing
from engine_worker.scheduling.placeholders import PlaceholderRows
from engine_worker.scheduling.prefill_budget import PrefillBudget
from engine_worker.scheduling.scheduler import Scheduler
from engine_worker.scheduling.single_turns import SingleTurns
from engine_worker.scheduling.step_costs import StepCosts
from engine_worker.scheduling.step_shape import Mixed
from engine_worker.scheduling.turns import AllAtOnce, Turns
from engine_worker.scheduling.whole_replays import WholeReplays


class FixedShape(
    WholeReplays,
    PlaceholderRows,
    OverlappedReplays,
    FixedPass,
    EqualChunks,
):
    """For a device with all layers. Each of these adds one thing to those behind it."""


_SHAPES: dict[Shape, type[Mixed]] = {
    Shape.EQUAL: EqualChunks,
    Shape.FIXED: FixedShape,
}
"""The shape of steps for each kind of passes. Others are `Mixed`."""


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
    cache = PrefixCache(
        can_cut=profile.cuts_prefixes,
        keeps_prefix=keeps_prefix,
        least_in_place=_least_in_place(profile),
    )
    usual = partial(_slots, profile, max_running, cache, is_control)
    slots, shape = _SHAPES.get(profile.shape, Mixed).with_slots(profile, cache, usual)
    return Scheduler(
        max_running=max_running,
        batch_tokens=batch_tokens,
        slots=slots,
        shape=shape,
        pausing=_pausing(profile, max_running, batch_tokens, costs),
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


def _least_in_place(profile: Profile) -> int:
    """The shortest prefix that a sequence keeps of an idle slot. On a CPU each token less
    counts; on a device prompts with equally many tokens to compute share a pass."""
    return MIN_MATCH if profile.on_device else 1


def _slots(profile: Profile, max_running: int, cache: PrefixCache, is_control: IsControl) -> Slots:
    """The slots for most shapes."""
    n_slots, least = profile.n_slots, profile.least_copied
    max_idle = max(0, n_slots - max_running)
    if not profile.cuts_prefixes:
        return CheckpointSlots(n_slots, max_idle=max_idle, cache=cache, is_control=is_control)
    if not profile.consecutive:
        return Slots(n_slots, max_idle=max_idle, cache=cache)
    # idle cells of another stream slow no sequence down
    return StreamSlots(n_slots, max_idle=n_slots, cache=cache, least_copied=least)


def _pausing(profile: Profile, max_running: int, batch_tokens: int, costs: StepCosts) -> Pausing:
    if max_running == 1:
        return NeverPause()
    together = BeginTogether(batch_tokens, on_device=profile.on_device)
    return together if profile.on_device else EarlyTokens(together, batch_tokens, costs)


def _turns(profile: Profile, max_running: int, costs: StepCosts) -> Turns:
    """Each of these decides within what those before it allow."""
    turns: Turns = AllAtOnce()
    if profile.one_a_pass:
        turns = SingleTurns(turns, costs)
    turns = AdapterTurns(turns, costs)
    turns = NewcomersFirst.over(turns, profile, max_running, costs)
    return turns
