"""The shapes of all routes, and the API's description made from them.

A new route gets its `Spec` here: the types that its handler decodes and encodes, and an example.
"""

from collections.abc import Iterable, Mapping

from gpufc import __version__
from gpufc.errors import NotFound
from supervisor.fleet.model_state import ModelState
from supervisor.http.anthropic.answer import MessageObject
from supervisor.http.anthropic.claude_code import Telemetry
from supervisor.http.anthropic.fields import MessagesBody
from supervisor.http.anthropic.messages import TokenCount
from supervisor.http.edge.errors import shape_for
from supervisor.http.generation.chat import ChatFields
from supervisor.http.llama_server import completion as native
from supervisor.http.llama_server import tokens
from supervisor.http.llama_server.answers import NativeCompletion
from supervisor.http.llama_server.embeddings import NativeEmbedding, NativeEmbeddingBody
from supervisor.http.llama_server.state import Props, Slot
from supervisor.http.llama_server.template import AppliedTemplate
from supervisor.http.ollama import chat as ollama_chat
from supervisor.http.ollama import completion as ollama_completion
from supervisor.http.ollama import embeddings as ollama_embeddings
from supervisor.http.ollama import models as ollama_models
from supervisor.http.ollama.library import PullBody, Pulled
from supervisor.http.openai import media
from supervisor.http.openai.chat import ChatCompletion
from supervisor.http.openai.completions import Completion, CompletionBody
from supervisor.http.openai.embeddings import EmbeddingBody, EmbeddingList
from supervisor.http.openai.functions import ChatCompletionBody
from supervisor.http.openai.models import Model, ModelList
from supervisor.http.openapi.document import Json, document, schema_of
from supervisor.http.openapi.spec import NDJSON, SERVER_SENT_EVENTS, Described, Spec
from supervisor.http.rerank import RerankBody, Reranked, TextResult
from supervisor.http.responses.answer import ResponseObject
from supervisor.http.responses.fields import ResponsesFields
from supervisor.http.responses.handlers import InputTokens
from supervisor.http.route import Route
from supervisor.http.service import admin, session

GROUPS = (
    ("/v1/messages", "Anthropic"),
    ("/api/hello", "Anthropic"),
    ("/api/event_logging/", "Anthropic"),
    ("/api/", "Ollama"),
    ("/v1/", "OpenAI"),
    ("/admin/", "Administration"),
    ("/", "Service"),
)
"""The group of routes by the beginning of the path."""

HELLO = [{"role": "user", "content": "Hello"}]

REFUSED = Spec(refuses=True)

