"""Prompts with common prefixes, one after the other, in an engine on the scripted backend."""

from engine_worker.backend.fake.backend import FakeBackend, expected_text
from engine_worker.backend.fake.vocabulary import tokenize
from gpufc.config import ModelConfig
from gpufc.ids import Epoch, RequestId, RequestNo
from gpufc.protocol import Generate
from gpufc.sampling import SamplingParams
from tests.engine_worker.engine.engine_runs import EngineRun

N_TOKENS = 9


class PrefixRun:
    """An engine with the prefixes of its prompts so far. The backend raises where one of them is
    reused that it no longer holds whole."""

    def __init__(self, config: ModelConfig, *, batch_tokens: int = 32) -> None:
        self._most = config.n_ctx - 2 * N_TOKENS
        self._run = EngineRun(FakeBackend(config, 8), max_running=3, batch_tokens=batch_tokens)
        self._n_requests = 0

    def n_cached(self, prompt: str) -> int:
        """Answer a prompt, and check the text. The number of its tokens that were not computed."""
        self._n_requests += 1
        tokens = tuple(tokenize(prompt, add_special=True, parse_special=True))[-self._most :]
        self._run.run(
            Generate(
                Epoch(1),
                RequestNo(self._n_requests),
                RequestId("prefix"),
                choice=0,
                prompt_tokens=tokens,
                sampling=SamplingParams(seed=1),
                max_tokens=N_TOKENS,
            )
        )
        assert self._run.text(self._n_requests) == expected_text(list(tokens), N_TOKENS)
        return self._run.n_cached
