"""The engine on a tiny model in both layouts of its cache, beside llama.cpp alone.

A test module that uses these fixtures names its models with a fixture `name` of module scope.
"""

from collections.abc import Iterator

import pytest

from engine_worker.backend.llama.backend import LlamaBackend
from gpufc.config import KvUnified
from tests.models.making import made
from tests.models.reference import Reference
from tests.models.runs import N_CTX, loaded


@pytest.fixture(scope="module")
def reference(name: str) -> Iterator[Reference]:
    alone = Reference(made(name), N_CTX)
    yield alone
    alone.close()


@pytest.fixture(scope="module", params=[KvUnified.TRUE, KvUnified.FALSE])
def backend(name: str, request: pytest.FixtureRequest) -> Iterator[LlamaBackend]:
    with loaded(name, request.param) as found:
        yield found
