"""OpenAI's agents SDK over Responses: one turn with a tool.

The scripted engine calls the tool for certain, so that the whole turn is checked.
"""

from collections.abc import Iterator
from typing import Any

import openai
import pytest

from tests.integration.fake_service import FAKE
from tests.service import Service, service

agents = pytest.importorskip("agents")

pytestmark = pytest.mark.slow

CALL = '<tool_call>\n{"name": "lookup", "arguments": {"key": "lamp"}}\n</tool_call>'
"""In the layout that binds a strict function's call: the SDK makes functions strict."""
PROMPT = f"[[say:{CALL}]][[stop@{len(CALL)}]]"


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    folder = tmp_path_factory.mktemp("agents") / "run"
    with service(folder, environ=FAKE) as started:
        yield started


@pytest.mark.parametrize("streamed", [False, True])
async def test_an_agent_s_turn_calls_its_tool(running: Service, streamed: bool) -> None:
    agents.set_tracing_disabled(True)
    called: list[str] = []

    def lookup(key: str) -> str:
        """Looks a key up."""
        called.append(key)
        return f"{key} is on"

    async with openai.AsyncOpenAI(base_url=f"{running.url}/v1", api_key="none") as client:
        agent: Any = agents.Agent(
            name="Helper",
            instructions="Use the tool.",
            model=agents.OpenAIResponsesModel("default", client),
            tools=[agents.function_tool(lookup)],
            tool_use_behavior="stop_on_first_tool",
        )
        if streamed:
            result = agents.Runner.run_streamed(agent, PROMPT)
            kinds = [event.type async for event in result.stream_events()]
            assert "run_item_stream_event" in kinds
        else:
            result = await agents.Runner.run(agent, PROMPT)
    assert called == ["lamp"]
    assert result.final_output == "lamp is on"
    (response,) = result.raw_responses
    assert response.response_id.startswith("resp_")
    assert response.usage.output_tokens == len(CALL) + 1
