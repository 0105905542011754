"""Requests behind plugins: what filters see and change, and what their faults mean."""

import asyncio
import json
import subprocess
from pathlib import Path

import pytest

from gpufc.config import OnError, PluginConfig, ServerConfig
from gpufc.errors import ConfigError
from supervisor.plugins import host, template
from supervisor.plugins.listener import PluggedListener
from supervisor.plugins.process import PluginProcess
from tests.supervisor.dispatch import fakes
from tests.supervisor.dispatch.fakes import text_of, until
from tests.supervisor.plugins.conftest import SAMPLES, Plugged, plugged, sample

pytestmark = pytest.mark.usefixtures("threads")

PIECES = ["It is ", "s", "k", "-", "ab", "cd ", "and ", "sk-", "x", "y", "."]
REDACTED = "It is [hidden] and [hidden]."


def lines(file: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []


@pytest.fixture
def secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fakes, "piece", lambda _spec, position: PIECES[position])


@pytest.mark.usefixtures("secrets")
@pytest.mark.parametrize("stream", [False, True])
async def test_a_secret_is_hidden_although_it_comes_in_pieces(tmp_path: Path, stream: bool) -> None:
    async with plugged(tmp_path, sample("redactor")) as front:
        front.worker.n_tokens = len(PIECES)
        answer = await front.service.complete(stream=stream, max_tokens=len(PIECES))
        choices = [one["choices"][0] for one in answer.events] if stream else answer.json["choices"]
        assert "".join(one["text"] for one in choices) == REDACTED
        if not stream:
            assert answer.json["usage"]["completion_tokens"] == len(PIECES)


@pytest.mark.parametrize(
    ("pieces", "text"),
    [
        (["A ba", "na", "na, a BAN", "ANA", " and a ban", "d"], "A ******, a ****** and a band"),
        (["a b", "an", "an"], "a banan"),
    ],
)
async def test_the_template_hides_its_word_and_adds_its_rule(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pieces: list[str], text: str
) -> None:
    monkeypatch.setattr(fakes, "piece", lambda _spec, position: pieces[position])
    async with plugged(tmp_path, PluginConfig(use=str(template.__file__))) as front:
        front.worker.n_tokens = len(pieces)
        messages = [{"role": "user", "content": "hello"}]
        answer = await front.service.post(
            "/v1/chat/completions", {"messages": messages, "max_tokens": len(pieces)}
        )
        assert answer.json["choices"][0]["message"]["content"] == text
        prompt = bytes(fakes.generates(front.worker.sent)[-1].prompt_tokens).decode()
        assert prompt == f"<system>{template.RULE}<user>hello"


@pytest.mark.usefixtures("secrets")
async def test_a_stream_that_is_killed_at_each_token_leaks_and_repeats_nothing(
    tmp_path: Path,
) -> None:
    async with plugged(tmp_path, sample("redactor")) as front:
        for position in range(len(PIECES)):
            front.worker.auto = False
            front.worker.n_tokens = len(PIECES)
            asked = asyncio.create_task(front.service.complete(stream=True, max_tokens=len(PIECES)))
            await until(lambda: front.worker.active)
            for _ in range(position):
                front.worker.step()
                await asyncio.sleep(0)
            front.worker.die()
            front.worker = front.service.fleet.start_worker()
            front.worker.n_tokens = len(PIECES)
            events = (await asked).events
            assert "".join(one["choices"][0]["text"] for one in events) == REDACTED


async def test_no_hook_runs_again_for_a_replay(tmp_path: Path) -> None:
    log = tmp_path / "log"
    async with plugged(tmp_path, sample("seen", file=str(log))) as front:
        front.worker.auto = False
        asked = asyncio.create_task(front.said("hello"))
        for _ in range(3):
            await until(lambda: front.worker.active)
            front.worker.step()
            front.worker.die()
            front.worker = front.service.fleet.start_worker(auto=False)
        await until(lambda: front.worker.active)
        front.worker.auto = True
        front.worker.go()
        text = await asked
        shown = [json.loads(line) for line in log.read_text().splitlines()]
        assert shown[:2] == [["before_admission", "hello"], ["on_prompt", "hello"]]
        assert {hook for hook, _ in shown[2:-1]} == {"on_delta"}
        assert shown[-1][0] == "final"
        assert "".join(part for _, part in shown[2:]) == text == text_of("hello")


async def test_the_model_gets_the_changed_prompt_and_chat(tmp_path: Path) -> None:
    async with plugged(tmp_path, sample("redactor", mark="*")) as front:
        assert await front.said("my sk-abc", max_tokens=5) == text_of("my *")
        messages = [{"role": "user", "content": "my sk-abc"}]
        await front.service.post("/v1/chat/completions", {"messages": messages, "max_tokens": 5})
        sent = fakes.generates(front.worker.sent)[-1]
        assert bytes(sent.prompt_tokens) == b"<user>my *"


