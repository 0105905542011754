"""The part of a prompt that is found in the cache, for models whose state cannot be cut."""

from pathlib import Path
from typing import Any, NamedTuple

import aiohttp

from gpufc.config import KvUnified, Replay
from supervisor.bench.words import WORDS
from tests.models.table.judging import Cell, Verdict
from tests.models.table.service_checks import serving

SYSTEM = " ".join(WORDS[at % len(WORDS)] for at in range(0, 7 * 120, 7))
QUESTIONS = ("Hello", "Good morning, and why is that so?", "And tulips?")
LEAST = 0.9
"""The share that has to be found of a prompt that was computed, or whose system message was. A next
turn finds as much of the turn before it."""


class Share(NamedTuple):
    n_cached: int
    n_prompt: int

    @property
    def of_one(self) -> float:
        return self.n_cached / self.n_prompt

    def __str__(self) -> str:
        return f"{self.of_one:.0%} ({self.n_cached} of {self.n_prompt})"


class Shares(NamedTuple):
    """Of the same prompt again, of two other questions under its system message, and of the next
    turn of its conversation."""

    again: Share
    questions: tuple[Share, Share]
    turn: Share

    @property
    def cells(self) -> list[Cell]:
        """One for the prompt again, one for both questions, one for the turn."""
        least_question = min(share.of_one for share in self.questions)
        return [
            _cell(str(self.again), self.again.of_one >= LEAST),
            _cell(" and ".join(map(str, self.questions)), least_question >= LEAST),
            _cell(str(self.turn), self.turn.n_cached >= LEAST * self.again.n_prompt),
        ]


def _cell(figures: str, is_right: bool) -> Cell:
    return Cell(Verdict.RIGHT if is_right else Verdict.WRONG, figures)


async def shares(folder: Path, name: str, layout: KvUnified) -> Shares:
    """Chats with one system message, one after the other, on a service of one model."""
    system = {"role": "system", "content": SYSTEM}
    first, *others = [[system, {"role": "user", "content": text}] for text in QUESTIONS]
    with serving(folder, name, layout, Replay.FAST) as running:
        said, _ = await _chat(running.url, first)
        _, again = await _chat(running.url, first)
        one, other = [(await _chat(running.url, chat))[1] for chat in others]
        turn = [*first, {"role": "assistant", "content": said}, others[0][-1]]
        _, following = await _chat(running.url, turn)
    return Shares(again, (one, other), following)


async def _chat(url: str, messages: list[dict[str, Any]]) -> tuple[str, Share]:
    body = {"messages": messages, "max_tokens": 16, "temperature": 0}
    async with aiohttp.request("POST", f"{url}/v1/chat/completions", json=body) as response:
        found = await response.json()
    usage = found["usage"]
    share = Share(usage["prompt_tokens_details"]["cached_tokens"], usage["prompt_tokens"])
    return found["choices"][0]["message"]["content"], share
