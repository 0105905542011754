"""From a constraint to llguidance's grammar: limits, then rewriting, then its own compiler.

Runs in the disposable process. Nothing that a client asks for is dropped: a keyword that no mask
can enforce is refused by its name.
"""

import json
from collections.abc import Sequence

import msgspec

from engine_worker.constraints import limits, llg
from engine_worker.constraints.answer import lark_of
from engine_worker.constraints.schema import rewritten
from gpufc.answer_format import AnswerFormat
from gpufc.constraint import Constraint, ConstraintKind
from gpufc.errors import InvalidGrammar


def grammar_of(constraint: Constraint, control: Sequence[str] = (), *, loose: bool = False) -> str:
    """The grammar of a constraint. That of an answer's format is a Lark text, which
    `llg.with_tokens` completes: `control` are the control tokens among the format's markers; for
    `loose` see `lark_of`.

    Raises `InvalidGrammar`.
    """
    limits.check_constraint(constraint)
    match constraint.kind:
        case ConstraintKind.JSON_OBJECT:
            return llg.from_json_schema('{"type": "object"}')
        case ConstraintKind.JSON_SCHEMA:
            limits.check_nesting(constraint.text, limits.MAX_JSON_NESTING, "[{", "]}")
            return llg.from_json_schema(json.dumps(rewritten(_loaded(constraint.text))))
        case ConstraintKind.CHOICE:
            return llg.from_lark(_choices(_loaded(constraint.text)))
        case ConstraintKind.REGEX:
            _check_grammar(constraint.text)
            return llg.from_regex(constraint.text)
        case ConstraintKind.LARK:
            _check_grammar(constraint.text)
            return llg.from_lark(constraint.text)
        case ConstraintKind.GBNF:
            _check_grammar(constraint.text)
            return llg.from_gbnf(constraint.text)
        case ConstraintKind.ANSWER:
            return lark_of(_format(constraint.text), control, loose=loose)


def _format(text: str) -> AnswerFormat:
    limits.check_nesting(text, 2 * limits.MAX_JSON_NESTING, "[{", "]}")
    try:
        return msgspec.json.decode(text, type=AnswerFormat)
    except msgspec.MsgspecError as err:
        raise InvalidGrammar(f"it is no format of an answer: {err}") from None


def _check_grammar(text: str) -> None:
    if not text.strip():
        raise InvalidGrammar("it is empty")
    limits.check_nesting(text, limits.MAX_NESTING)
    limits.check_repeats(text)


def _loaded(text: str) -> object:
    try:
        return json.loads(text, parse_constant=_no_constant)
    except (ValueError, RecursionError) as err:
        raise InvalidGrammar(f"it is no JSON: {err}") from None


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is no JSON value")


def _choices(given: object) -> str:
    if not isinstance(given, list) or not given or not all(isinstance(x, str) for x in given):
        raise InvalidGrammar("choices are a list of strings")
    if len(given) > limits.MAX_CHOICES:
        raise InvalidGrammar(f"at most {limits.MAX_CHOICES} choices")
    if "" in given:
        raise InvalidGrammar("a choice is not empty")
    return "start: " + " | ".join(json.dumps(choice, ensure_ascii=False) for choice in given)
