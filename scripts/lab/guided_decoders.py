"""Guided decoders behind one port, to be compared by `scripts.lab.schema_peers`.

xgrammar has to be installed beside gpufc for its own. llama.cpp's sampler has no mask: it is
applied to one candidate to test a token, and to the whole vocabulary every 16th token to take its
time.
"""

import time
from typing import Any, Protocol

import llama_cpp.llama_cpp as lc
import numpy as np

from engine_worker.constraints import llg
from engine_worker.constraints.grammar import grammar_of
from gpufc.constraint import Constraint, ConstraintKind
from scripts.lab.schemas import Model


class Guide(Protocol):
    """The state of one answer."""

    def allows(self, token: int) -> bool:
        """Look up one token in the mask, and read it. False if it is not allowed."""
        ...

    def may_end(self) -> bool: ...

    def read(self, tokens: list[int]) -> None:
        """Go on after tokens that are allowed, without masks: how a replay restores a state."""
        ...

    def mask(self) -> None: ...


class Decoder(Protocol):
    """One guided decoder over one vocabulary. `mask_us` collects the CPU times of its masks."""

    mask_us: list[float]

    def compile(self, schema: str) -> Any:
        """Raises any error for a schema that is not accepted."""
        ...

    def guide(self, compiled: Any) -> Guide: ...


class Raw:
    """llguidance with the schema as it came."""

    def __init__(self, model: Model) -> None:
        self.tokenizer = llg.Tokenizer(model, model.vocabulary.n_tokens)
        self.mask_us: list[float] = []

    def grammar(self, schema: str) -> str:
        import llguidance

        return str(llguidance.LLMatcher.grammar_from_json_schema(schema, defaults=llg.JSON_LAYOUT))

    def compile(self, schema: str) -> llg.Matcher:
        return llg.Matcher(self.tokenizer, self.grammar(schema), is_json=True)

    def guide(self, compiled: llg.Matcher) -> Guide:
        return _LlgGuide(self, compiled.copy())


class Rewritten(Raw):
    """llguidance as gpufc uses it: the schema is checked and rewritten first."""

    def grammar(self, schema: str) -> str:
        return grammar_of(Constraint(ConstraintKind.JSON_SCHEMA, schema))


class _LlgGuide:
    def __init__(self, decoder: Raw, matcher: llg.Matcher) -> None:
        self._decoder, self._matcher = decoder, matcher

    def allows(self, token: int) -> bool:
        since = time.thread_time()
        words = self._matcher.mask()
        self._decoder.mask_us.append(1e6 * (time.thread_time() - since))
        is_allowed = bool(words[token >> 5] >> (token & 31) & 1)
        return is_allowed and self._matcher.consume((token,)) == 1

    def may_end(self) -> bool:
        return self._matcher.is_accepting

    def read(self, tokens: list[int]) -> None:
        if self._matcher.consume(tokens) != len(tokens):
            raise ValueError("a token is not allowed")

    def mask(self) -> None:
        self._matcher.mask()


class XGrammar:
    def __init__(self, model: Model) -> None:
        import xgrammar as xgr

        self._xgr = xgr
        n = model.vocabulary.n_tokens
        spelt = [model.vocabulary.piece(token) for token in range(n)]
        self.ends = sorted(model.end_tokens)
        info = xgr.TokenizerInfo(
            spelt, vocab_type=xgr.VocabType.RAW, vocab_size=n, stop_token_ids=self.ends
        )
        self._compiler = xgr.GrammarCompiler(info, max_threads=1, cache_enabled=False)
        self._mask = xgr.allocate_token_bitmask(1, n)
        self._words = self._mask.numpy()[0]
        self.mask_us: list[float] = []

    def compile(self, schema: str) -> Any:
        return self._compiler.compile_json_schema(
            schema, any_whitespace=False, separators=(", ", ": "), strict_mode=False
        )

    def guide(self, compiled: Any) -> Guide:
        return _XGuide(self, self._xgr.GrammarMatcher(compiled))

    def fill(self, matcher: Any) -> None:
        matcher.fill_next_token_bitmask(self._mask)

    def allowed(self, matcher: Any, tokens: list[int]) -> bool:
        since = time.thread_time()
        self.fill(matcher)
        self.mask_us.append(1e6 * (time.thread_time() - since))
        return any(int(self._words[token >> 5]) >> (token & 31) & 1 for token in tokens)


class _XGuide:
    def __init__(self, decoder: XGrammar, matcher: Any) -> None:
        self._decoder, self._matcher = decoder, matcher

    def allows(self, token: int) -> bool:
        is_allowed = self._decoder.allowed(self._matcher, [token])
        return is_allowed and bool(self._matcher.accept_token(token))

    def may_end(self) -> bool:
        return self._decoder.allowed(self._matcher, self._decoder.ends)

    def read(self, tokens: list[int]) -> None:
        if not all(map(self._matcher.accept_token, tokens)):
            raise ValueError("a token is not allowed")

    def mask(self) -> None:
        self._decoder.fill(self._matcher)


class Llama:
    """llama.cpp's grammar sampler, with llama-cpp-python's way from a schema to GBNF."""

    def __init__(self, model: Model) -> None:
        self._vocab = model.vocabulary.pointer
        self._n = model.vocabulary.n_tokens
        self.ends = sorted(model.end_tokens)
        self.mask_us: list[float] = []
        self._all = (lc.llama_token_data * self._n)()

    def compile(self, schema: str) -> str:
        from llama_cpp.llama_grammar import json_schema_to_gbnf

        grammar: str = json_schema_to_gbnf(schema)
        self.guide(grammar)
        return grammar

    def guide(self, compiled: str) -> Guide:
        sampler = lc.llama_sampler_init_grammar(self._vocab, compiled.encode(), b"root")
        if not sampler:
            raise ValueError("llama.cpp refuses the grammar")
        return _LlamaGuide(self, sampler)

    def passes(self, sampler: Any, token: int) -> bool:
        data = (lc.llama_token_data * 1)((token, 0.0, 0.0))
        array = lc.llama_token_data_array(data, 1, -1, False)
        lc.llama_sampler_apply(sampler, array)
        return bool(np.isfinite(data[0].logit))

    def apply(self, sampler: Any) -> None:
        for token in range(self._n):
            self._all[token] = (token, 0.0, 0.0)
        array = lc.llama_token_data_array(self._all, self._n, -1, False)
        since = time.thread_time()
        lc.llama_sampler_apply(sampler, array)
        self.mask_us.append(1e6 * (time.thread_time() - since))


class _LlamaGuide:
    def __init__(self, decoder: Llama, sampler: Any) -> None:
        self._decoder, self._sampler, self._n = decoder, sampler, 0

    def __del__(self) -> None:
        lc.llama_sampler_free(self._sampler)

    def allows(self, token: int) -> bool:
        if self._n % 16 == 0:
            self._decoder.apply(self._sampler)
        self._n += 1
        if not self._decoder.passes(self._sampler, token):
            return False
        self.read([token])
        return True

    def may_end(self) -> bool:
        return any(self._decoder.passes(self._sampler, token) for token in self._decoder.ends)

    def read(self, tokens: list[int]) -> None:
        for token in tokens:
            lc.llama_sampler_accept(self._sampler, token)

    def mask(self) -> None:
        self._decoder.apply(self._sampler)


DECODERS: dict[str, type[Decoder]] = {
    "llguidance, raw": Raw,
    "llguidance, rewritten": Rewritten,
    "xgrammar": XGrammar,
    "llama.cpp": Llama,
}
