"""From Ollama's fields of a generation to those of the one internal request.

`options` has the sampling parameters. Options of loading, such as `num_ctx`, change nothing: a
model is loaded with the service's own configuration. Unknown ones are ignored, as Ollama does.
"""

from typing import Annotated, Any, ClassVar

from msgspec import Meta

from gpufc.errors import InvalidRequest
from supervisor.http.edge.values import converted
from supervisor.http.generation.constraints import ResponseFormat, constraint_of
from supervisor.http.generation.fields import GenerationFields
from supervisor.http.generation.thinking import switched
from supervisor.http.generation.unsupported import is_neutral

SHARED = GenerationFields.__struct_fields__
"""The fields that all generating routes share. A client may send them as options or, as it would to
another server, beside them. Options go before."""

IGNORED = (
    "num_ctx",
    "num_keep",
    "num_batch",
    "num_gpu",
    "main_gpu",
    "num_thread",
    "numa",
    "low_vram",
    "use_mmap",
    "use_mlock",
    "penalize_newline",
)
"""Known options that change nothing here: of loading, and of samplers that Ollama has dropped."""

Think = bool | str


class OllamaFields(GenerationFields, kw_only=True):
    """The fields that `/api/chat` and `/api/generate` share. A null is as good as absent.

    `stream` is true by default. `keep_alive` may have any form (`life.seconds_of`).
    """

    SERVED: ClassVar[frozenset[str]] = frozenset({"format", "options", "think"})

    format: Any = None
    options: dict[str, Any] | None = None
    think: Think | None = None
    logprobs: bool | None = None
    top_logprobs: Annotated[int, Meta(ge=0)] | None = None
    keep_alive: Any = None

    @property
    def streams(self) -> bool:
        return self.stream is not False


def generation_fields(body: OllamaFields) -> dict[str, Any]:
    """The internal request's fields, by name. Raises `InvalidRequest`, or msgspec's errors for an
    option of the wrong type."""
    given = {name: value for name, value in (body.options or {}).items() if value is not None}
    n_predict = given.pop("num_predict", None)
    if isinstance(n_predict, bool) or not isinstance(n_predict, int | float | None):
        raise InvalidRequest("num_predict is a number", param="options.num_predict")
    if body.num_predict is not None:
        raise InvalidRequest("num_predict is one of options", param="num_predict")
    if n_predict is not None:
        # any number below 1 is: as many as fit
        given |= {"n_predict": n_predict if n_predict > 0 else -1, "max_tokens": None}
    found = {name: getattr(body, name) for name in SHARED if name not in body.SERVED}
    found |= _options(given, body.SERVED)
    if (found["n"] or 1) > 1:
        raise InvalidRequest("an answer has one choice; n is at most 1", param="n")
    return {
        **found,
        "model": body.model or None,
        "stream": body.streams,
        "stream_options": None,
        **_constraint(body.format, found),
        **({} if found["logprobs"] else _NO_LOGPROBS),
    }


def _options(given: dict[str, Any], served: frozenset[str]) -> dict[str, Any]:
    """The shared fields that options have, and nulls for their other names. `served` are fields
    that stand beside the options only."""
    for name in served:
        if name in given and not is_neutral(name, given[name]):
            raise InvalidRequest(
                f"{name} stands beside options, not in them", param=f"options.{name}"
            )
    names = [name for name in SHARED if name in given and name not in served | _NO_OPTIONS]
    checked = converted({name: given[name] for name in names}, GenerationFields)
    others = [other for group in _SAME for other in group if not group.isdisjoint(names)]
    return dict.fromkeys(others) | {name: getattr(checked, name) for name in names}


_SAME = (
    frozenset({"max_tokens", "n_predict"}),
    frozenset({"repeat_penalty", "repetition_penalty"}),
)
"""Names of one thing: an option goes before a field of the other name."""
_NO_OPTIONS = frozenset({"model", "stream", "stream_options"})
_NO_LOGPROBS = {"logprobs": None, "top_logprobs": None}


def _constraint(wanted: Any, found: dict[str, Any]) -> dict[str, Any]:
    """The format as one of the shared fields, `found`. Raises `InvalidRequest` where these ask for
    another one."""
    own = _format(wanted)
    asked, other = (constraint_of(GenerationFields(**fields)) for fields in (own, found))
    if asked is not None and other is not None and asked.key != other.key:
        raise InvalidRequest(f"format and {other.param} ask for two formats", param="format")
    return own


def _format(wanted: Any) -> dict[str, Any]:
    match wanted:
        case None | "":
            return {}
        case "json":
            return {"response_format": ResponseFormat("json_object")}
        case dict():
            return {"json_schema": wanted}
        case _:
            raise InvalidRequest('format is "json" or a JSON schema', param="format")


def thinking_fields(think: Think | None) -> dict[str, Any]:
    """The variables that switch the reasoning of a chat template, under the names in use. A model
    that does not reason ignores them."""
    if think is None:
        return {}
    found = {"chat_template_kwargs": switched(think is not False)}
    return found | ({"reasoning_effort": think} if isinstance(think, str) else {})
