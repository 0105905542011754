"""The slots that no sequence owns."""

from engine_worker.kv.slots import Slots


def idle_and_free(slots: Slots) -> tuple[list[int], list[int]]:
    """The idle ones, the least recently used first; the free ones."""
    return slots._cache.idle_slots(), sorted(slots._free)
