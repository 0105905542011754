"""A plugin in its process: hangs, floods and deaths cost its own calls and nothing else."""

import asyncio
from pathlib import Path

import pytest
from msgspec import structs

from gpufc.config import OnError, PluginConfig
from tests.supervisor.dispatch.fakes import text_of, until
from tests.supervisor.plugins.conftest import plugged, sample

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
