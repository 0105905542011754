"""Other values for all workers, or for none."""

from types import SimpleNamespace
from typing import Any, cast

import pytest

from gpufc.config import ModelConfig
from gpufc.errors import Overloaded, SwapRefused
from gpufc.facts import MAX_SEQUENCES
from gpufc.ids import WorkerName
from supervisor.fleet.reconfiguring import reconfigure
from supervisor.fleet.replacer import Replacer
from supervisor.fleet.worker import WorkerSpec


class FakeReplacer:
    """A place whose spec changes, unless `refuses` says otherwise."""

    def __init__(self, name: str, refuses: Exception | None = None) -> None:
        spec = WorkerSpec(WorkerName(name), "m", ModelConfig(), n_sequences=10, log_level="info")
        self.place = SimpleNamespace(spec=spec)
        self.refuses = refuses
        self.n_served = 0

    def note(self, wanted: WorkerSpec) -> None:
        if self.refuses:
            raise self.refuses
        self.place.spec = wanted

    async def serve(self, wanted: WorkerSpec) -> None:
        self.n_served += 1
        self.note(wanted)


async def serve(replacer: Replacer, wanted: WorkerSpec) -> None:
    await cast(Any, replacer).serve(wanted)


def contexts(replacers: list[FakeReplacer]) -> list[int]:
    return [one.place.spec.config.n_ctx for one in replacers]


async def test_each_model_s_workers_get_its_values_and_others_stay() -> None:
    found = [FakeReplacer("default-0"), FakeReplacer("chat-big-0"), FakeReplacer("chat-big-1")]
    await reconfigure(cast(Any, found), {"chat-big": {"n_ctx": 512}}, 10, serve)
    assert contexts(found) == [4096, 512, 512]
    assert [one.n_served for one in found] == [0, 1, 1]


async def test_room_for_sequences_only_grows_and_has_an_end() -> None:
    found = [FakeReplacer("default-0")]
    await reconfigure(cast(Any, found), {}, 4, serve)
    assert found[0].n_served == 0
    await reconfigure(cast(Any, found), {}, 10**6, serve)
    assert found[0].place.spec.n_sequences == MAX_SEQUENCES


async def test_without_a_replacement_only_the_next_worker_s_spec_changes() -> None:
    found = [FakeReplacer("default-0")]
    await reconfigure(cast(Any, found), {"default": {"aliases": ("a",)}}, 10, None)
    assert found[0].place.spec.config.aliases == ("a",)
    assert found[0].n_served == 0


@pytest.mark.parametrize("is_served", [True, False])
async def test_a_refusal_takes_those_before_it_back(is_served: bool) -> None:
    error = SwapRefused("it does not load") if is_served else Overloaded("busy", retry_after_s=1)
    found = [FakeReplacer("default-0"), FakeReplacer("default-1", error)]
    with pytest.raises(type(error)):
        await reconfigure(
            cast(Any, found), {"default": {"n_ctx": 512}}, 10, serve if is_served else None
        )
    assert contexts(found) == [4096, 4096]
