"""How much of a set of JSON schemas is served, and whether masks allow the right instances.

    python -m scripts.lab.schemas SCHEMAS.jsonl.gz MODEL.gguf

Each line of the file has `name`, `schema`, `valid` and `invalid` instances. An instance is fed to
the masks token by token, as `json.dumps` writes it, with keys in the schema's order.
Times are CPU times of one thread.
"""

import gzip
import json
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import llama_cpp.llama_cpp as lc
import numpy as np

from engine_worker.backend.llama.vocabulary import Vocabulary
from engine_worker.constraints import llg
from engine_worker.constraints.grammar import grammar_of
from engine_worker.constraints.references import References
from gpufc.constraint import Constraint, ConstraintKind
from gpufc.errors import InvalidGrammar

_quiet = lc.llama_log_callback(lambda _level, _text, _: None)


class Model:
    """A vocabulary as the compiler asks for it."""

    def __init__(self, path: str) -> None:
        lc.llama_log_set(_quiet, None)
        params = lc.llama_model_default_params()
        params.vocab_only = True
        self._model = lc.llama_model_load_from_file(path.encode(), params)
        self.vocabulary = Vocabulary(lc, lc.llama_model_get_vocab(self._model))
        self.writable, self.written = self.vocabulary.piece, self.vocabulary.written
        self.end_tokens = self.vocabulary.end_tokens


def parts_of(schema: Any, references: References, depth: int = 0) -> Iterator[dict[str, Any]]:
    """The schema and everything that it holds together or chooses from, at one place."""
    schema = references.resolved(schema)
    if not isinstance(schema, dict) or depth > 8:
        return
    yield schema
    for key in ("allOf", "anyOf", "oneOf", "then", "else"):
        inner = schema.get(key, [])
        for part in inner if isinstance(inner, list) else [inner]:
            yield from parts_of(part, references, depth + 1)


def ordered(value: Any, schemas: list[Any], references: References) -> Any:
    """The value with the keys of each object in the schemas' order."""
    parts = [part for schema in schemas for part in parts_of(schema, references)]
    if isinstance(value, list):
        inner = [items for part in parts for items in items_of(part)]
        return [ordered(item, inner, references) for item in value]
    if not isinstance(value, dict):
        return value
    named: dict[str, list[Any]] = {}
    for part in parts:
        for name, schema in part.get("properties", {}).items():
            named.setdefault(name, []).append(schema)
        for name in part.get("required", []) if isinstance(part.get("required"), list) else []:
            named.setdefault(name, [])
    others = [
        schema
        for part in parts
        for schema in [
            *part.get("patternProperties", {}).values(),
            part.get("additionalProperties"),
        ]
    ]
    places = {name: place for place, name in enumerate(named)}
    names = sorted(value, key=lambda name: places.get(name, len(places)))
    return {name: ordered(value[name], named.get(name) or others, references) for name in names}


def items_of(schema: dict[str, Any]) -> list[Any]:
    found = []
    for key in ("items", "prefixItems", "additionalItems"):
        inner = schema.get(key, [])
        found += inner if isinstance(inner, list) else [inner]
    return found


class Tally:
    def __init__(self) -> None:
        self.mask_us: list[float] = []
        self.compile_ms: list[float] = []
        self.refusals: Counter[str] = Counter()
        self.n = Counter[str]()
        self.wrong: list[str] = []
        self.restore_ms: list[float] = []


def is_allowed(matcher: llg.Matcher, tokens: list[int], tally: Tally) -> bool:
    for token in tokens:
        since = time.thread_time()
        mask = matcher.mask()
        tally.mask_us.append(1e6 * (time.thread_time() - since))
        if not mask[token >> 5] >> (token & 31) & 1 or not matcher.consume((token,)):
            return False
    return matcher.is_accepting


def check(row: dict[str, Any], model: Model, tokenizer: llg.Tokenizer, tally: Tally) -> None:
    text = json.dumps(row["schema"])
    since = time.thread_time()
    try:
        grammar = grammar_of(Constraint(ConstraintKind.JSON_SCHEMA, text))
        matcher = llg.Matcher(tokenizer, grammar, is_json=True)
    except InvalidGrammar as err:
        tally.refusals[err.message[:80]] += 1
        return
    finally:
        tally.compile_ms.append(1e3 * (time.thread_time() - since))
    tally.n["accepted"] += 1
    references = References(row["schema"])
    for kind in ("valid", "invalid"):
        for number, instance in enumerate(row[kind]):
            written = json.dumps(ordered(instance, [row["schema"]], references), ensure_ascii=False)
            allowed = is_allowed(matcher.copy(), model.written(written), tally)
            tally.n[kind] += 1
            if allowed != (kind == "valid"):
                tally.wrong.append(f"{kind} {row['name']} #{number}: {written[:300]}")
                tally.n[f"{kind} wrong"] += 1


def main() -> None:
    model = Model(sys.argv[2])
    since = time.perf_counter()
    tokenizer = llg.Tokenizer(model, model.vocabulary.n_tokens)
    print(f"tokenizer: {time.perf_counter() - since:.2f} s, {model.vocabulary.n_tokens} tokens")
    tally, n_rows = Tally(), 0
    with gzip.open(Path(sys.argv[1])) as file:
        for line in file:
            check(json.loads(line), model, tokenizer, tally)
            n_rows += 1
    print(f"schemas: {n_rows}", dict(tally.n))
    for name, values in (("mask us", tally.mask_us), ("compile ms", tally.compile_ms)):
        p50, p99, most = np.percentile(values, [50, 99, 100])
        print(f"{name}: n={len(values)} p50={p50:.1f} p99={p99:.1f} max={most:.1f}")
    for reason, count in tally.refusals.most_common():
        print(f"  refused {count}: {reason}")
    for line in tally.wrong:
        print("  wrong", line)


if __name__ == "__main__":
    main()
