"""llama.cpp's own samplers, put together as its `common_sampler` does for llama-server."""

import ctypes
from collections.abc import Callable, Sequence
from typing import Any

import llama_cpp.llama_cpp as lc
import numpy as np
from numpy.typing import NDArray

from gpufc.sampling import SamplerName, SamplingParams

Row = NDArray[np.float32]


MANY = 10_000
"""Tokens: more than any history of a test has."""


class LlamaChain:
    """The samplers of one sequence after its history. `vocabulary` is a pointer, for DRY."""

    def __init__(
        self,
        wanted: SamplingParams,
        history: Sequence[int],
        n_vocab: int,
        vocabulary: Any = None,
    ) -> None:
        self._wanted, self._n_vocab = wanted, n_vocab
        self._vocabulary = vocabulary
        self._chain = lc.llama_sampler_chain_init(lc.llama_sampler_chain_default_params())
        if wanted.logit_bias:
            biases = (lc.llama_logit_bias * len(wanted.logit_bias))()
            for place, (token, bias) in enumerate(wanted.logit_bias):
                biases[place].token, biases[place].bias = token, bias
            self._add(lc.llama_sampler_init_logit_bias(n_vocab, len(biases), biases))
        if wanted.mirostat:
            self._add(lc.llama_sampler_init_temp(wanted.temperature))
            self._add(self._mirostat())
        else:
            for name in wanted.samplers:
                self._add(self._makers()[name]())
            self._add(lc.llama_sampler_init_dist(1))
        self.begin(history)

    def begin(self, history: Sequence[int]) -> None:
        """Begin again, after this history."""
        lc.llama_sampler_reset(self._chain)
        for token in history:
            lc.llama_sampler_accept(self._chain, token)

    def _add(self, sampler: Any) -> None:
        lc.llama_sampler_chain_add(self._chain, sampler)

    def _last_n(self, given: int) -> int:
        return MANY if given < 0 else given

    def _mirostat(self) -> Any:
        p = self._wanted
        if p.mirostat == 1:
            return lc.llama_sampler_init_mirostat(
                self._n_vocab, 1, p.mirostat_tau, p.mirostat_eta, 100
            )
        return lc.llama_sampler_init_mirostat_v2(1, p.mirostat_tau, p.mirostat_eta)

    def _dry(self) -> Any:
        p = self._wanted
        texts = [text.encode() for text in p.dry_sequence_breakers]
        last_n = self._last_n(p.dry_penalty_last_n)
        numbers = (p.dry_multiplier, p.dry_base, p.dry_allowed_length, last_n)
        given = (ctypes.c_char_p * len(texts))(*texts)
        return lc.llama_sampler_init_dry(self._vocabulary, *numbers, given, len(texts))

    def _makers(self) -> dict[SamplerName, Callable[[], Any]]:
        p, keep = self._wanted, self._wanted.min_keep
        return {
            SamplerName.PENALTIES: lambda: lc.llama_sampler_init_penalties(
                self._n_vocab,
                self._last_n(p.repeat_last_n),
                p.repeat_penalty,
                p.frequency_penalty,
                p.presence_penalty,
            ),
            SamplerName.DRY: self._dry,
            SamplerName.TOP_N_SIGMA: lambda: lc.llama_sampler_init_top_n_sigma(p.top_n_sigma),
            SamplerName.TOP_K: lambda: lc.llama_sampler_init_top_k(p.top_k),
            SamplerName.TYPICAL_P: lambda: lc.llama_sampler_init_typical(p.typical_p, keep),
            SamplerName.TOP_P: lambda: lc.llama_sampler_init_top_p(p.top_p, keep),
            SamplerName.MIN_P: lambda: lc.llama_sampler_init_min_p(p.min_p, keep),
            SamplerName.XTC: lambda: lc.llama_sampler_init_xtc(
                p.xtc_probability, p.xtc_threshold, keep, 1
            ),
            SamplerName.TEMPERATURE: lambda: lc.llama_sampler_init_temp_ext(
                p.temperature, p.dynatemp_range, p.dynatemp_exponent
            ),
        }

    def sample(self, logits: Row) -> tuple[dict[int, float], int]:
        """The probability of each token that is left, and the chosen token."""
        entries = np.zeros(len(logits), [("id", "i4"), ("logit", "f4"), ("p", "f4")])
        entries["id"], entries["logit"] = np.arange(len(logits)), logits
        data = entries.ctypes.data_as(ctypes.POINTER(lc.llama_token_data))
        left = lc.llama_token_data_array(data=data, size=len(logits), selected=-1, sorted=False)
        lc.llama_sampler_apply(self._chain, ctypes.byref(left))
        first = (ctypes.addressof(left.data.contents) - entries.ctypes.data) // entries.itemsize
        kept = entries[first : first + left.size]
        # a sampler may leave entries with -inf rather than take them out
        chosen, kept = int(kept["id"][left.selected]), kept[kept["logit"] > -np.inf]
        return dict(zip(kept["id"].tolist(), kept["p"].tolist(), strict=True)), chosen

    def distribution(self, logits: Row) -> dict[int, float]:
        """The probability of each token that is left."""
        return self.sample(logits)[0]

    def close(self) -> None:
        lc.llama_sampler_free(self._chain)
