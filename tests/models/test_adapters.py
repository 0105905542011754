"""LoRA adapters: their text is that of merged weights, for each sequence by itself."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from engine_worker.backend.llama.backend import LlamaBackend
from gpufc.adapters import Adapters, AdapterUse
from gpufc.config import FlashAttention, KvUnified, ModelConfig
from gpufc.errors import ModelLoadError
from gpufc.protocol import Refused
from tests.engine_worker.engine.engine_runs import EngineRun
from tests.engine_worker.text.sequences import spec
from tests.models.lora import write_adapter, write_merged
from tests.models.making import made
from tests.models.reference import Reference
from tests.models.runs import some_tokens

N_TOKENS = 24
NONE: Adapters = ()
ONE: Adapters = (AdapterUse("one"),)
TWO: Adapters = (AdapterUse("two"),)
BOTH: Adapters = (AdapterUse("one", 0.5), AdapterUse("two", -1.0))
CHOICES = [NONE, ONE, TWO, BOTH]


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("adapters")
    found = {name: folder / f"{name}.gguf" for name in ("one", "two")}
    for seed, path in enumerate(found.values()):
        write_adapter(made("llama"), path, seed)
    return found


@pytest.fixture(scope="module")
def references(files: dict[str, Path]) -> Iterator[dict[Adapters, Reference]]:
    folder = files["one"].parent
    found = {}
    for number, adapters in enumerate(CHOICES):
        path = folder / f"merged-{number}.gguf"
        write_merged(made("llama"), path, {files[use.name]: use.scale for use in adapters})
        found[adapters] = Reference(path, 768, flash=False)
    yield found
    for reference in found.values():
        reference.close()


@contextmanager
def loaded(files: dict[str, Path], unified: KvUnified) -> Iterator[LlamaBackend]:
    config = ModelConfig(
        model_path=str(made("llama")),
        n_ctx=768,
        n_threads=1,
        kv_unified=unified,
        flash_attention=FlashAttention.OFF,  # it rounds by the shape of a batch, on some processors
        adapters=tuple(f"{name}={path}" for name, path in files.items()),
    )
    backend = LlamaBackend.load(config, 8, lambda _: None)
    try:
        yield backend
    finally:
        backend.close()


@pytest.mark.parametrize("unified", [KvUnified.TRUE, KvUnified.FALSE])
def test_sequences_with_different_adapters_run_side_by_side(
    files: dict[str, Path], references: dict[Adapters, Reference], unified: KvUnified
) -> None:
    prompts = [tuple(some_tokens(40, seed)) for seed in range(3)]
    cases = [(prompt, adapters) for prompt in prompts for adapters in CHOICES]
    wanted = [references[adapters].answer(prompt, N_TOKENS) for prompt, adapters in cases]
    assert len({tuple(answer.tokens) for answer in wanted}) == len(cases)
    assert sum(min(answer.n_clear, N_TOKENS) for answer in wanted) > len(cases) * N_TOKENS / 2
    with loaded(files, unified) as backend:
        assert backend.facts.adapters == ("one", "two")
        run = EngineRun(backend, max_running=4, batch_tokens=64)
        # the second time a prompt is in the prefix cache, once for each choice of adapters
        for first in (1, 1 + len(cases)):
            specs = [
                spec(first + at, prompt, max_tokens=N_TOKENS, adapters=adapters)
                for at, (prompt, adapters) in enumerate(cases)
            ]
            run.run(*specs)
            for at, answer in enumerate(wanted):
                n_clear = min(answer.n_clear, N_TOKENS)
                assert run.tokens(first + at)[:n_clear] == answer.tokens[:n_clear], cases[at]


def test_an_adapter_that_is_not_loaded_is_refused(files: dict[str, Path]) -> None:
    with loaded(files, KvUnified.TRUE) as backend:
        run = EngineRun(backend)
        run.run(spec(1, (40, 41), adapters=(AdapterUse("three"),)))
        (refused,) = [message for message in run.messages if isinstance(message, Refused)]
        assert refused.param == "lora"


def test_adapters_are_part_of_the_fingerprint(files: dict[str, Path]) -> None:
    prints = set()
    for chosen in ({}, {"one": files["one"]}, {"one": files["two"]}, {"1": files["one"]}):
        with loaded(chosen, KvUnified.TRUE) as backend:
            prints.add(backend.facts.fingerprint)
    assert len(prints) == 4


def test_a_file_that_is_no_adapter_of_the_model_is_named(files: dict[str, Path]) -> None:
    with (
        pytest.raises(ModelLoadError, match="adapter 'wrong'"),
        loaded({"wrong": made("llama")}, KvUnified.TRUE),
    ):
        pass
