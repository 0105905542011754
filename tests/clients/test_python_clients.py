"""Clients of PyPI over the scripted engine: a whole answer, a stream, a round trip with a tool.

Each script in `scripts` uses its client as the client's documentation shows. It prints the answers.
"""

from collections.abc import Callable
from pathlib import Path

import pytest

from engine_worker.backend.fake.embedder import expected_vector
from engine_worker.backend.fake.vocabulary import tokenize
from tests.clients.environment import printed, python_with
from tests.clients.table import Seen
from tests.service import Service

pytestmark = pytest.mark.slow

SCRIPTS = Path(__file__).parent / "scripts"
PROMPT = "[[say:Hello there.]][[stop@12]]"
CALL = '<tool_call>\n{"name": "lookup", "arguments": {"word": "tea"}}\n</tool_call>'
TOOL_PROMPT = f"[[say:Look.{CALL}]][[stop@{len(CALL) + 5}]]"
TYPED = '<tool_call>\n{"name": "Person", "arguments": {"name": "Ann", "age": 31}}\n</tool_call>'

LANGCHAIN = ("langchain-openai", "langchain-anthropic", "langchain-ollama")
LLAMA_INDEX = ("llama-index-llms-openai-like", "llama-index-llms-ollama")
# its adapter makes an instance of a type that is a union from 2 on
PYDANTIC_AI = ("pydantic-ai-slim[openai,anthropic]", "anthropic<2")
CHATS = [
    *(("chat_litellm.py", model, ("litellm",)) for model in (
        "openai/default", "anthropic/claude-x", "ollama_chat/default"
    )),
    *(("chat_langchain.py", package, LANGCHAIN) for package in LANGCHAIN),
    *(("chat_llama_index.py", package, LLAMA_INDEX) for package in LLAMA_INDEX),
    *(("chat_pydantic_ai.py", api, PYDANTIC_AI) for api in ("chat", "responses", "messages")),
]  # fmt: skip
Python = Callable[..., Path]


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> Python:
    """The interpreter of an environment with packages, made once for each set of them."""
    made: dict[tuple[str, ...], Path] = {}

    def of(*packages: str) -> Path:
        if packages not in made:
            folder = tmp_path_factory.mktemp("client") / "venv"
            made[packages] = python_with(folder, *packages)
        return made[packages]

    return of


@pytest.mark.parametrize(("script", "kind", "packages"), CHATS)
def test_a_client_chats_streams_and_has_its_tool_called(
    running: Service,
    python: Python,
    seen: Seen,
    script: str,
    kind: str,
    packages: tuple[str, ...],
) -> None:
    given = (running.url, PROMPT, TOOL_PROMPT, kind)
    found = printed(python(*packages), SCRIPTS / script, *given)
    assert found["whole"] == found["streamed"] == "Hello there."
    assert found["called"] == ["tea"]
    assert found["final"] == "Look."
    seen.add(found["versions"], f"{kind}: chat, stream, tool round trip")


def test_instructor_gets_a_typed_answer(running: Service, python: Python, seen: Seen) -> None:
    prompt = f"[[say:{TYPED}]][[stop@{len(TYPED)}]]"
    found = printed(python("instructor"), SCRIPTS / "typed_instructor.py", running.url, prompt)
    assert found["whole"] == {"name": "Ann", "age": 31}
    assert [type(value) for value in found["streamed"].values()] == [str, int]
    seen.add(found["versions"], "typed answer, stream of partial ones")


def test_clients_read_embeddings(running: Service, python: Python, seen: Seen) -> None:
    texts = ["a cat", "a dog"]
    packages = ("openai", "litellm", "langchain-openai", "langchain-ollama")
    found = printed(python(*packages), SCRIPTS / "embeddings.py", running.url, *texts)
    expected = [expected_vector(tokenize(text, add_special=True)) for text in texts]
    for vectors in found["found"].values():
        assert [pytest.approx(list(one), abs=1e-5) for one in expected] == vectors
    seen.add(found["versions"], "embeddings")
