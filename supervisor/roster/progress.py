"""A load and an unload as their operator follows them."""

from gpufc.ids import WorkerName
from supervisor.fleet.group import Group
from supervisor.fleet.port import Replacement, ReplacementStage
from supervisor.roster.resident import Resident


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


def end_of(one: Resident) -> Replacement:
    """How far the unload of a worker is."""
    stage = ReplacementStage.STOPPING if one.is_leaving else ReplacementStage.DRAINING
    return Replacement(worker=one.place.spec.name, stage=stage)
