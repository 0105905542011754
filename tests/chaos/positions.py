"""One real stream, sampled with a seed and penalised, killed at each position in turn."""

import os
import signal
from pathlib import Path

from tests.chaos.history import History, check, text_times, texts_of
from tests.chaos.load import ask_real, begin, pursue
from tests.chaos.report import conditions, say
from tests.chaos.rig import Rig, rig

N_POSITIONS = 40
N_TOKENS = 48
PROMPT = "Once upon a time a fox and a hen lived by the sea. One morning"
SAMPLING = {"seed": 7, "temperature": 0.8, "top_p": 0.95, "repeat_penalty": 1.3}
GREEDY = {"seed": 7, "temperature": 0.0, "repeat_penalty": 1.3}


async def run(
    model: Path, replay: str, *, greedy: bool = False, positions: int = N_POSITIONS
) -> bool:
    """Returns whether all that was promised for this kind of replay held."""
    kind = "greedy" if greedy else "sampled"
    say(f"positions: {replay}, {kind}, {positions} kills; {conditions()}")
    # one thread: the figures are about equality, and the machine may have more to do
    environ = {"GPUFC_REPLAY": replay, "GPUFC_RESTART_LIMIT": "10000", "GPUFC_N_THREADS": "1"}
    arguments = ("--model-path", str(model), "--n-ctx", "1024")
    different, wrong = [], []
    async with rig(*arguments, environ=environ) as one:
        undisturbed, _ = await _text(one, None, greedy=greedy)
        again, _ = await _text(one, None, greedy=greedy)
        if again != undisturbed:
            wrong.append("two undisturbed runs differ")
        for position in range(1, positions + 1):
            text, sent = await _text(one, position, greedy=greedy)
            if not text.startswith(sent):
                wrong.append(f"position {position}: what was sent changed")
            if text != undisturbed:
                different.append(position)
            if position % 10 == 0:
                say(f"  {position} positions, {len(different)} different")
    say(f"  equal {positions - len(different)} of {positions}; different at {different}")
    if replay == "exact" and different:
        wrong.append("exact replay is not exact")
    for line in wrong:
        say(f"  WRONG {line}")
    return not wrong


async def _text(one: Rig, position: int | None, *, greedy: bool) -> tuple[str, str]:
    """The whole text, and what of it had come when the worker was killed."""
    row = await one.until_ready()
    ask = ask_real(PROMPT, N_TOKENS, **(GREEDY if greedy else SAMPLING))
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
