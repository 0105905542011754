"""A canary: the candidate of a place serves a share of the requests, and takes over or goes.

`supervisor.routing.canary` decides; here the listener hears of it and the verdict is awaited.
"""

import asyncio
import logging
import time
from contextlib import suppress

from supervisor.fleet.place import Place
from supervisor.fleet.port import OnReplacement, Replacement, ReplacementStage
from supervisor.fleet.replacement_rules import CandidateFailed, CandidateFailure
from supervisor.routing.canary import Canary, CanaryRules, Verdict

logger = logging.getLogger(__name__)

LOOK_S = 0.5
"""The evidence is looked at so often, and when a worker comes or goes."""


async def prove(place: Place, rules: CanaryRules, tell: OnReplacement) -> None:
    """Let the candidate of a replacement serve its share until it may take over.

    Raises `CandidateFailed` if it is rolled back, and leaves no candidate: its streams end on it.
    A candidate with the same model has nothing to be compared with and passes.
    """
    fresh, old = place.candidate, place.runner.worker
    worker = None if fresh is None else fresh.worker
    if fresh is None or worker is None:
        await place.dismiss()
        raise CandidateFailed(CandidateFailure("it died before it got a request"))
    if old is not None and old.facts.fingerprint == worker.facts.fingerprint:
        return
    canary = Canary(rules, time.monotonic())
    logger.info("canary_began worker=%s share=%s", place.spec.name, rules.share)
    fresh.announce_canary(canary)
    verdict = Verdict.UNDECIDED
    try:
        told, is_up = "", True
        while (verdict := canary.verdict(time.monotonic())) is Verdict.UNDECIDED:
            if told != canary.progress:
                told = canary.progress
                stage = ReplacementStage.CANARY
                tell(Replacement(worker=place.spec.name, stage=stage, detail=told))
            seen = place.n_changes
            with suppress(TimeoutError):
                async with asyncio.timeout(LOOK_S):
                    await place.wait_changed(seen)
            was_up, is_up = is_up, fresh.worker is not None
            if was_up and not is_up:
                canary.died()
    finally:
        logger.info("canary_ended worker=%s: %s, %s", place.spec.name, verdict, canary.reason)
        if verdict is not Verdict.TAKE_OVER:
            place.retire_canary()
    if verdict is Verdict.ROLL_BACK:
        raise CandidateFailed(CandidateFailure(f"the canary was rolled back: {canary.reason}"))
