"""A plugin in its process: hangs, floods and deaths cost its own calls and nothing else."""

import asyncio
import json
import socket
from pathlib import Path

import pytest
from msgspec import structs

from gpufc.config import OnError, PluginConfig
from gpufc.framing import frame
from supervisor.plugins import messages as m
from supervisor.plugins.link import Link
from supervisor.plugins.process import PluginProcess
from tests.supervisor.dispatch.fakes import text_of, until
from tests.supervisor.plugins.conftest import plugged, sample

DYING = """
import os
from supervisor.plugins.api import hook

@hook
def before_admission(request):
    os._exit(9)
"""

PRINTING = """
import beside_it
from supervisor.plugins.api import hook

print("it is loaded")

class Plugin:
    @hook
    def before_admission(self, request):
        print("asked by", request.info.principal)
"""


@pytest.mark.parametrize(
    ("fault", "timeout_s", "reason"),
    [
        ("hang", 0.3, "more than 0.3 s"),
        ("die", 20.0, "it has ended"),
        pytest.param("spin", 0.3, "more than 0.3 s", marks=pytest.mark.slow),
        pytest.param("flood", 20.0, "it has ended", marks=pytest.mark.slow),
    ],
)
async def test_a_plugin_that_does_not_answer_is_ended_and_started_again(
    tmp_path: Path, fault: str, timeout_s: float, reason: str
) -> None:
    config = structs.replace(sample("faulty", fault=fault), timeout_s=timeout_s)
    async with plugged(tmp_path, config) as front:
        (plugin,) = front.plugins.chain.plugins
        answer = await front.service.complete()
        assert (answer.status, answer.error["message"]) == (500, "The plugin faulty failed")
        assert reason in plugin.detail or plugin.is_ready
        await until(lambda: front.service.dispatcher.idle)
        await until(lambda: plugin.is_ready and plugin.counts.restarts)
        assert (await front.service.get("/readyz")).status == 200


async def test_other_requests_do_not_notice_a_plugin_that_is_passed_over(tmp_path: Path) -> None:
    config = structs.replace(sample("faulty", OnError.GO_ON, fault="hang"), timeout_s=0.2)
    async with plugged(tmp_path, config) as front:
        texts = await asyncio.gather(*(front.said(f"prompt {n}") for n in range(4)))
        assert texts == [text_of(f"prompt {n}") for n in range(4)]


async def until_out_of_time(plugin: PluginProcess, text: str) -> None:
    """Wait until a plugin is to answer the call with this text, and let its time be over."""

    def is_first() -> bool:
        return bool(plugin._open) and text.encode() in plugin._open[0].message

    await until(is_first)
    plugin._open[0].since -= plugin.config.timeout_s
    plugin._look()


@pytest.mark.parametrize("fault", ["hang", "die", "flood", "raise"])
async def test_only_the_call_that_a_plugin_had_begun_fails(tmp_path: Path, fault: str) -> None:
    """The calls of other requests stand behind it: the next process answers them, in time."""
    poison = f"[{sum(b'poison')}."
    bad = sample("faulty", fault=fault, only=poison)
    plugins = [bad, sample("seen", file=str(tmp_path / "f"))]
    async with plugged(tmp_path, *plugins, slots=20) as front:
        front.worker.auto = False
        prompts = [*(f"good {n}" for n in range(6)), "poison", *(f"fine {n}" for n in range(6))]
        asked = [asyncio.create_task(front.service.complete(prompt=one)) for one in prompts]
        await until(lambda: len(front.worker.active) == len(prompts))
        front.worker.auto = True
        front.worker.go()
        if fault == "hang":
            await until_out_of_time(front.plugins.chain.plugins[0], poison)
        answers = dict(zip(prompts, await asyncio.gather(*asked), strict=True))
        refused = answers.pop("poison")
        assert (refused.status, refused.error["message"]) == (500, "The plugin faulty failed")
        texts = {one: answer.json["choices"][0]["text"] for one, answer in answers.items()}
        assert texts == {one: text_of(one) for one in answers}
        shown = [json.loads(line) for line in (tmp_path / "f").read_text().splitlines()]
        seen = "".join(text for hook, text in shown if hook in {"on_delta", "final"})
        assert {one: seen.count(text_of(one, 1)) for one in prompts} == {
            one: int(one != "poison") for one in prompts
        }
        assert front.plugins.chain.plugins[0].counts.failures == 1


async def test_calls_do_not_wait_for_a_plugin_that_cannot_be_started_again(tmp_path: Path) -> None:
    code = tmp_path / "dying.py"
    code.write_text(DYING)
    config = PluginConfig(use=str(code), timeout_s=0.5)
    async with plugged(tmp_path, config, slots=20) as front:
        code.write_text("x = (")
        answers = await asyncio.gather(*(front.service.complete() for _ in range(4)))
        assert [answer.status for answer in answers] == [500] * 4
        assert not front.plugins.chain.plugins[0]._open


async def test_what_a_plugin_prints_is_in_its_log_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is ended by a kill, which would lose what is buffered. `~` is the home folder, and a
    module beside the file is found."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("PYTHONUNBUFFERED", raising=False)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "printing.py").write_text(PRINTING)
    (tmp_path / "mine" / "beside_it.py").touch()
    async with plugged(tmp_path, PluginConfig(use="~/mine/printing.py", timeout_s=20.0)) as front:
        await front.said("hello")
        log = (tmp_path / "plugin-printing.log").read_text()
        assert log.splitlines() == ["it is loaded", "asked by anonymous"]


async def test_answers_before_an_end_are_heard_although_a_write_meets_the_end_first() -> None:
    ours, theirs = socket.socketpair()
    copy = ours.dup()
    heard: list[m.FromPlugin] = []
    _, link = await asyncio.get_running_loop().create_unix_connection(
        lambda: Link(heard.append), sock=ours
    )
    theirs.sendall(frame(m.encode(m.Returned(1, None))) + frame(m.encode(m.Returned(2, None))))
    theirs.close()
    link.write(b"a call")  # the loop has not looked at the socket yet
    async with asyncio.timeout(60):
        await link.ended
    link.read_rest(copy)
    copy.close()
    assert heard == [m.Returned(1, None), m.Returned(2, None)]
