"""Other values for all workers, or for none."""

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, cast

import pytest

from gpufc.config import ModelConfig
from gpufc.errors import Overloaded, RequestError, SwapRefused
from gpufc.facts import MAX_SEQUENCES
from gpufc.ids import WorkerName
from supervisor.fleet import reconfiguring
from supervisor.fleet.place import PlaceState
from supervisor.fleet.replacer import Replacer
from supervisor.fleet.worker import WorkerSpec


def spec(name: str) -> WorkerSpec:
    return WorkerSpec(WorkerName(name), "m", ModelConfig(), n_sequences=10, log_level="info")


class FakeReplacer:
    """A place whose spec changes, unless `refuses` says otherwise."""

    def __init__(self, name: str, refuses: Exception | None = None) -> None:
        self.place = SimpleNamespace(spec=spec(name), state=PlaceState.SERVING)
        self.refuses = refuses
        self.n_served = 0

    def note(self, wanted: WorkerSpec) -> None:
        if self.refuses:
            raise self.refuses
        self.place.spec = wanted

    async def serve(self, wanted: WorkerSpec) -> None:
        self.n_served += 1
        self.note(wanted)


class FakeGroup:
    """One model's places with a worker, and a spec of a place without one."""

    def __init__(self, *replacers: FakeReplacer) -> None:
        self.replacers = list(replacers)
        self.absent = spec("absent-0")

    def respecify(self, change: Callable[[WorkerSpec], WorkerSpec]) -> None:
        self.absent = change(self.absent)

    @property
    def contexts(self) -> list[int]:
        return [one.place.spec.config.n_ctx for one in self.replacers]


async def serve(replacer: Replacer, wanted: WorkerSpec) -> None:
    await cast(Any, replacer).serve(wanted)


async def reconfigure(
    *groups: tuple[FakeGroup, dict[str, Any]], n_sequences: int = 10, serves: bool = True
) -> None:
    await reconfiguring.reconfigure(cast(Any, groups), n_sequences, serve if serves else None)


async def test_each_model_s_workers_get_its_values_and_others_stay() -> None:
    first = FakeGroup(FakeReplacer("default-0"))
    second = FakeGroup(FakeReplacer("chat-0"), FakeReplacer("chat-1"))
    await reconfigure((first, {}), (second, {"n_ctx": 512}))
    assert (first.contexts, second.contexts) == ([4096], [512, 512])
    assert [one.n_served for one in (*first.replacers, *second.replacers)] == [0, 1, 1]
    assert (first.absent.config.n_ctx, second.absent.config.n_ctx) == (4096, 512)


async def test_room_for_sequences_only_grows_and_has_an_end() -> None:
    group = FakeGroup(FakeReplacer("default-0"))
    await reconfigure((group, {}), n_sequences=4)
    assert group.replacers[0].n_served == 0
    await reconfigure((group, {}), n_sequences=10**6)
    assert group.replacers[0].place.spec.n_sequences == MAX_SEQUENCES


async def test_without_a_replacement_only_the_next_worker_s_spec_changes() -> None:
    group = FakeGroup(FakeReplacer("default-0"))
    await reconfigure((group, {"aliases": ("a",)}), serves=False)
    assert group.replacers[0].place.spec.config.aliases == ("a",)
    assert group.replacers[0].n_served == 0


@pytest.mark.parametrize("serves", [True, False])
async def test_a_refusal_takes_those_before_it_back(serves: bool) -> None:
    error = SwapRefused("it does not load") if serves else Overloaded("busy", retry_after_s=1)
    group = FakeGroup(FakeReplacer("default-0"), FakeReplacer("default-1", error))
    with pytest.raises(type(error)):
        await reconfigure((group, {"n_ctx": 512}), serves=serves)
    assert group.contexts == [4096, 4096]
    assert group.absent.config.n_ctx == 4096


async def test_a_worker_that_is_being_unloaded_refuses_a_change_of_its_own_only() -> None:
    group = FakeGroup(FakeReplacer("default-0"))
    group.replacers[0].place.state = PlaceState.LEAVING
    await reconfigure((group, {}))
    with pytest.raises(RequestError, match="being unloaded"):
        await reconfigure((group, {"n_ctx": 512}))
