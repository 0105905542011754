"""The differences between two configurations, and what they need to take effect. Pure."""

from collections.abc import Sequence
from typing import Any

from msgspec import Struct

from gpufc.config.marks import Reload
from gpufc.settings import HIDDEN, NAME, Key, Value, row


class Change(Struct, frozen=True):
    """One key with another value. `model` is a name in `Config.models`."""

    before: Value
    after: Value

    @property
    def key(self) -> Key:
        return self.after.key

    @property
    def model(self) -> str | None:
        return self.after.model

    def __str__(self) -> str:
        """As messages show it, such as `max_queue: 80 → 200 (file F)`. Secrets are hidden."""
        values = f"{_shown(self.before)} → {_shown(self.after)}"
        return f"{self.key.name}: {values} ({self.after.source})"


def changes(before: Sequence[Value], after: Sequence[Value]) -> tuple[Change, ...]:
    """The keys whose values differ, in the order of `after`. A value that only comes from another
    place is no change; neither is a model that only one of the two has (`models_of`)."""
    known = {(value.model, value.key.name): value for value in before}
    pairs = ((known.get((value.model, value.key.name)), value) for value in after)
    return tuple(Change(old, new) for old, new in pairs if old and old.value != new.value)


def models_of(values: Sequence[Value]) -> set[str]:
    """The names in `Config.models`."""
    return {value.model for value in values if value.model is not None}


def refusal(before: Sequence[Value], after: Sequence[Value]) -> str | None:
    """Why a reload cannot bring this change about; None if it can."""
    found = changes(before, after)
    wanted = f" Wanted: {', '.join(map(str, found))}." if found else ""
    if models_of(before) != models_of(after):
        names = ", ".join(sorted(models_of(before) ^ models_of(after)))
        return f"a model's table came or went ({names}), which needs `stop` and `start`.{wanted}"
    if any(_renames(change, after) for change in found):
        return (
            "model_path would change the name that the model is served under: `swap` keeps the"
            f" name, and so does the key `model`, which needs `stop` and `start`.{wanted}"
        )
    for reload, way in ((Reload.START, "`stop` and `start`"), (Reload.UPGRADE, "`upgrade`")):
        names = ", ".join(change.key.name for change in found if change.key.reload is reload)
        if names:
            return f"{names} cannot change while this front runs, but {way} changes it.{wanted}"
    return None


def _renames(change: Change, after: Sequence[Value]) -> bool:
    """Whether a model without a name of its own gets another file, which names it."""
    if change.key.name != "model_path":
        return False
    named = (one.value for one in after if one.key.name == NAME and one.model == change.model)
    return next(named, None) is None


def rows(found: Sequence[Change]) -> list[dict[str, Any]]:
    """The changes as plain data."""
    return [
        {
            "key": change.key.name,
            "model": change.model,
            "before": row(change.before)["value"],
            "after": row(change.after)["value"],
            "source": str(change.after.source),
            "takes_effect": change.key.reload,
        }
        for change in found
    ]


def _shown(value: Value) -> str:
    shown = row(value)["value"]
    if shown is None:
        return "default"
    return (
        HIDDEN if shown == HIDDEN else str(shown).lower() if shown in (True, False) else str(shown)
    )