SPECS: Mapping[tuple[str, str], Spec] = {
    ("POST", "/v1/chat/completions"): Spec(
        body=ChatCompletionBody,
        answer=ChatCompletion,
        stream=SERVER_SENT_EVENTS,
        example={"messages": HELLO, "max_tokens": 16},
    ),
    ("POST", "/v1/completions"): Spec(
        body=CompletionBody,
        answer=Completion,
        stream=SERVER_SENT_EVENTS,
        example={"prompt": "Hello", "max_tokens": 16},
    ),
    ("POST", "/v1/embeddings"): Spec(
        body=EmbeddingBody, answer=EmbeddingList, example={"input": ["Hello", "Goodbye"]}
    ),
    **{
        ("POST", path): Spec(
            body=NativeEmbeddingBody, answer=list[NativeEmbedding], example={"content": "Hello"}
        )
        for path in ("/embedding", "/embeddings")
    },
    **{
        ("POST", path): Spec(
            body=RerankBody,
            answer=Reranked | list[TextResult],
            example={"query": "greeting", "documents": ["Hello", "Goodbye"]},
        )
        for path in ("/v1/rerank", "/v1/reranking", "/v2/rerank")
    },
    ("POST", "/api/embed"): Spec(
        body=ollama_embeddings.EmbedBody,
        answer=ollama_embeddings.Embedded,
        example={"input": ["Hello", "Goodbye"]},
    ),
    ("POST", "/api/embeddings"): Spec(
        body=ollama_embeddings.EmbeddingsBody,
        answer=ollama_embeddings.OldEmbedded,
        example={"prompt": "Hello"},
    ),
    ("POST", "/v1/responses"): Spec(
        body=ResponsesFields,
        answer=ResponseObject,
        stream=SERVER_SENT_EVENTS,
        example={"input": "Hello", "max_output_tokens": 16},
    ),
    ("POST", "/v1/responses/input_tokens"): Spec(
        body=ResponsesFields, answer=InputTokens, example={"input": "Hello"}
    ),
    ("GET", "/v1/responses/{response}"): Spec(answer=ResponseObject),
    ("POST", "/v1/messages"): Spec(
        body=MessagesBody,
        answer=MessageObject,
        example={"messages": HELLO, "max_tokens": 16},
    ),
    ("POST", "/v1/messages/count_tokens"): Spec(
        body=MessagesBody, answer=TokenCount, example={"messages": HELLO}
    ),
    ("POST", "/api/event_logging/batch"): Spec(body=Telemetry, example={"events": []}),
    ("POST", "/session"): Spec(
        body=session.SignInBody, answer=session.SessionObject, example={"key": "gpufc_…"}
    ),
    ("GET", "/session"): Spec(answer=session.SessionObject),
    ("GET", "/v1/models"): Spec(answer=ModelList),
    ("GET", "/v1/models/{model:.+}"): Spec(answer=Model),
    ("POST", "/completion"): Spec(
        body=native.NativeBody,
        partial=True,
        answer=NativeCompletion | list[NativeCompletion],
        stream=SERVER_SENT_EVENTS,
        example={"prompt": "Hello", "n_predict": 16},
    ),
    ("POST", "/infill"): Spec(
        body=native.InfillBody,
        partial=True,
        answer=NativeCompletion,
        stream=SERVER_SENT_EVENTS,
        example={"input_prefix": "def add(", "input_suffix": "return a + b", "n_predict": 16},
    ),
    ("POST", "/apply-template"): Spec(
        body=ChatFields, answer=AppliedTemplate, example={"messages": HELLO}
    ),
    ("GET", "/props"): Spec(answer=Props),
    ("GET", "/slots"): Spec(answer=list[Slot]),
    ("POST", "/tokenize"): Spec(
        body=tokens.TokenizeBody, answer=tokens.Tokenized, example={"content": "Hello"}
    ),
    ("POST", "/detokenize"): Spec(
        body=tokens.DetokenizeBody, answer=tokens.Detokenized, example={"tokens": [1, 2]}
    ),
    ("POST", "/api/chat"): Spec(
        body=ollama_chat.ChatBody,
        answer=ollama_chat.ChatAnswer,
        stream=NDJSON,
        example={"messages": HELLO, "stream": False, "options": {"num_predict": 16}},
    ),
    ("POST", "/api/generate"): Spec(
        body=ollama_completion.GenerateBody,
        answer=ollama_completion.GenerateAnswer,
        stream=NDJSON,
        example={"prompt": "Hello", "stream": False, "options": {"num_predict": 16}},
    ),
    ("GET", "/api/tags"): Spec(answer=ollama_models.Models),
    ("GET", "/api/ps"): Spec(answer=ollama_models.LoadedModels),
    ("GET", "/api/version"): Spec(answer=ollama_models.Version),
    ("POST", "/api/show"): Spec(
        body=ollama_models.ShowBody, answer=ollama_models.Shown, example={"model": "default"}
    ),
    ("POST", "/api/pull"): Spec(
        body=PullBody, answer=Pulled, stream=NDJSON, example={"model": "default", "stream": False}
    ),
    ("POST", "/api/create"): REFUSED,
    ("POST", "/api/copy"): REFUSED,
    ("POST", "/api/push"): REFUSED,
    ("DELETE", "/api/delete"): REFUSED,
    **{("POST", path): REFUSED for path in media.PATHS},
    ("GET", "/dashboard/events"): Spec(stream=SERVER_SENT_EVENTS),
    ("POST", "/admin/models/load"): Spec(
        body=admin.ModelRequest, answer=ModelState, example={"model": "chat"}
    ),
    ("POST", "/admin/models/unload"): Spec(
        body=admin.ModelRequest, answer=ModelState, example={"model": "chat"}
    ),
    ("POST", "/v1/models/{model:.+}/load"): Spec(answer=ModelState),
    ("POST", "/v1/models/{model:.+}/unload"): Spec(answer=ModelState),
    ("POST", "/admin/restart"): Spec(body=admin.RestartRequest, example={}),
    ("POST", "/admin/reload"): Spec(body=admin.ReloadRequest, example={"dry_run": True}),
    ("POST", "/admin/swap"): Spec(
        body=admin.SwapRequest, example={"model_path": "/models/another.gguf"}
    ),
}
"""By method and path. A route without a body may lack one."""


def described(routes: Iterable[Route]) -> Json:
    """The OpenAPI document of a table of routes."""
    operations = [
        Described(
            route.method,
            route.path,
            (route.handler.__doc__ or "").partition("\n")[0],
            route.scope.value if route.scope else "",
            SPECS.get((route.method, route.path), Spec()),
            group(route.path),
        )
        for route in routes
    ]
    errors = {name: schema_of(shape_for(start)(NotFound(""), "")) for start, name in GROUPS}
    return document(operations, version=__version__, errors=errors)


def group(path: str) -> str:
    """The group that the description lists a path in."""
    return next(name for start, name in GROUPS if path.startswith(start))
