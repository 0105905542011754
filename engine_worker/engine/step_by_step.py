"""The port for policies that begin a step before its plan is made."""

import collections.abc

from engine_worker.backend.port import Batch
from engine_worker.kv.edits import KvEdit
from engine_worker.scheduling.plan import Plan
from gpufc.errors import DecodeFailed, RequestError


class StepByStep:
    """Every step is planned, then begun. Policies are subclasses."""

    @property
    def began_at(self) -> float | None:
        """When the step that is begun ahead was begun, in monotonic seconds; None without one. No
        message is handled until `has_begun` has been asked, or `undo` been called."""
        return None

    def has_begun(self, planned: collections.abc.Sequence[KvEdit], batch: Batch) -> bool:
        """Whether the backend computes this planned batch already, behind the planned edits. Any
        other one that was begun ahead is undone."""
        return False

    def undo(self) -> None:
        """Take back a step that is begun ahead: no sequence is left."""

    def foresee(self, plan: Plan, batch: Batch) -> None:
        """Prepare the step after the plan's. Called once the plan's batch has begun."""

    def begin(self, chosen: collections.abc.Sequence[int | RequestError]) -> DecodeFailed | None:
        """Begin the next step with the tokens that were chosen, if it can be foreseen. The rows of
        logits are not valid any more then. Returns the error if the backend is lost: the chosen
        tokens are good, and are to be reported first."""
        return None
