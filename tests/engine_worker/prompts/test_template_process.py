import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from engine_worker.disposable import Child
from engine_worker.prompts.conversation import Conversation
from engine_worker.prompts.template_process import TemplateRenderer
from gpufc.errors import EngineUnavailable, InvalidRequest
from gpufc.proc_stat import stat_fields


def said(content: str, *, add_generation_prompt: bool = True) -> Conversation:
    return Conversation([{"role": "user", "content": content}], add_generation_prompt)


USER = said("Hallo 🙂 世界")
FOREVER = (
    "{% if messages[0].content == 'loop' %}{% for a in range(99999) %}{% for b in range(99999) %}"
    "{% if a + b < 0 %}x{% endif %}{% endfor %}{% endfor %}{% endif %}"
    "fine {{ messages[0].content }}"
)
FINE = "fine Hallo 🙂 世界"
Start = Callable[..., TemplateRenderer]


@pytest.fixture
def start() -> Iterator[Start]:
    started: list[TemplateRenderer] = []

    def make(template: str | None, cpu_s: int = 10) -> TemplateRenderer:
        started.append(TemplateRenderer(template, {"bos_token": "<s>"}, cpu_s))
        return started[-1]

    yield make
    for renderer in started:
        renderer.close()


def is_gone(pid: int) -> bool:
    return not Path(f"/proc/{pid}").exists()


def runs(pid: int) -> bool:
    """Whether a process, of whatever parent, has neither ended nor been reaped."""
    try:
        return stat_fields(pid)[0] != b"Z"
    except OSError:
        return False


def held_by(pid: int | str) -> set[str]:
    """The pipes and sockets that a process holds. Others may come and go meanwhile."""
    held = set()
    for link in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):
            held.add(os.readlink(link))
    return {one for one in held if one.startswith(("pipe:", "socket:"))}


def until(condition: Callable[[], bool], timeout_s: float = 60.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "waited too long"
        time.sleep(0.01)


def test_it_renders_again_and_again_in_one_process(start: Start) -> None:
    renderer = start(None)
    expected = "<|im_start|>user\nHallo 🙂 世界<|im_end|>\n<|im_start|>assistant\n"
    assert [renderer.render(USER) for _ in range(3)] == [expected] * 3
    pid = renderer.pid
    assert not renderer.render(said("x", add_generation_prompt=False)).endswith("assistant\n")
    assert renderer.pid == pid


def test_an_endless_template_is_killed_and_the_next_request_served(start: Start) -> None:
    renderer = start(FOREVER, cpu_s=1)
    assert renderer.render(USER) == FINE
    pid = renderer.pid
    with pytest.raises(InvalidRequest, match="took longer than 1 s") as caught:
        renderer.render(said("loop"))
    assert caught.value.param == "messages"
    assert pid is not None
    assert is_gone(pid)
    assert renderer.render(USER) == FINE


def test_a_template_that_takes_too_long_to_compile_gets_one_verdict(start: Start) -> None:
    renderer = start("{{ 10 ** (10 ** 8) }}", cpu_s=1)
    for _ in range(2):
        with pytest.raises(InvalidRequest, match="longer than 1 s"):
            renderer.render(USER)
    assert renderer.error == "it takes longer than 1 s to compile"
    assert renderer.pid is None


def test_a_stopped_process_is_replaced(start: Start) -> None:
    renderer = start(None)
    before = renderer.render(USER)
    first = renderer.pid
    assert first is not None
    os.kill(first, signal.SIGSTOP)
    assert renderer.render(USER) == before
    assert renderer.pid != first
    assert is_gone(first)


def test_a_process_that_is_stopped_again_and_again_is_our_fault(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    renderer = start(None)
    monkeypatch.setattr(Child, "is_stopped", True)
    with pytest.raises(EngineUnavailable):
        renderer.render(USER)
    assert renderer.error is None


def test_gigabytes_are_refused_and_cost_the_parent_nothing(start: Start) -> None:
    with pytest.raises(InvalidRequest, match="memory"):
        start("{{ 'x' * 3000000000 }}").render(USER)
    with pytest.raises(InvalidRequest, match="output"):
        start("{% for i in range(99999) %}{{ 'x' * 1000 }}{% endfor %}").render(USER)


def test_python_s_insides_are_out_of_reach(start: Start) -> None:
    with pytest.raises(InvalidRequest):
        start("{{ ''.__class__.__mro__ }}").render(USER)


def test_a_template_that_is_no_jinja_refuses_chats_only(start: Start) -> None:
    renderer = start("{% for")
    for _ in range(2):
        with pytest.raises(InvalidRequest, match="chat template"):
            renderer.render(USER)


def test_a_child_killed_between_requests_is_not_noticed(start: Start) -> None:
    renderer = start(None)
    before = renderer.render(USER)
    first = renderer.pid
    assert first is not None
    os.kill(first, signal.SIGKILL)
    assert renderer.render(USER) == before
    assert renderer.pid != first
    assert is_gone(first)


def test_megabytes_go_both_ways(start: Start) -> None:
    text = "ünïcode " * 700_000
    assert text in start(None).render(said(text))


def test_close_leaves_no_process_and_no_descriptor(start: Start) -> None:
    before = held_by("self")
    renderer = start(None)
    renderer.render(USER)
    pid = renderer.pid
    assert pid is not None
    shared = (held_by(pid) & held_by("self")) - before
    assert shared
    renderer.close()
    renderer.close()
    assert is_gone(pid)
    assert not shared & held_by("self")


def test_the_child_imports_no_engine_and_sees_no_environment(start: Start) -> None:
    renderer = start(None)
    renderer.render(USER)
    loaded = Path(f"/proc/{renderer.pid}/maps").read_text()
    assert "numpy" not in loaded
    assert "libllama" not in loaded
    names = {
        entry.partition("=")[0]
        for entry in Path(f"/proc/{renderer.pid}/environ").read_text().split("\0")
    }
    assert names <= {"", "PYTHONPATH", "LANG"}


def test_a_looping_child_dies_with_its_parent() -> None:
    parent = (
        "from engine_worker.prompts import template_process as t\n"
        "from engine_worker.prompts.conversation import Conversation\n"
        f"r = t.TemplateRenderer({FOREVER!r}, {{}}, 60)\n"
        "r.render(Conversation([{'role': 'user', 'content': 'x'}]))\n"
        "print(r.pid, flush=True)\n"
        "r.render(Conversation([{'role': 'user', 'content': 'loop'}]))\n"
    )
    process = subprocess.Popen([sys.executable, "-c", parent], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    child = int(process.stdout.readline())
    until(lambda: stat_fields(child)[0] == b"R")
    process.kill()
    process.wait()
    process.stdout.close()
    until(lambda: not runs(child))
