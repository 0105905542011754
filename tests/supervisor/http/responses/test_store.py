"""The memory of responses: bounded, in order of use, one for each principal."""

import msgspec
import pytest

from gpufc.config import LimitsConfig
from gpufc.errors import RequestTooLarge
from gpufc.sampling import SamplingParams
from supervisor.http.responses import store
from supervisor.http.responses.answer import Reply, ResponseObject, echo_of
from supervisor.http.responses.fields import Item, ResponsesFields
from supervisor.http.responses.listing import listed
from supervisor.http.responses.output_items import MessageItem, OutputText, Status
from supervisor.http.responses.store import Memories, Memory, Recall, Remembered, remembered

ECHO = echo_of(ResponsesFields(), SamplingParams(seed=1))


def response(name: str, text: str = "hello") -> ResponseObject:
    reply = Reply(id=f"resp_{name}", created_at=1, model="m", echo=ECHO)
    said = MessageItem(id=f"msg_{name}", status=Status.COMPLETED, content=(OutputText(text=text),))
    return reply.document(Status.COMPLETED, output=(said,), completed_at=2)


def kept(name: str, text: str = "hello") -> Remembered:
    return remembered(response(name, text), [Item(role="user", content="hi")])


def memory(max_responses: int = 10, max_bytes: int = 1 << 20) -> Memory:
    return Memory(LimitsConfig(max_stored_responses=max_responses, max_stored_bytes=max_bytes))


def test_a_response_is_found_with_its_items() -> None:
    made = memory()
    made.keep(kept("a"))
    found = made.find("resp_a")
    assert found is not None
    assert msgspec.json.decode(found.document)["id"] == "resp_a"
    (given,), (said,) = found.inputs, found.outputs
    assert (given.role, given.content) == ("user", "hi")
    assert given.id
    assert (said.kind, said.role, said.id) == ("message", "assistant", "msg_a")
    assert Recall(made, 1 << 20).item("msg_a") == said
    assert made.find("resp_b") is made.find_item("msg_b") is made.find_item("") is None


def test_beyond_the_limit_the_response_unused_for_longest_is_forgotten() -> None:
    made = memory(max_responses=2)
    for name in "ab":
        made.keep(kept(name))
    assert made.find("resp_a")
    made.keep(kept("c"))
    assert made.find("resp_b") is made.find_item("msg_b") is None
    assert made.find_item("msg_a")
    made.keep(kept("d"))
    assert made.find("resp_c") is None
    assert len(made) == 2


@pytest.mark.parametrize("n_fit", [0, 1, 3])
def test_the_bytes_are_bounded(n_fit: int) -> None:
    size = kept("a").n_bytes
    made = memory(max_bytes=size * n_fit + size // 2)
    for name in "abcdef":
        made.keep(kept(name))
    assert len(made) == n_fit
    assert made.n_bytes == n_fit * size


def test_a_response_that_is_kept_again_counts_once() -> None:
    made = memory()
    made.keep(kept("a", "long " * 100))
    made.keep(kept("a"))
    assert (len(made), made.n_bytes) == (1, kept("a").n_bytes)


def test_a_request_recalls_no_more_than_its_share() -> None:
    made = memory()
    made.keep(kept("a"))
    size = len(made.find_item("msg_a") or b"")
    recall = Recall(made, 2 * size)
    assert recall.item("msg_a") == recall.item("msg_a")
    with pytest.raises(RequestTooLarge):
        recall.item("msg_a")
    found = made.find("resp_a")
    assert found is not None
    assert Recall(made, found.n_bytes_said).response("resp_a") == [*found.inputs, *found.outputs]
    with pytest.raises(RequestTooLarge):
        Recall(made, found.n_bytes_said - 1).response("resp_a")


def test_what_is_forgotten_leaves_nothing() -> None:
    made = memory()
    made.keep(kept("a"))
    assert made.forget("resp_a")
    assert not made.forget("resp_a")
    assert (len(made), made.n_bytes, made.find_item("msg_a")) == (0, 0, None)


def test_each_principal_has_a_memory_of_its_own() -> None:
    memories = Memories(LimitsConfig(max_stored_responses=1))
    memories.of("one").keep(kept("a"))
    memories.of("two").keep(kept("b"))
    assert memories.of("one").find("resp_a")
    assert memories.of("two").find("resp_a") is None


def test_no_more_principals_have_a_memory_than_there_may_be(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(store, "MOST_PRINCIPALS", 2)
    memories = Memories(LimitsConfig())
    for name in ("one", "two", "one", "three"):
        memories.of(name).keep(kept(name))
    assert memories.of("one").find("resp_one")
    assert memories.of("two").find("resp_two") is None


def test_items_are_listed_in_openai_s_form() -> None:
    assert listed(Item(id="1", role="user", content="hi")) == {
        "type": "message",
        "id": "1",
        "role": "user",
        "status": "completed",
        "content": [{"type": "input_text", "text": "hi"}],
    }
    answer = Item(type="message", id="2", role="assistant", content=[{"type": "output_text"}])
    assert listed(answer)["content"] == [{"type": "output_text", "annotations": []}]
    call = Item(type="function_call", id="3", call_id="c", name="f", arguments="{}")
    assert listed(call) == {
        "type": "function_call",
        "id": "3",
        "status": "completed",
        "call_id": "c",
        "name": "f",
        "arguments": "{}",
    }
