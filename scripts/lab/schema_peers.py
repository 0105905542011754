"""The schemas of `scripts.lab.schemas` on other guided decoders: xgrammar and llama.cpp's grammars.

    python -m scripts.lab.schema_peers xgrammar|llama SCHEMAS.jsonl.gz MODEL.gguf

xgrammar has to be installed beside gpufc for it. llama.cpp's sampler has no mask: it is applied to
one candidate to test an instance, and to the whole vocabulary every 16th token to take its time.
A schema that takes longer than `LIMIT_S`, or that ends its process, counts as refused by name.
"""

import gzip
import json
import multiprocessing
import sys
import time
from collections import Counter
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Protocol

import llama_cpp.llama_cpp as lc
import numpy as np

from engine_worker.constraints.references import References
from scripts.lab.schemas import Model, ordered

LIMIT_S = 20.0


class Guide(Protocol):
    """One instance's reading. `allows` reads a token; False if it is not allowed."""

    def allows(self, token: int) -> bool: ...
    def may_end(self) -> bool: ...


class XGrammar:
    def __init__(self, model: Model) -> None:
        import xgrammar as xgr

        self._xgr = xgr
        n = model.vocabulary.n_tokens
        spelt = [model.vocabulary.piece(token) for token in range(n)]
        self._ends = sorted(model.end_tokens)
        info = xgr.TokenizerInfo(
            spelt, vocab_type=xgr.VocabType.RAW, vocab_size=n, stop_token_ids=self._ends
        )
        self._compiler = xgr.GrammarCompiler(info, cache_enabled=False)
        self._mask = xgr.allocate_token_bitmask(1, n)
        self._words = self._mask.numpy()[0]
        self.mask_us: list[float] = []

    def compile(self, schema: str) -> Any:
        return self._compiler.compile_json_schema(
            schema, any_whitespace=False, separators=(", ", ": "), strict_mode=False
        )

    def guide(self, compiled: Any) -> Guide:
        return _XGuide(self, self._xgr.GrammarMatcher(compiled))

    def allowed(self, matcher: Any, tokens: list[int]) -> bool:
        since = time.thread_time()
        matcher.fill_next_token_bitmask(self._mask)
        self.mask_us.append(1e6 * (time.thread_time() - since))
        return any(int(self._words[token >> 5]) >> (token & 31) & 1 for token in tokens)

    @property
    def ends(self) -> list[int]:
        return self._ends


class _XGuide:
    def __init__(self, peer: XGrammar, matcher: Any) -> None:
        self._peer, self._matcher = peer, matcher

    def allows(self, token: int) -> bool:
        return self._peer.allowed(self._matcher, [token]) and self._matcher.accept_token(token)

    def may_end(self) -> bool:
        return self._peer.allowed(self._matcher, self._peer.ends)


class Llama:
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

    def take_time(self, sampler: Any) -> None:
        for token in range(self._n):
            self._all[token] = (token, 0.0, 0.0)
        array = lc.llama_token_data_array(self._all, self._n, -1, False)
        since = time.thread_time()
        lc.llama_sampler_apply(sampler, array)
        self.mask_us.append(1e6 * (time.thread_time() - since))


class _LlamaGuide:
    def __init__(self, peer: Llama, sampler: Any) -> None:
        self._peer, self._sampler, self._n = peer, sampler, 0

    def allows(self, token: int) -> bool:
        if self._n % 16 == 0:
            self._peer.take_time(self._sampler)
        self._n += 1
        if not self._peer.passes(self._sampler, token):
            return False
        lc.llama_sampler_accept(self._sampler, token)
        return True

    def may_end(self) -> bool:
        return any(self._peer.passes(self._sampler, token) for token in self._peer.ends)


PEERS = {"xgrammar": XGrammar, "llama": Llama}


def serve(name: str, model_path: str, connection: Connection) -> None:
    """Check the rows that come, in a process that may die of one."""
    model = Model(model_path)
    since = time.perf_counter()
    peer = PEERS[name](model)
    connection.send(time.perf_counter() - since)
    while True:
        row = json.loads(connection.recv())
        connection.send(checked(row, model, peer))


def checked(row: dict[str, Any], model: Model, peer: Any) -> dict[str, Any]:
    since = time.thread_time()
    try:
        compiled = peer.compile(json.dumps(row["schema"]))
    except Exception as err:  # each peer has errors of its own
        first = (str(err).splitlines() or [""])[0]
        return {"refused": f"{type(err).__name__}: {first[:80]}"}
    found: dict[str, Any] = {"compile_ms": 1e3 * (time.thread_time() - since), "wrong": []}
    references = References(row["schema"])
    peer.mask_us.clear()
    for kind in ("valid", "invalid"):
        for instance in row[kind]:
            written = json.dumps(ordered(instance, [row["schema"]], references), ensure_ascii=False)
            guide = peer.guide(compiled)
            allowed = all(map(guide.allows, model.written(written))) and guide.may_end()
            found[kind] = found.get(kind, 0) + 1
            if allowed != (kind == "valid"):
                found["wrong"].append(kind)
    found["mask_us"] = list(peer.mask_us)
    return found


def main() -> None:
    name, schemas, model = sys.argv[1:4]
    spawn = multiprocessing.get_context("spawn")
    child, here, read_s = None, None, 0.0
    n, refused = Counter[str](), Counter[str]()
    compile_ms: list[float] = []
    mask_us: list[float] = []
    with gzip.open(Path(schemas)) as file:
        for line in file:
            if child is None or here is None:
                here, there = spawn.Pipe()
                child = spawn.Process(target=serve, args=(name, model, there), daemon=True)
                child.start()
                there.close()
                read_s = here.recv()
            here.send(line.decode())
            try:
                found = here.recv() if here.poll(LIMIT_S) else {"refused": "too slow"}
            except EOFError:
                found = {"refused": "the process died"}
            if found.get("refused") in ("too slow", "the process died"):
                child.kill()
                child = here = None
            n["schemas"] += 1
            if "refused" in found:
                refused[found["refused"]] += 1
                continue
            n["accepted"] += 1
            n.update({kind: found.get(kind, 0) for kind in ("valid", "invalid")})
            n.update(f"{kind} wrong" for kind in found["wrong"])
            compile_ms.append(found["compile_ms"])
            mask_us += found["mask_us"]
    print(name, f"vocabulary read in {read_s:.2f} s", dict(n))
    for title, values in (("mask us", mask_us), ("compile ms", compile_ms)):
        p50, p99, most = np.percentile(values, [50, 99, 100])
        print(f"{title}: n={len(values)} p50={p50:.1f} p99={p99:.1f} max={most:.1f}")
    for reason, count in refused.most_common(25):
        print(f"  refused {count}: {reason}")


if __name__ == "__main__":
    main()
