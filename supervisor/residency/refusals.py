"""Whether a model could ever be loaded as things are, and why not. Said before any eviction."""

from collections.abc import Iterable, Mapping, Sequence

from msgspec import Struct

from gpufc.amount import amount
from supervisor.residency.port import Placement, Terms
from supervisor.residency.room import WORKERS, Amounts, Room
from supervisor.residency.tenant import Tenant

RETRY_S = 30.0
"""Where other programs or pinned models hold the memory, it may be free later."""


class NeverFits(Struct, frozen=True):
    """The reason. `is_final` if no other use of the machine could help."""

    detail: str
    is_final: bool


def never_fits(
    model: str,
    ways: Sequence[Placement],
    room: Room,
    tenants: Iterable[Tenant],
    terms: Mapping[str, Terms],
) -> NeverFits | None:
    """Why no placement would fit even without every other worker that is not pinned."""
    best = room.hopeful(with_claims=False)
    others = [one for one in tenants if one.model not in terms or not terms[one.model].pinned]
    pinned = sorted({one.model for one in tenants} - {one.model for one in others})
    reasons: list[NeverFits] = []
    for way in ways:
        need = best.need(model, way.need)
        short = best.short(need, others)
        if not short:
            return None
        reasons.append(_reason(need, short, room, pinned))
    return next((one for one in reasons if not one.is_final), reasons[0])


def _reason(need: Amounts, short: Amounts, room: Room, pinned: Sequence[str]) -> NeverFits:
    place, lacking = next(iter(short.items()))
    is_final = need[place] > room.ceiling(place)
    held = f"; {', '.join(pinned)} stay, being pinned" if pinned else ""
    if place == WORKERS:
        return NeverFits(f"no more workers are allowed than there are{held}", is_final)
    can = amount(max(0, need[place] - lacking))
    return NeverFits(
        f"it needs {amount(need[place])} at {place}, and {can} could be made free{held}", is_final
    )
