"""llama-server's routes about the service, templates, and work that cannot be done."""

import asyncio
from typing import Any

import pytest

from gpufc.packed import packed
from gpufc.protocol import Prepare, Prepared, TextPrompt, Tokens
from gpufc.sampling import SamplingFields
from supervisor.http.openai import media
from tests.supervisor.dispatch.fakes import FAILED, MODEL, FakeWorker, until
from tests.supervisor.http.conftest import Service, running

MESSAGES = [{"role": "user", "content": "hi"}]


async def test_props_are_the_model_s_settings(service: Service) -> None:
    props = (await service.get("/props")).json
    assert props["default_generation_settings"]["n_ctx"] == 4096
    params = props["default_generation_settings"]["params"]
    assert (params["temperature"], params["top_k"], params["seed"]) == (0.8, 40, -1)
    assert (props["total_slots"], props["model_alias"]) == (4, MODEL)
    assert props["modalities"] == {"vision": False, "audio": False}
    assert {"chat_template", "bos_token", "eos_token", "build_info"} <= set(props)


async def test_props_show_the_model_s_configured_defaults(service: Service) -> None:
    service.fleet.defaults = SamplingFields(temperature=0.2, samplers="kt")
    params = (await service.get("/props")).json["default_generation_settings"]["params"]
    assert (params["temperature"], params["samplers"]) == (0.2, ["top_k", "temperature"])


async def test_props_wait_for_the_first_load_and_name_their_model() -> None:
    async with running() as service:
        asking = asyncio.create_task(service.get(f"/props?model={MODEL}"))
        await until(lambda: service.dispatcher.group(MODEL).questions)
        service.fleet.start_worker()
        assert (await asking).status == 200
        assert (await service.get("/props?model=other")).status == 404
    async with running() as service:
        service.fleet.change(FAILED)
        assert (await service.get("/props")).status == 503


async def test_slots_in_use_are_as_many_as_run() -> None:
    async with running() as service:
        worker = service.fleet.start_worker(auto=False)
        asking = [asyncio.create_task(service.complete()) for _ in range(3)]
        await until(lambda: len(worker.active) == 3)
        slots = (await service.get("/slots")).json
        assert [slot["id"] for slot in slots] == [0, 1, 2, 3]
        assert [slot["is_processing"] for slot in slots] == [True, True, True, False]
        assert {slot["n_ctx"] for slot in slots} == {4096}
        worker.auto = True
        worker.go()
        await asyncio.gather(*asking)


async def test_a_template_is_applied_as_text(service: Service) -> None:
    answer = await service.post("/apply-template", {"messages": MESSAGES})
    assert answer.json == {"prompt": "<user>hi"}


class WithBos(FakeWorker):
    """A worker that puts `^` before each text that may have special tokens, chats included."""

    def _prepare(self, message: Prepare) -> None:
        prompt = message.prompt
        added: Tokens = () if isinstance(prompt, TextPrompt) and not prompt.add_special else (94,)
        text = prompt.text if isinstance(prompt, TextPrompt) else "<user>hi"
        self.tell(Prepared(self.epoch, message.request, packed((*added, *text.encode()))))


async def test_an_applied_template_has_no_bos_that_a_completion_would_add() -> None:
    async with running() as service:
        worker = service.fleet.start_worker()
        worker.__class__ = WithBos
        answer = await service.post("/apply-template", {"messages": MESSAGES})
        assert answer.json == {"prompt": "<user>hi"}


async def test_a_bad_conversation_is_refused(service: Service) -> None:
    answer = await service.post("/apply-template", {"messages": []})
    assert (answer.status, answer.error["param"]) == (400, "messages")


@pytest.mark.parametrize("path", media.PATHS)
@pytest.mark.parametrize("sent", [{"json": {"prompt": "a"}}, {"data": b"\0" * 100}])
async def test_sound_and_pictures_are_refused_for_good(
    service: Service, path: str, sent: dict[str, Any]
) -> None:
    async with service.http.post(path, **sent) as response:
        assert response.status == 501
        error = (await response.json())["error"]
        assert response.headers["x-should-retry"] == "false"
    assert (error["type"], error["code"]) == ("not_supported_error", "not_supported")
