"""The engine on a tiny model in both layouts of its cache, beside llama.cpp alone.

A test module that uses these fixtures names its models with a fixture `name` of module scope.
"""

from collections.abc import Iterator
from pathlib import Path

import pytest

from engine_worker.backend.llama.backend import LlamaBackend
from gpufc.config import FlashAttention, KvUnified
from tests.models.making import made
from tests.models.reference import Reference
from tests.models.runs import N_CTX, loaded_as

HERE = Path(__file__).parent

IN_STREAMS = {"llama", "gemma3", "gpt-oss", "mamba", "lfm2", "qwen3next", "kimi-linear"}
"""One architecture of each kind of cache. The fast run has the others in one cache only."""


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.path.parent != HERE or not isinstance(item, pytest.Function):
            continue
        params = item.callspec.params if hasattr(item, "callspec") else {}
        layout, name = params.get("backend"), params.get("name")
        if layout is KvUnified.FALSE and name not in IN_STREAMS:
            item.add_marker(pytest.mark.slow)


@pytest.fixture(scope="module")
def reference(name: str) -> Iterator[Reference]:
    alone = Reference(made(name), N_CTX, flash=False)
    yield alone
    alone.close()


@pytest.fixture(scope="module", params=[KvUnified.TRUE, KvUnified.FALSE])
def backend(name: str, request: pytest.FixtureRequest) -> Iterator[LlamaBackend]:
    off = FlashAttention.OFF  # experts of a random model are chosen by the last bits
    with loaded_as(LlamaBackend, name, request.param, flash_attention=off) as found:
        yield found
