"""One real stream, killed at each position in turn: is the text what it would have been?"""

import os
import signal
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from msgspec import Struct

from tests.chaos.history import History, check, text_times, texts_of
from tests.chaos.load import Ask, ask_real, begin, pursue
from tests.chaos.report import Report, reporting
from tests.chaos.rig import Rig, rig

N_POSITIONS = 40
N_TOKENS = 48
PROMPTS = (
    "Once upon a time a fox and a hen lived by the sea. One morning",
    "The capital of France is",
    "def fibonacci(n):\n",
    "Dear Sir or Madam,\n\nI am writing to you about",
)
KINDS: dict[str, dict[str, Any]] = {
    "sampled": {"seed": 7, "temperature": 0.8, "top_p": 0.95, "repeat_penalty": 1.3},
    "greedy": {"seed": 7, "temperature": 0.0, "repeat_penalty": 1.3},
}


class Found(Struct):
    """Of one stream: how many positions were tried, and at which of them the text differed."""

    n_tried: int
    different: list[int]
    wrong: list[str]


async def run(model: Path, replay: str, n_prompts: int) -> Report:
    """Text that was sent never changes, and with `exact` neither does the text that follows."""
    report = reporting(
        f"positions: {replay}, {n_prompts} prompts, greedy and sampled, penalised, "
        f"{N_POSITIONS} kills each"
    )
    # one thread: the figures are about equality, and the machine may have more to do
    environ = {"GPUFC_REPLAY": replay, "GPUFC_RESTART_LIMIT": "10000", "GPUFC_N_THREADS": "1"}
    found = []
    async with rig("--model-path", str(model), "--n-ctx", "1024", environ=environ) as one:
        for prompt in PROMPTS[:n_prompts]:
            for kind, sampling in KINDS.items():
                ask = ask_real(prompt, N_TOKENS, **sampling)
                found.append(await _stream(one, ask, range(1, N_POSITIONS + 1)))
                last = found[-1]
                n_equal = last.n_tried - len(last.different)
                report.row(f"{kind}, {prompt[:20]!r}: equal", f"{n_equal} of {last.n_tried}")
    report.wrong += [line for each in found for line in each.wrong]
    n_tried = sum(each.n_tried for each in found)
    n_different = sum(len(each.different) for each in found)
    report.row("equal to the undisturbed text", f"{n_tried - n_different} of {n_tried}")
    if replay == "exact" and n_different:
        report.wrong.append(f"exact replay is not exact: {[each.different for each in found]}")
    return report


async def _stream(one: Rig, ask: Ask, positions: Iterable[int]) -> Found:
    found = Found(0, [], [])
    undisturbed, _ = await _text(one, ask, None)
    again, _ = await _text(one, ask, None)
    if again != undisturbed:
        found.wrong.append("two undisturbed runs differ")
    for position in positions:
        text, sent = await _text(one, ask, position)
        found.n_tried += 1
        if not text.startswith(sent):
            found.wrong.append(f"position {position}: what was sent changed")
        if text != undisturbed:
            found.different.append(position)
    return found


async def _text(one: Rig, ask: Ask, position: int | None) -> tuple[str, str]:
    """The whole text, and the part of it that had come when the worker was killed."""
    row = await one.until_ready()
    history, sent = begin(f"position {position}", ask), [""]
    killed: list[int] = []

    def kill(found: History) -> None:
        if position is not None and not killed and len(text_times(found)) >= position:
            os.kill(row["pid"], signal.SIGKILL)
            killed.append(row["epoch"])
            sent[0] = texts_of(found).get(0, "")

    await pursue(one.session, one.url, ask, history, kill)
    problems = check(history)
    if problems:
        raise AssertionError(f"position {position}: {problems[0]}")
    if position is not None:
        if not killed:
            raise AssertionError(f"position {position}: nothing was killed")
        after = await one.until_ready()
        if after["epoch"] <= killed[0]:
            raise AssertionError(f"position {position}: no new epoch")
    return texts_of(history)[0], sent[0]
