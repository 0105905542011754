"""The LoRA adapters that a request chooses: by `lora`, or by an adapter's name as `model`. Pure."""

from collections.abc import Sequence
from typing import Annotated

from msgspec import Meta, Struct

from gpufc.adapters import MAX_ADAPTERS, Adapters, AdapterUse
from gpufc.errors import InvalidRequest


class LoraField(Struct, frozen=True):
    """llama-server's entry of `lora`: the adapter's place in the list of `/lora-adapters`.

    `name` may stand in place of `id`.
    """

    id: int | None = None
    name: str | None = None
    scale: Annotated[float, Meta(ge=-100.0, le=100.0)] | None = None

    @property
    def weight(self) -> float:
        """How far the adapter is applied; 1 without a scale."""
        return 1.0 if self.scale is None else self.scale


LoraFields = Annotated[list[LoraField], Meta(max_length=MAX_ADAPTERS)]


def chosen(given: LoraFields | None, model: str | None, known: Sequence[str]) -> Adapters:
    """The adapters of a request, in the order of `known`, the adapters of its model.

    `lora` goes before `model`. Of one adapter given twice the last entry counts. Raises
    `InvalidRequest`.
    """
    if given is None:
        return (AdapterUse(model),) if model is not None and model in known else ()
    scales = {_name(entry, at, known): entry.weight for at, entry in enumerate(given)}
    return tuple(AdapterUse(name, scales[name]) for name in known if scales.get(name))


def _name(entry: LoraField, at: int, known: Sequence[str]) -> str:
    if entry.name in known:
        return str(entry.name)
    if entry.name is None and entry.id is not None and 0 <= entry.id < len(known):
        return known[entry.id]
    there = f"there are {', '.join(map(repr, known))}" if known else "the model has none"
    wanted = entry.id if entry.name is None else repr(entry.name[:100])
    raise InvalidRequest(f"there is no adapter {wanted}; {there}", param=f"lora[{at}]")
