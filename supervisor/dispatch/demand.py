"""The port of dispatch to the roster: which models are wanted and used, and what is closed."""

from collections.abc import Callable, MutableMapping

from gpufc.errors import EngineUnavailable, ModelNotFound
from gpufc.ids import Epoch
from supervisor.dispatch.group import ModelGroup
from supervisor.dispatch.usage import Usage


class Demand:
    """A view of the dispatcher's groups, by served name. In the event loop."""

    def __init__(self, groups: MutableMapping[str, ModelGroup]) -> None:
        self._groups = groups
        self.changed: Callable[[str | None], None] = lambda _model: None
        """Called when requests begin to wait for a worker of a model, when a model has become idle,
        and without a model when any worker's state has changed. The roster sets it."""

    def usage(self, model: str) -> Usage:
        """A model's requests now."""
        group = self._groups.get(model)
        return Usage() if group is None else group.usage()

    def open(self, model: str, epoch: Epoch, *, is_open: bool) -> None:
        """Give a worker new sequences, or none any more: it is to be unloaded."""
        if (group := self._groups.get(model)) is not None:
            group.open(epoch, is_open=is_open)

    def refuse(self, model: str, error: EngineUnavailable) -> None:
        """End a model's requests, unless workers are left for them: none will come."""
        if (group := self._groups.get(model)) is not None:
            group.fail_waiting(error)

    def forget(self, model: str) -> None:
        """A model is not served any more. Its requests end."""
        group = self._groups.pop(model, None)
        if group is not None:
            group.end_all(ModelNotFound(f"The model {model!r} is not served any more"))
