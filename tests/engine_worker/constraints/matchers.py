"""Constraints compiled for a vocabulary of bytes."""

import json
from typing import Any

from engine_worker.constraints import llg
from engine_worker.constraints.compiler import WHOLE_JSON
from engine_worker.constraints.grammar import grammar_of
from gpufc.constraint import Constraint, ConstraintKind

TOKENIZER = llg.trial_tokenizer()


def schema(given: Any) -> Constraint:
    return Constraint(ConstraintKind.JSON_SCHEMA, json.dumps(given), "json_schema")


def matcher(constraint: Constraint) -> llg.Matcher:
    is_json = constraint.kind in WHOLE_JSON
    return llg.Matcher(TOKENIZER, grammar_of(constraint), is_json=is_json)


def allows(constraint: Constraint, text: str) -> bool:
    """Whether the masks let the text pass, byte by byte, and let it end there."""
    found = matcher(constraint)
    for byte in text.encode():
        words = found.mask()
        if not words[byte >> 5] >> (byte & 31) & 1 or not found.consume((byte,)):
            return False
    return found.is_accepting
