"""`chat` against a small service: one answer for scripts, a conversation for people."""

import io
import re
import sys
import termios
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from click.testing import CliRunner

from supervisor.cli import answer_view, chat_session, cli
from supervisor.cli.answer_view import AnswerView
from supervisor.cli.chat_client import ChatClient, ChatFailed
from supervisor.cli.chat_session import ChatSession
from supervisor.control.client import ControlClient, NotRunning
from tests.supervisor.cli.fake_service import FakeService, fake_service
from tests.supervisor.cli.files import Screen
from tests.supervisor.control.fake_front import document


@pytest.fixture
def service() -> Iterator[tuple[FakeService, str]]:
    with fake_service() as made:
        yield made


@pytest.fixture
def front(service: tuple[FakeService, str], monkeypatch: pytest.MonkeyPatch) -> FakeService:
    """A front that answers `chat`'s question for the address."""
    made, url = service

    def status(_: ControlClient) -> dict[str, Any]:
        found = document()
        found["front"]["addresses"] = [url]
        return found

    monkeypatch.setattr(ControlClient, "status", status)
    return made


def session(url: str, **options: Any) -> tuple[ChatSession, io.StringIO]:
    out = io.StringIO()
    return ChatSession(ChatClient(url), out, **options), out


def typed(monkeypatch: pytest.MonkeyPatch, *lines: str | type[BaseException]) -> None:
    """Answer each prompt with the next line, then with the end of the input."""
    left = [*lines, EOFError]

    def answer(_: str) -> str:
        line = left.pop(0)
        if isinstance(line, str):
            return line
        raise line

    monkeypatch.setattr(chat_session, "input", answer, raising=False)


def test_a_prompt_prints_the_plain_answer(front: FakeService) -> None:
    result = CliRunner().invoke(cli, ["chat", "Hi", "--temperature", "0", "--max-tokens", "5"])
    assert (result.exit_code, result.stdout, result.stderr) == (0, "Hello wörld\n", "")
    (body,) = front.seen
    assert body["messages"] == [{"role": "user", "content": "Hi"}]
    assert (body["temperature"], body["max_tokens"], body["stream"]) == (0, 5, True)
    assert "model" not in body


def test_a_prompt_from_a_pipe(front: FakeService) -> None:
    result = CliRunner().invoke(cli, ["chat"], input="From a\npipe\n")
    assert result.stdout == "Hello wörld\n"
    assert front.seen[0]["messages"][0]["content"] == "From a\npipe"


def test_an_empty_pipe_is_a_mistake(front: FakeService) -> None:
    result = CliRunner().invoke(cli, ["chat"], input="")
    assert result.exit_code == 2
    assert front.seen == []


def test_a_refusal_is_one_line_and_a_failure(front: FakeService) -> None:
    front.refusal = (400, "prompt too long")
    result = CliRunner().invoke(cli, ["chat", "Hi"])
    assert result.exit_code == 1
    assert result.stderr == "error: prompt too long\n"


def test_the_key_comes_from_its_variable(front: FakeService) -> None:
    CliRunner().invoke(cli, ["chat", "Hi"], env={"GPUFC_API_KEY": "sk-1"})
    assert front.headers == ["Bearer sk-1"]


def test_the_conversation_is_kept(service: tuple[FakeService, str]) -> None:
    made, url = service
    chat, _ = session(url, system="Be brief.")
    chat.ask("one")
    chat.ask("two")
    assert [turn["content"] for turn in made.seen[1]["messages"]] == [
        "Be brief.", "one", "Hello wörld", "two",
    ]  # fmt: skip


def test_a_turn_without_an_answer_is_taken_back(service: tuple[FakeService, str]) -> None:
    made, url = service
    chat, _ = session(url)
    made.refusal = (503, "draining")
    with pytest.raises(ChatFailed, match="draining"):
        chat.ask("one")
    assert chat.stats() == "no answer yet"
    made.refusal = None
    chat.ask("two")
    assert [turn["content"] for turn in made.seen[1]["messages"]] == ["two"]


def test_an_error_in_mid_stream_ends_the_answer(service: tuple[FakeService, str]) -> None:
    made, url = service
    made.break_with = "the engine died"
    chat, out = session(url)
    with pytest.raises(ChatFailed, match="the engine died"):
        chat.ask("one")
    assert out.getvalue() == "Hello wörld\n"