async def test_plugins_run_in_their_order(tmp_path: Path) -> None:
    log = tmp_path / "log"
    plugins = [sample("redactor", mark="*"), sample("audit", file=str(log))]
    async with plugged(tmp_path, *plugins) as front:
        await front.said("my sk-abc")
        await until(lambda: len(lines(log)) == 2)
        asked, answered = lines(log)
        assert asked == {"what": "request", "who": "anonymous", "text": "my *"}
        assert (answered["what"], answered["reason"]) == ("answer", "stop")
        assert answered["text"] == text_of("my *")


async def test_a_plugin_refuses_with_a_reason(tmp_path: Path) -> None:
    audit = sample("audit", file=str(tmp_path / "log"), forbidden="weapons")
    async with plugged(tmp_path, audit) as front:
        answer = await front.service.complete(prompt="weapons", stream=True)
        assert answer.status == 403
        assert answer.error["message"] == "'weapons' may not be asked about"
        assert fakes.generates(front.worker.sent) == []
        (row,) = (await front.service.get("/stats")).json["plugins"]
        assert (row["counts"]["refusals"], row["counts"]["failures"]) == (1, 0)
        assert row["hooks"] == ["before_admission", "on_event", "on_finish"]
        assert await front.said("peace") == text_of("peace")


async def test_events_of_workers_are_told(tmp_path: Path) -> None:
    log = tmp_path / "log"
    async with plugged(tmp_path, sample("audit", file=str(log))) as front:
        listener = PluggedListener(front.service.dispatcher, front.plugins)
        listener.worker_ready(front.worker)
        listener.worker_lost(front.worker, fakes.KILLED)
        await until(lambda: len(lines(log)) == 2)
        assert [one["what"] for one in lines(log)] == ["worker_ready", "worker_lost"]
        assert lines(log)[1]["detail"] == "killed"


async def test_a_plugin_names_the_principal_or_refuses_it(tmp_path: Path) -> None:
    log = tmp_path / "log"
    async with plugged(
        tmp_path, sample("faulty", fault="none"), sample("audit", file=str(log))
    ) as front:
        for user, status in (("alice", 200), ("mallory", 401)):
            headers = {"Content-Type": "application/json", "x-user": user}
            answer = await front.service.post(
                "/v1/completions", {"prompt": "hello"}, headers=headers
            )
            assert answer.status == status
        assert lines(log)[0]["who"] == "alice"


async def test_the_rendered_prompt_can_be_changed(tmp_path: Path) -> None:
    async with plugged(tmp_path, sample("faulty", fault="none")) as front:
        assert await front.said("rendered") == text_of("changed")


FAULTS = ["raise", "nonsense", "grow", "keep"]


@pytest.mark.parametrize("fault", [*FAULTS, "request raise", "request nonsense"])
async def test_a_faulty_plugin_fails_the_request_or_is_passed_over(
    tmp_path: Path, fault: str
) -> None:
    async with plugged(tmp_path, sample("faulty", fault=fault)) as front:
        answer = await front.service.complete()
        assert answer.status == 500
        assert answer.error["message"] == "The plugin faulty failed"
        assert "secret" not in answer.body.decode()
        await until(lambda: front.service.dispatcher.idle)
    async with plugged(tmp_path, sample("faulty", OnError.GO_ON, fault=fault)) as front:
        assert await front.said("hello") == text_of("hello")
        (row,) = front.plugins.summary()
        assert front.plugins.chain.plugins[0].counts.failures > 0
        assert row


@pytest.mark.parametrize("log_prompts", [False, True])
async def test_the_text_of_an_exception_is_logged_where_prompts_are(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, log_prompts: bool
) -> None:
    server = ServerConfig(log_prompts=log_prompts)
    async with plugged(tmp_path, sample("faulty", fault="raise"), server=server) as front:
        assert (await front.service.complete()).status == 500
    (line,) = [found for found in caplog.messages if found.startswith("plugin_raised")]
    assert "ValueError" in line
    assert "faulty.py" in line
    assert "pluggy" not in line
    assert "host.py" not in line
    assert ("a secret detail" in line.splitlines()[-1]) is log_prompts


