"""Cells on a real model. See `plan.World`.

With `replay = "exact"` and one stream at a time the text is that of an undisturbed run, to the
bit, so that each stream can be compared with what it would have been.
"""

import os
import shutil
import tempfile
from enum import StrEnum
from pathlib import Path
from typing import Any

from msgspec import Struct
from msgspec.structs import replace

from tests.chaos.faults import Fault
from tests.chaos.history import check, event_texts, texts_of
from tests.chaos.load import Ask, ask_real, run_ask
from tests.chaos.moments import REPLACING, Moment
from tests.chaos.plan import Plan, Setup
from tests.chaos.rig import Rig

N_TOKENS = 48
N_LONG = 160
"""Of streams that have to last while a worker loads."""
STORY = "Once upon a time a fox and a hen lived by the sea. One morning"
SAMPLED = {"seed": 7, "temperature": 0.8, "top_p": 0.95, "repeat_penalty": 1.3}
GREEDY = {"seed": 7, "temperature": 0.0}
STOP_FROM, STOP_TO = 20, 25
"""The tokens that the stop string is made of."""


class Kind(StrEnum):
    """What is asked."""

    STORY = "story"
    LONG_STORY = "long story"
    LONG_PROMPT = "long prompt"
    CHARACTERS = "characters"


QUESTIONS: dict[Kind, tuple[str, int, dict[str, Any]]] = {
    Kind.STORY: (STORY, N_TOKENS, SAMPLED),
    Kind.LONG_STORY: (STORY, N_LONG, SAMPLED),
    Kind.LONG_PROMPT: (f"{STORY} they met again. " * 12 + STORY, N_TOKENS, SAMPLED),
    Kind.CHARACTERS: ("中文" * 7, N_TOKENS, GREEDY),
}
"""Prompt, tokens and sampling of each. The last one goes on with one character again and again."""


class Known(Struct, frozen=True):
    """What an undisturbed run of a question brings: the whole text, and that of each event."""

    text: str
    pieces: tuple[str, ...]


class Modelled:
    """The world of a copy of a real model, on one thread."""

    def __init__(self, model: Path) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="cm", dir="/tmp")
        self._model = shutil.copy(model, self._folder.name)
        self._whole, self._half = Path(f"{self._model}.whole"), Path(f"{self._model}.half")
        self._known: dict[Kind, Known] = {}

    def setup(self, fault: Fault, moment: Moment) -> Setup:
        variables = {"GPUFC_N_THREADS": "1", "GPUFC_REPLAY": "exact"}
        if moment is Moment.QUEUED:
            variables["GPUFC_MAX_CONCURRENT_REQUESTS"] = "2"
        return Setup(
            arguments=("--model-path", self._model, "--n-ctx", "1024"),
            variables=tuple(variables.items()),
            alone=moment is Moment.DRAIN,
        )

    async def prepare(self, one: Rig) -> None:
        """Ask everything once, undisturbed."""
        for kind in Kind if not self._known else ():
            history = await run_ask(one.session, one.url, _ask(kind), kind)
            problems = check(history)
            if problems:
                raise AssertionError(f"{kind}: {problems[0]}")
            self._known[kind] = Known(texts_of(history)[0], tuple(event_texts(history)))

    def plan(
        self,
        fault: Fault,
        moment: Moment,
        name: str,
        once: Path,
        *,
        streamed: bool,
        n_misses: int,
    ) -> Plan:
        kind = _kind(moment)
        ask, known, n_tokens = _ask(kind), self._known[kind], QUESTIONS[kind][1]
        if moment is Moment.STOP:
            ask = _stopped(ask, known)
        elif moment is not Moment.QUEUED:  # beside others, the kernels are others
            ask = _expecting(ask, known.text)
        fillers = tuple(_filler(number) for number in range(2))
        return Plan(
            replace(_distinct(ask, name), streamed=streamed),
            n_tokens,
            fillers=fillers if moment is Moment.QUEUED else (),
            lasts=_lasts(moment, known),
        )

    def spoil(self, marker: Path) -> None:
        """Half of the file. Processes that have mapped the whole one keep it."""
        size = Path(self._model).stat().st_size
        with Path(self._model).open("rb") as file:
            self._half.write_bytes(file.read(size // 2))
        os.rename(self._model, self._whole)
        os.rename(self._half, self._model)

    def mend(self) -> None:
        """The whole file again, if it is not there."""
        if self._whole.exists():
            os.rename(self._whole, self._model)

    def other_model(self, now: str | None) -> str:
        """The same one: a stream that runs on another model ends there."""
        return self._model


def _kind(moment: Moment) -> Kind:
    if moment in REPLACING | {Moment.DRAIN}:
        return Kind.LONG_STORY
    if moment in (Moment.PREFILL, Moment.REPLAY):
        return Kind.LONG_PROMPT
    return Kind.CHARACTERS if moment is Moment.CHARACTER else Kind.STORY


def _ask(kind: Kind) -> Ask:
    prompt, n_tokens, sampling = QUESTIONS[kind]
    return ask_real(prompt, n_tokens, cache_prompt=False, **sampling)


def _filler(number: int) -> Ask:
    return ask_real(f"{number}: {STORY}", 2 * N_TOKENS, **SAMPLED)


def _distinct(ask: Ask, name: str) -> Ask:
    """With a stop string that nothing stops at: else all cells' requests were equal, and after the
    second crash at the same position convicted."""
    return replace(ask, fields=ask.fields | {"stop": [*ask.fields.get("stop", ()), f"\0{name}"]})


def _expecting(ask: Ask, text: str) -> Ask:
    return replace(ask, expected=replace(ask.expected, texts=(text,)))


def _stopped(ask: Ask, known: Known) -> Ask:
    """The same request, ended by a stop string of several tokens."""
    before, stop = "".join(known.pieces[:STOP_FROM]), "".join(known.pieces[STOP_FROM:STOP_TO])
    if len(known.pieces) != N_TOKENS or known.text.index(stop) != len(before):
        raise AssertionError("this model's text is not fit for a stop string")
    expected = replace(ask.expected, texts=(before,), finish="stop", completion_tokens=STOP_TO)
    return replace(ask, expected=expected, fields=ask.fields | {"stop": [stop]})


def _lasts(moment: Moment, known: Known) -> frozenset[int]:
    """During which tokens the signal has to come."""
    third = N_TOKENS // 3
    match moment:
        case Moment.PREFILL:
            return frozenset({0})
        case Moment.FIRST:
            return frozenset(range(1, 5))
        case Moment.DECODE:
            return frozenset(range(third, N_TOKENS - third))
        case Moment.CHARACTER:
            return _incomplete(known)
        case Moment.STOP:
            return frozenset(range(STOP_FROM + 1, STOP_TO))
        case Moment.LAST:
            return frozenset(range(N_TOKENS - 4, N_TOKENS))
        case _:
            return frozenset()


def _incomplete(known: Known) -> frozenset[int]:
    """After how many tokens of the same character, again and again, a part of one is missing."""
    if len(set(known.text)) != 1 or N_TOKENS % len(known.text) or len(known.text) == N_TOKENS:
        raise AssertionError(f"this model's text is not fit for split characters: {known.text!r}")
    n_tokens = N_TOKENS // len(known.text)
    return frozenset(at for at in range(N_TOKENS) if at % n_tokens)
