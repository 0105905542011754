"""From Ollama's fields of a generation to those of the one internal request.

`options` has the sampling parameters. Options of loading, such as `num_ctx`, change nothing: a
model is loaded with the service's own configuration. Unknown ones are ignored, as Ollama does.
"""

from typing import Annotated, Any

from msgspec import Meta, Struct

from gpufc.errors import InvalidRequest
from supervisor.http.edge.values import converted
from supervisor.http.generation.constraints import ResponseFormat
from supervisor.http.generation.fields import GenerationFields
from supervisor.http.generation.thinking import switched

SAME_NAME = (
    "temperature",
    "top_k",
    "top_p",
    "min_p",
    "typical_p",
    "tfs_z",
    "repeat_last_n",
    "repeat_penalty",
    "presence_penalty",
    "frequency_penalty",
    "mirostat",
    "mirostat_tau",
    "mirostat_eta",
    "seed",
    "stop",
    "cache_prompt",
)
"""Options that llama-server calls the same, and `cache_prompt`, which is no option of Ollama's: the
clients pass options through, and no field."""

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


class OllamaFields(Struct, kw_only=True):
    """The fields that `/api/chat` and `/api/generate` share. A null is as good as absent.

    `stream` is true by default. `keep_alive` may have any form (`life.seconds_of`).
    """

    model: str | None = None
    stream: bool | None = None
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
    given = body.options or {}
    options = {name: given[name] for name in SAME_NAME if given.get(name) is not None}
    n_predict = given.get("num_predict")
    if isinstance(n_predict, bool) or not isinstance(n_predict, int | float | None):
        raise InvalidRequest("num_predict is a number", param="options.num_predict")
    if n_predict is not None and n_predict > 0:  # any other number is: as many as fit
        options["n_predict"] = n_predict
    checked = converted(options, GenerationFields)
    return {
        "model": body.model or None,
        "stream": body.streams,
        **{name: getattr(checked, name) for name in options if hasattr(checked, name)},
        **_constraint(body.format),
        **({"logprobs": True, "top_logprobs": body.top_logprobs} if body.logprobs else {}),
    }


def _constraint(wanted: Any) -> dict[str, Any]:
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