async def test_an_exception_that_has_no_text_ends_no_plugin(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    server = ServerConfig(log_prompts=True)
    async with plugged(tmp_path, sample("faulty", fault="mute"), server=server) as front:
        assert (await front.service.complete()).status == 500
    assert any("Mute: (it has no text)" in found for found in caplog.messages)


async def test_a_plugin_refuses_in_the_middle_of_an_answer(tmp_path: Path) -> None:
    async with plugged(tmp_path, sample("faulty", fault="refuse")) as front:
        answer = await front.service.complete()
        assert (answer.status, answer.error["message"]) == (403, "not today")
        await until(lambda: front.service.dispatcher.idle)


async def test_a_client_that_leaves_ends_its_request(tmp_path: Path) -> None:
    async with plugged(tmp_path, sample("redactor")) as front:
        front.worker.auto = False
        asked = asyncio.create_task(front.service.complete(stream=True))
        await until(lambda: front.worker.active)
        asked.cancel()
        await until(lambda: front.service.dispatcher.idle)


async def test_log_probabilities_would_show_what_a_filter_hides(tmp_path: Path) -> None:
    async with plugged(tmp_path, sample("redactor")) as front:
        answer = await front.service.complete(logprobs=1)
        assert (answer.status, answer.error["param"]) == (400, "logprobs")


async def test_durable_requests_have_their_text_filtered_once(tmp_path: Path) -> None:
    log = tmp_path / "log"
    async with plugged(tmp_path, sample("audit", file=str(log))) as front:
        headers = {"Content-Type": "application/json", "Idempotency-Key": "k"}
        first, second = [
            await front.service.post("/v1/completions", {"prompt": "hello"}, headers=headers)
            for _ in range(2)
        ]
        assert first.json == second.json
        await until(lambda: len(lines(log)) == 2)


async def test_several_choices_and_prompts_are_filtered_each_for_itself(tmp_path: Path) -> None:
    async with plugged(tmp_path, sample("redactor")) as front:
        answer = await front.service.complete(prompt=["a", "b"], n=2)
        texts = [one["text"] for one in answer.json["choices"]]
        assert texts == [text_of(p, choice=c) for p in "ab" for c in range(2)]


@pytest.mark.parametrize(
    ("use", "reason"),
    [
        ("no_such_module", "no_such_module"),
        (f"{SAMPLES}/audit.py", "file"),  # an option is missing
        ("json", "it has no hook"),
    ],
)
async def test_a_plugin_that_cannot_be_loaded_is_named(
    tmp_path: Path, use: str, reason: str
) -> None:
    with pytest.raises(ConfigError, match=rf"plugin {use} cannot be loaded: .*{reason}"):
        async with plugged(tmp_path, PluginConfig(use=use)):
            pass


def test_two_plugins_of_one_name_are_a_mistake(tmp_path: Path) -> None:
    async def make() -> Plugged | None:
        async with plugged(tmp_path, sample("redactor"), sample("redactor")) as front:
            return front

    with pytest.raises(ConfigError, match="more than once"):
        asyncio.run(make())


def test_an_installed_package_names_its_plugin(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "policies-1.0.dist-info"
    package.mkdir()
    (package / "METADATA").write_text("Metadata-Version: 2.1\nName: policies\nVersion: 1.0\n")
    (package / "entry_points.txt").write_text("[gpufc.plugins]\nteam = team_policies:Own\n")
    (tmp_path / "team_policies.py").write_text("class Own:\n    def __init__(self, n): self.n = n")
    monkeypatch.syspath_prepend(tmp_path)
    made = host.load("team", {"n": 7})
    assert (type(made).__name__, vars(made)) == ("Own", {"n": 7})


async def test_a_plugins_principal_reads_nothing_of_others(tmp_path: Path) -> None:
    """A client may have chosen its name."""
    async with plugged(tmp_path, sample("faulty", fault="none")) as front:
        found = await front.plugins.identify({"x-user": "group team"}, "")
        assert found is not None
        assert (found.name, found.cache_scope) == ("group team#plugin", "plugin group team")


def test_a_plugins_options_are_not_among_its_arguments(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every user of the machine can read arguments."""
    seen: list[list[str]] = []
    monkeypatch.setattr(subprocess, "Popen", lambda command, **_: seen.append(command))
    _, ours = PluginProcess(sample("audit", token="sesame"), tmp_path)._spawn()
    ours.close()
    assert seen
    assert "sesame" not in str(seen)


def test_what_a_plugin_has_started_ends_with_it(tmp_path: Path) -> None:
    started = subprocess.Popen(
        ["sh", "-c", "sleep 60 & echo; wait"], stdout=subprocess.PIPE, process_group=0
    )
    assert started.stdout is not None
    with started, started.stdout as said:
        said.readline()
        PluginProcess(sample("audit"), tmp_path)._kill(started)
        assert said.read() == b""  # the last process that could write has ended
