"""The responses that are remembered, and the items of their output. Pure.

Each principal has a memory of its own, bounded in number and bytes. The response that was used
longest ago is forgotten first. All is kept as JSON, so that its size is known.
"""

from collections import OrderedDict

import msgspec
from msgspec import Struct

from gpufc.config import LimitsConfig
from gpufc.errors import RequestTooLarge
from supervisor.http.responses.answer import ResponseObject
from supervisor.http.responses.fields import Item

MOST_PRINCIPALS = 1024
"""A plugin may name principals as its clients wish: beyond it, the one that was used longest ago is
forgotten."""

ENTRY_BYTES = 1024
"""Roughly the memory of an entry without its JSON."""


class Remembered(Struct, frozen=True):
    """A response that has ended.

    `document` is the answer. `input` holds all items that the model was given, those of previous
    responses included; `output` its items, one by one.
    """

    id: str
    document: bytes
    input: bytes
    output: tuple[bytes, ...]
    item_ids: tuple[str, ...]

    @property
    def n_bytes(self) -> int:
        return len(self.document) + self.n_bytes_said + ENTRY_BYTES

    @property
    def n_bytes_said(self) -> int:
        """The size of the conversation, its output included."""
        return len(self.input) + sum(map(len, self.output))

    @property
    def inputs(self) -> list[Item]:
        """The items that the model was given."""
        return msgspec.json.decode(self.input, type=list[Item])

    @property
    def outputs(self) -> list[Item]:
        """The items of its output."""
        return [msgspec.json.decode(item, type=Item) for item in self.output]


def remembered(response: ResponseObject, inputs: list[Item]) -> Remembered:
    """A response as it is kept. Every item of its input gets an id."""
    tail = response.id.rpartition("_")[2]
    named = [
        item if item.id else msgspec.structs.replace(item, id=f"item_{tail}_{index}")
        for index, item in enumerate(inputs)
    ]
    return Remembered(
        response.id,
        msgspec.json.encode(response),
        msgspec.json.encode(named),
        tuple(map(msgspec.json.encode, response.output)),
        tuple(item.id for item in response.output),
    )


class Memory:
    """One principal's responses.

    Invariants: `_responses` is in the order of use; `_owners` has the response of each output item
    in it; both limits hold.
    """

    def __init__(self, limits: LimitsConfig) -> None:
        self.n_bytes = 0
        self._limits = limits
        self._responses: OrderedDict[str, Remembered] = OrderedDict()
        self._owners: dict[str, str] = {}

    def __len__(self) -> int:
        return len(self._responses)

    def keep(self, response: Remembered) -> None:
        """Remember a response. One that is larger than all memory is not kept."""
        self.forget(response.id)
        if response.n_bytes > self._limits.max_stored_bytes:
            return
        self._responses[response.id] = response
        self._owners.update(dict.fromkeys(response.item_ids, response.id))
        self.n_bytes += response.n_bytes
        while (
            len(self) > self._limits.max_stored_responses
            or self.n_bytes > self._limits.max_stored_bytes
        ):
            self.forget(next(iter(self._responses)))

    def find(self, response_id: str) -> Remembered | None:
        """The response of that id. It counts as used."""
        found = self._responses.get(response_id)
        if found is not None:
            self._responses.move_to_end(response_id)
        return found

    def find_item(self, item_id: str) -> bytes | None:
        """The item of that id in the output of a response, as JSON. The response counts as used."""
        owner = self.find(self._owners.get(item_id, ""))
        return None if owner is None else owner.output[owner.item_ids.index(item_id)]

    def forget(self, response_id: str) -> bool:
        """Drop a response and its items. False if there is none."""
        found = self._responses.pop(response_id, None)
        if found is None:
            return False
        self.n_bytes -= found.n_bytes
        for item_id in found.item_ids:
            self._owners.pop(item_id, None)
        return True


class Memories:
    """Every principal's memory, by the principal's name."""

    def __init__(self, limits: LimitsConfig) -> None:
        self._limits = limits
        self._of: OrderedDict[str, Memory] = OrderedDict()

    def of(self, principal: str) -> Memory:
        found = self._of.setdefault(principal, Memory(self._limits))
        self._of.move_to_end(principal)
        if len(self._of) > MOST_PRINCIPALS:
            self._of.popitem(last=False)
        return found


class Recall:
    """What one request takes out of a memory: no more than `most_bytes` of JSON, however often its
    items name the same one."""

    def __init__(self, memory: Memory, most_bytes: int) -> None:
        self._memory = memory
        self._most_bytes = self._left = most_bytes

    def response(self, response_id: str) -> list[Item] | None:
        """The whole conversation up to a response. Raises `RequestTooLarge`."""
        found = self._memory.find(response_id)
        if found is None:
            return None
        self._take(found.n_bytes_said)
        return [*found.inputs, *found.outputs]

    def item(self, item_id: str) -> Item | None:
        """The item of that id. Raises `RequestTooLarge`."""
        found = self._memory.find_item(item_id)
        if found is None:
            return None
        self._take(len(found))
        return msgspec.json.decode(found, type=Item)

    def _take(self, n_bytes: int) -> None:
        self._left -= n_bytes
        if self._left < 0:
            raise RequestTooLarge(
                f"The remembered part of the conversation is larger than {self._most_bytes} bytes"
            )