def test_commands_of_a_conversation(
    service: tuple[FakeService, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    made, url = service
    typed(
        monkeypatch,
        *("/stats", "one", "/stats", "/reset", "two", "/system Be brief.", "/system", "three"),
        *("/nonsense", "/help", KeyboardInterrupt, ""),
    )
    chat, out = session(url)
    chat.converse("smol")
    said = out.getvalue()
    contents = [[turn["content"] for turn in body["messages"]] for body in made.seen]
    assert contents == [["one"], ["two"], ["Be brief.", "three"]]
    for words in ("no answer yet", "3 tokens", "7 tokens of prompt", "there is no /nonsense"):
        assert words in said
    assert "/quit" in said
    assert f"smol at {url}" in said


def test_quit_ends_it(service: tuple[FakeService, str], monkeypatch: pytest.MonkeyPatch) -> None:
    made, url = service
    typed(monkeypatch, "/quit", "never asked")
    session(url)[0].converse("smol")
    assert made.seen == []


def test_ctrl_c_ends_the_answer_and_keeps_its_beginning(
    service: tuple[FakeService, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    made, url = service
    chat, out = session(url)
    written = out.write

    def write(text: str) -> int:
        if text == "lo ":
            raise KeyboardInterrupt
        return written(text)

    monkeypatch.setattr(out, "write", write)
    typed(monkeypatch, "one")
    chat.converse("smol")
    monkeypatch.setattr(out, "write", written)
    assert chat.stats().startswith("2 tokens in ")
    assert "broken off" in chat.stats()
    assert "prompt" not in chat.stats(), "the service has not told"
    chat.ask("two")
    assert "broken off" not in chat.stats()
    assert "broken off" in out.getvalue()
    assert made.seen[1]["messages"][1] == {"role": "assistant", "content": "Hello "}


def test_a_service_that_is_gone_does_not_end_the_conversation(
    service: tuple[FakeService, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    chat, out = session("http://127.0.0.1:1")
    typed(monkeypatch, "one")
    chat.converse("smol")
    assert "went away" in out.getvalue()
    with pytest.raises(NotRunning):
        chat.ask("two")


def test_a_terminal_gets_lines_broken_between_words(
    service: tuple[FakeService, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    made, url = service
    monkeypatch.setenv("COLUMNS", "20")
    made.pieces = ["A long ans", "wer that does", " not fit", " in one line."]
    screen = Screen()
    ChatSession(ChatClient(url), screen).ask("one")
    assert screen.getvalue().split("\n") == [
        "A long answer that ",
        "does not fit in one",
        "line.",
        "",
    ]


def test_the_banner_fits_into_eighty_columns(
    service: tuple[FakeService, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    typed(monkeypatch)
    chat, out = session(service[1])
    chat.converse("a-model-with-quite-a-long-name-of-its-own")
    assert max(len(line) for line in out.getvalue().splitlines()) <= 80


@pytest.mark.parametrize("so_far", ["", "So far"])
def test_a_long_pause_shows_a_note_that_goes_away(
    monkeypatch: pytest.MonkeyPatch, so_far: str
) -> None:
    monkeypatch.setattr(answer_view, "PAUSE_S", 0.0)
    screen = Screen()
    view = AnswerView(screen)
    view.text(so_far)
    view.alive()
    view.alive()
    assert screen.getvalue().count("waiting for the engine…") == 1
    view.text(" so good")
    view.end()
    assert seen(screen.getvalue()) == f"{so_far} so good"


def test_a_short_pause_and_a_pipe_show_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    screen, pipe = Screen(), io.StringIO()
    AnswerView(screen).alive()
    monkeypatch.setattr(answer_view, "PAUSE_S", 0.0)
    AnswerView(pipe).alive()
    assert screen.getvalue() == pipe.getvalue() == ""


def seen(written: str) -> str:
    """One line as it stands on the terminal in the end."""
    line, at = "", 0
    for part in re.split(r"(\x1b\[\d*[mDK])", written):
        match = re.fullmatch(r"\x1b\[(\d*)([mDK])", part)
        if match is None:
            line, at = line[:at] + part + line[at + len(part) :], at + len(part)
        elif match[2] == "D":
            at -= int(match[1])
        elif match[2] == "K":
            line = line[:at]
    return line


def test_input_during_an_answer_is_not_echoed_and_the_echo_comes_back(
    service: tuple[FakeService, str],
    typing: Callable[[str], int],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    _, url = service
    chat, out = session(url)
    echoes = []
    written = out.write

    def write(text: str) -> int:
        echoes.append(has_echo())
        if text == "wörld":
            raise KeyboardInterrupt
        return written(text)

    monkeypatch.setattr(out, "write", write)
    with pytest.raises(KeyboardInterrupt):
        chat.ask("one")
    assert echoes[:2] == [False, False]
    assert has_echo()


def has_echo() -> bool:
    return bool(termios.tcgetattr(sys.stdin.fileno())[3] & termios.ECHO)
