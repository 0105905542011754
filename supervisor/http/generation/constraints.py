"""The fields that constrain an answer's text: one thing under several names.

`constraint_of` reads OpenAI's, llama-server's and vLLM's fields into one `Constraint`. The worker
compiles it, and refuses what it cannot enforce.
"""

from typing import Any

import msgspec
from msgspec import Struct

from gpufc.constraint import MAX_CONSTRAINT_BYTES, Constraint, ConstraintKind
from gpufc.errors import InvalidGrammar, InvalidRequest
from supervisor.http.generation.unsupported import NotYet

Schema = dict[str, Any] | bool | str
Choices = list[str]


class NamedSchema(Struct, frozen=True):
    """OpenAI's wrapping of a schema. `strict` changes nothing: every schema is enforced."""

    schema: dict[str, Any] | bool | None = None


class ResponseFormat(Struct, frozen=True):
    """OpenAI's field. llama-server takes `schema` without the wrapping as well. Other servers have
    the types `json` and `regex` with a `value` (TGI), and `grammar` with a grammar (Fireworks)."""

    type: str
    json_schema: NamedSchema | None = None
    schema: dict[str, Any] | bool | None = None
    value: Schema | None = None
    regex: str | None = None
    pattern: str | None = None
    grammar: str | None = None


class StructuredOutputs(Struct, frozen=True):
    """vLLM's newer field, which has exactly one of these."""

    json: Schema | None = None
    regex: str | None = None
    choice: Choices | None = None
    grammar: str | None = None
    json_object: bool | None = None
    structural_tag: Any = None


class ConstraintFields(NotYet, kw_only=True):
    """All fields that ask for a constraint."""

    response_format: ResponseFormat | None = None
    json_schema: Schema | None = None
    grammar: str | None = None
    ebnf: str | None = None
    regex: str | None = None
    guided_json: Schema | None = None
    guided_regex: str | None = None
    guided_choice: Choices | None = None
    guided_grammar: str | None = None
    structured_outputs: StructuredOutputs | None = None


def constraint_of(body: ConstraintFields) -> Constraint | None:
    """The one constraint that a body asks for; None if it asks for none.

    Raises `InvalidRequest` for two of them, and `InvalidGrammar` for one that is too large.
    """
    found = [constraint for constraint in _asked(body) if constraint is not None]
    if not found:
        return None
    first = found[0]
    for other in found[1:]:
        if other.key != first.key:
            raise InvalidRequest(
                f"{first.param} and {other.param} ask for two formats", param=other.param
            )
    if len(first.text.encode("utf-8", "replace")) > MAX_CONSTRAINT_BYTES:
        raise InvalidGrammar(
            f"a schema or grammar has at most {MAX_CONSTRAINT_BYTES} bytes", param=first.param
        )
    return first


def _asked(body: ConstraintFields) -> list[Constraint | None]:
    return [
        _response_format(body.response_format),
        _schema(body.json_schema, "json_schema"),
        _grammar(body.grammar, "grammar"),
        _grammar(body.ebnf, "ebnf"),
        _regex(body.regex, "regex"),
        _schema(body.guided_json, "guided_json"),
        _regex(body.guided_regex, "guided_regex"),
        _choice(body.guided_choice, "guided_choice"),
        _grammar(body.guided_grammar, "guided_grammar"),
        *_structured_outputs(body.structured_outputs),
    ]


def _response_format(given: ResponseFormat | None) -> Constraint | None:
    if given is None:
        return None
    param = "response_format"
    schema = given.schema
    if given.json_schema is not None and given.json_schema.schema is not None:
        schema = given.json_schema.schema
    match given.type:
        case "text":
            return None
        case "json_object" | "json":
            wanted = given.value if schema is None else schema
            return _schema(wanted, param) or Constraint(ConstraintKind.JSON_OBJECT, param=param)
        case "json_schema" if schema is None:
            raise InvalidRequest(
                "response_format of type json_schema needs json_schema.schema",
                param="response_format.json_schema",
            )
        case "json_schema":
            return _schema(schema, param)
        case "regex":
            text = given.regex or given.pattern or given.value
            return _regex(_needed(text, "regex"), param)
        case "grammar" | "ebnf":
            return _grammar(_needed(given.grammar or given.value, "grammar"), param)
        case other:
            raise InvalidRequest(
                f"response_format of type {other[:50]!r} is not supported",
                param="response_format.type",
            )


def _needed(text: Schema | None, key: str) -> str:
    if not isinstance(text, str) or not text:
        raise InvalidRequest(
            f"response_format of this type needs {key}", param=f"response_format.{key}"
        )
    return text


def _structured_outputs(given: StructuredOutputs | None) -> list[Constraint | None]:
    if given is None:
        return []
    param = "structured_outputs"
    if given.structural_tag is not None:
        raise InvalidRequest("structural_tag is not supported yet", param=f"{param}.structural_tag")
    is_object = given.json_object
    return [
        _schema(given.json, f"{param}.json"),
        _regex(given.regex, f"{param}.regex"),
        _choice(given.choice, f"{param}.choice"),
        _grammar(given.grammar, f"{param}.grammar"),
        Constraint(ConstraintKind.JSON_OBJECT, param=f"{param}.json_object") if is_object else None,
    ]


def _schema(given: Schema | None, param: str) -> Constraint | None:
    if given is None or given == "":
        return None
    text = given if isinstance(given, str) else msgspec.json.encode(given).decode()
    return Constraint(ConstraintKind.JSON_SCHEMA, text, param)


def _regex(given: str | None, param: str) -> Constraint | None:
    return Constraint(ConstraintKind.REGEX, given, param) if given else None


def _choice(given: Choices | None, param: str) -> Constraint | None:
    if not given:
        return None
    return Constraint(ConstraintKind.CHOICE, msgspec.json.encode(given).decode(), param)


def _grammar(given: str | None, param: str) -> Constraint | None:
    """GBNF writes rules with `::=`, Lark with `:`."""
    if not given:
        return None
    kind = ConstraintKind.GBNF if "::=" in given else ConstraintKind.LARK
    return Constraint(kind, given, param)
