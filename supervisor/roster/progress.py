"""A load as its operator follows it."""

from gpufc.ids import WorkerName
from supervisor.fleet.group import Group
from supervisor.fleet.port import Replacement, ReplacementStage


def progress_of(group: Group) -> Replacement:
    """How far the first worker of a model is."""
    places = group.places
    if not places:
        detail = group.absence.detail if group.absence is not None else ""
        name = WorkerName(group.model)
        return Replacement(worker=name, stage=ReplacementStage.LOADING, detail=detail)
    row = places[0].runner.status()
    stage = ReplacementStage.READY if group.has_worker else ReplacementStage.LOADING
    return Replacement(
        worker=row.name, stage=stage, fraction=row.loading_fraction, pid=row.pid, epoch=row.epoch
    )
