import threading
from collections.abc import Callable
from pathlib import Path
from queue import SimpleQueue

import pytest

from engine_worker.backend.fake.backend import FakeBackend
from engine_worker.backend.fake.vocabulary import BOS
from engine_worker.prompts import service
from engine_worker.prompts.service import PromptService
from engine_worker.prompts.template_process import TemplateRenderer
from gpufc.chat import ChatMessage, ChatPrompt
from gpufc.config import ModelConfig
from gpufc.errors import ModelLoadError
from gpufc.ids import Epoch, RequestNo
from gpufc.packed import packed
from gpufc.protocol import (
    Detokenize,
    Detokenized,
    FromWorker,
    Prepare,
    Prepared,
    Prompt,
    Refused,
    TextPrompt,
)

EPOCH = Epoch(1)
WAIT_S = 60.0


class BlockingBackend(FakeBackend):
    """Tokenizing waits for `go` where the text says so."""

    def __init__(self, config: ModelConfig, n_sequences: int) -> None:
        super().__init__(config, n_sequences)
        self.blocked, self.go = threading.Event(), threading.Event()

    def tokenize(self, text: str, *, add_special: bool, parse_special: bool) -> list[int]:
        if text.startswith("block"):
            self.blocked.set()
            assert self.go.wait(WAIT_S)
        return super().tokenize(text, add_special=add_special, parse_special=parse_special)


class Running:
    def __init__(self, config: ModelConfig) -> None:
        self.sent: SimpleQueue[FromWorker] = SimpleQueue()
        self.backend = BlockingBackend(config, 2)
        self.service = PromptService(self.backend, config, self.sent.put)
        self.service.try_template(None)
        self.is_idle: Callable[[], bool] = lambda: True
        self.service.start(self._start, lambda: self.is_idle())

    def _start(self, name: str, run: Callable[[], None]) -> None:
        threading.Thread(target=run, name=name, daemon=True).start()

    def prepare(self, no: int, prompt: Prompt) -> None:
        self.service.put(Prepare(EPOCH, RequestNo(no), prompt))

    def answer(self) -> FromWorker:
        return self.sent.get(timeout=WAIT_S)


@pytest.fixture
def start(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Running]:
    # threads outlive their test: they shall not start or end processes during later ones
    monkeypatch.setattr(service, "WARM_UP_S", 3600.0)
    monkeypatch.setattr(service, "IDLE_S", 3600.0)
    return lambda **keys: Running(ModelConfig(n_ctx=100_000, **keys))


def test_a_prompt_becomes_tokens(start: Callable[..., Running]) -> None:
    running = start()
    running.prepare(1, TextPrompt("hi"))
    assert running.answer() == Prepared(EPOCH, RequestNo(1), packed((BOS, *b"hi")))


def test_a_short_prompt_does_not_wait_for_a_long_one(start: Callable[..., Running]) -> None:
    running = start()
    running.prepare(1, TextPrompt("block" + "x" * 30_000))
    assert running.backend.blocked.wait(WAIT_S)
    running.prepare(2, TextPrompt("hi"))
    answer = running.answer()
    assert isinstance(answer, Prepared)
    assert answer.request == 2
    running.backend.go.set()
    assert isinstance(running.answer(), Prepared)


def test_a_cancelled_question_gets_no_answer(start: Callable[..., Running]) -> None:
    running = start()
    running.prepare(1, TextPrompt("block" + "x" * 30_000))
    assert running.backend.blocked.wait(WAIT_S)
    assert running.service.cancel(EPOCH, RequestNo(1))
    running.backend.go.set()
    running.prepare(2, TextPrompt("hi " + "x" * 30_000))
    answer = running.answer()
    assert isinstance(answer, Prepared)
    assert answer.request == 2
    assert not running.service.cancel(EPOCH, RequestNo(1))


@pytest.mark.parametrize("n_busy", [3, 1_000_000])
def test_a_second_template_process_waits_for_an_idle_engine_and_not_for_ever(
    start: Callable[..., Running], monkeypatch: pytest.MonkeyPatch, n_busy: int
) -> None:
    running, looks, warm = start(), [False] * n_busy, threading.Event()
    n_looks: list[int] = []

    def looked() -> bool:
        n_looks.append(1)
        return not looks or looks.pop()

    def warmed(_service: PromptService, _renderer: TemplateRenderer) -> None:
        warm.set()

    monkeypatch.setattr(PromptService, "_warm_up", warmed)
    monkeypatch.setattr(service, "WARM_UP_S", 0.001)
    running.is_idle = looked
    running.prepare(1, TextPrompt("x" * 30_000))  # its thread waits anew
    assert isinstance(running.answer(), Prepared)
    assert warm.wait(WAIT_S)
    assert len(n_looks) == min(n_busy, service.MOST_WARM_UP_WAITS) + 1


def test_tokens_are_spelt(start: Callable[..., Running]) -> None:
    running = start()
    running.service.put(Detokenize(EPOCH, RequestNo(1), ((104, 105), (BOS,))))
    assert running.answer() == Detokenized(EPOCH, RequestNo(1), (b"hi", b"<|bos|>"))
    running.service.put(Detokenize(EPOCH, RequestNo(2), ((1 << 20,),)))
    answer = running.answer()
    assert isinstance(answer, Refused)
    assert answer.param == "tokens"


def test_a_broken_template_is_known_at_once_and_refuses_chats_only(
    start: Callable[..., Running], tmp_path: Path
) -> None:
    broken = tmp_path / "broken.jinja"
    broken.write_text("{% for")
    running = start(chat_template=str(broken))
    assert "chat template" in running.service.template_error
    running.prepare(1, ChatPrompt((ChatMessage("user", "hi"),)))
    refused = running.answer()
    assert isinstance(refused, Refused)
    assert refused.message == running.service.template_error
    running.prepare(2, TextPrompt("hi"))
    assert isinstance(running.answer(), Prepared)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
def test_a_template_of_one_s_own_is_a_file_or_a_name(
    start: Callable[..., Running], tmp_path: Path, encoding: str
) -> None:
    own = tmp_path / "own.jinja"
    own.write_text("[{{ messages[-1].content }}]", encoding)
    running = start(chat_template=str(own))
    assert running.service.template_error == ""
    running.prepare(1, ChatPrompt((ChatMessage("user", "hi"),)))
    opening = "<|bos|>[hi]"
    assert running.answer() == Prepared(EPOCH, RequestNo(1), packed((BOS, *b"[hi]")), opening)
    assert start(chat_template="chatml").service.template_error == ""


def test_a_template_that_does_not_exist_is_a_load_error(start: Callable[..., Running]) -> None:
    with pytest.raises(ModelLoadError, match="nowhere"):
        start(chat_template="nowhere")
