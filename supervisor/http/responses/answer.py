"""The response object: the request's fields as it repeats them, and the answer. Pure."""

from typing import Any

from msgspec import Struct

from gpufc.sampling import SamplingParams
from supervisor.dispatch.stream import Usage
from supervisor.http.responses.fields import (
    AskedReasoning,
    ReasoningFields,
    ResponsesFields,
    TextFormat,
)
from supervisor.http.responses.output_items import OutputItem, Status


class TextEcho(Struct, frozen=True):
    format: TextFormat
    verbosity: str


class Echo(Struct, frozen=True, kw_only=True):
    """The request's fields that its answer repeats, with the values in force."""

    background: bool = False
    instructions: str | None
    max_output_tokens: int | None
    max_tool_calls: int | None
    metadata: dict[str, Any]
    parallel_tool_calls: bool
    previous_response_id: str | None
    prompt_cache_key: str | None
    reasoning: ReasoningFields
    safety_identifier: str | None
    service_tier: str = "default"
    store: bool
    text: TextEcho
    tool_choice: str | dict[str, Any]
    tools: list[dict[str, Any]]
    truncation: str
    user: str | None
    temperature: float
    top_p: float
    top_logprobs: int
    presence_penalty: float
    frequency_penalty: float


class InputTokensDetails(Struct, frozen=True):
    cached_tokens: int
    cache_write_tokens: int = 0


class OutputTokensDetails(Struct, frozen=True):
    """`reasoning_tokens` is 0: tokens are not counted by kind."""

    reasoning_tokens: int = 0


class UsageObject(Struct, frozen=True):
    input_tokens: int
    input_tokens_details: InputTokensDetails
    output_tokens: int
    output_tokens_details: OutputTokensDetails
    total_tokens: int

    @classmethod
    def of(cls, usage: Usage) -> "UsageObject":
        """From the counts of a stream."""
        return cls(
            usage.prompt,
            InputTokensDetails(usage.cached),
            usage.completion,
            OutputTokensDetails(),
            usage.prompt + usage.completion,
        )


class ErrorObject(Struct, frozen=True):
    """The error of a response that has failed."""

    code: str
    message: str


class IncompleteDetails(Struct, frozen=True):
    reason: str = "max_output_tokens"


class ResponseObject(Echo, frozen=True, kw_only=True):
    """OpenAI's response. Times are unix time in seconds."""

    id: str
    object: str = "response"
    created_at: int
    completed_at: int | None
    status: Status
    error: ErrorObject | None
    incomplete_details: IncompleteDetails | None
    model: str
    output: tuple[OutputItem, ...]
    usage: UsageObject | None


class Reply(Struct, frozen=True, kw_only=True):
    """The facts of one response that do not change while it is made."""

    id: str
    created_at: int
    model: str
    echo: Echo

    def document(
        self,
        status: Status,
        *,
        output: tuple[OutputItem, ...] = (),
        usage: Usage | None = None,
        error: ErrorObject | None = None,
        completed_at: int | None = None,
    ) -> ResponseObject:
        """The response as it is now."""
        is_cut = status is Status.INCOMPLETE
        return ResponseObject(
            **{name: getattr(self.echo, name) for name in Echo.__struct_fields__},
            id=self.id,
            created_at=self.created_at,
            completed_at=completed_at if status is Status.COMPLETED else None,
            status=status,
            error=error,
            incomplete_details=IncompleteDetails() if is_cut else None,
            model=self.model,
            output=output,
            usage=None if usage is None else UsageObject.of(usage),
        )


def echo_of(body: ResponsesFields, sampling: SamplingParams) -> Echo:
    """The fields as a response repeats them. `sampling` is in force."""
    return Echo(
        instructions=body.instructions,
        max_output_tokens=body.max_output_tokens,
        max_tool_calls=body.max_tool_calls,
        metadata=body.metadata or {},
        parallel_tool_calls=body.parallel_tool_calls is not False,
        previous_response_id=body.previous_response_id,
        prompt_cache_key=body.prompt_cache_key,
        reasoning=_repeated(body.reasoning),
        safety_identifier=body.safety_identifier,
        store=body.store is not False,
        text=TextEcho(
            (body.text.format if body.text else None) or TextFormat("text"),
            (body.text.verbosity if body.text else None) or "medium",
        ),
        tool_choice=body.tool_choice or "auto",
        tools=[_tool(entry) for entry in body.tools or ()],
        truncation=body.truncation or "disabled",
        user=body.user,
        temperature=sampling.temperature,
        top_p=sampling.top_p,
        top_logprobs=body.top_logprobs or 0,
        presence_penalty=sampling.presence_penalty,
        frequency_penalty=sampling.frequency_penalty,
    )


def _repeated(asked: AskedReasoning | None) -> ReasoningFields:
    return ReasoningFields() if asked is None else ReasoningFields(asked.effort, asked.summary)


def _tool(entry: dict[str, Any]) -> dict[str, Any]:
    """A tool as given. OpenAI's object of a function has these keys always."""
    if entry.get("type") != "function":
        return entry
    return {"description": None, "parameters": None, "strict": None, **entry}
