"""Cells on the scripted engine: every token is known. See `plan.World`.

A fault from inside is a directive of the prompt and hits exactly.
"""

from pathlib import Path

from engine_worker.backend.fake.vocabulary import expected_tokens, piece, tokenize
from tests.chaos.faults import Fault
from tests.chaos.load import Ask, ask_fake
from tests.chaos.moments import NOT_FROM_INSIDE, REPLACING, Moment
from tests.chaos.plan import Plan, Setup
from tests.chaos.rig import Rig

N_TOKENS = 40
N_DRAINING = 120
LONGEST = 4
"""A stream is doubled so often at most."""
THIRD = N_TOKENS // 3
IN_PROMPT = -1
LONG = "a long prompt " * 100
"""With a slow prefill it takes 0.7 s, in six steps."""
SAID = "before STOP after"
STOP = "STOP"
GIVEN_UP_S = 3.0
"""A load that hangs ends after so long."""
LIMIT_BYTES = 512 << 20
"""Roomy for a front, a worker and a spare: 150 MiB."""


def _setup(
    script: str,
    *,
    n_running: int = 10,
    alone: bool = False,
    limited: bool = False,
    load_timeout_s: float = 600.0,
) -> Setup:
    variables = {
        "GPUFC_BACKEND": "fake",
        "GPUFC_FAKE_SCRIPT": script,
        "GPUFC_MAX_CONCURRENT_REQUESTS": str(n_running),
        "GPUFC_LOAD_TIMEOUT_S": str(load_timeout_s),
    }
    limit_bytes = LIMIT_BYTES if limited else 0
    return Setup(variables=tuple(variables.items()), alone=alone, memory_bytes=limit_bytes)


class Scripted:
    """The world of the fake backend."""

    def setup(self, fault: Fault, moment: Moment) -> Setup:
        once = ",fail_once_file={marker}"
        if fault.unloadable:
            script = "step_ms=8,prefill_us=500,load_s=0.1,load_fail=1" + once
            return _setup(script, n_running=2)
        limited = fault.limited
        match moment:
            case Moment.PREFILL | Moment.REPLAY:
                return _setup("step_ms=8,prefill_us=500", limited=limited)
            case Moment.LOADING if not fault.outside:
                script = f"step_ms=8,load_s=0.1,load_fault={fault.load_fault}" + once
                timeout_s = GIVEN_UP_S if fault.hangs else 600.0
                return _setup(script, limited=limited, load_timeout_s=timeout_s)
            case Moment.LOADING | Moment.RESTART | Moment.SWAP | Moment.CANDIDATE:
                return _setup("step_ms=25,load_s=0.6")
            case Moment.QUEUED:
                return _setup("step_ms=8", n_running=2, limited=limited)
            case Moment.DRAIN:
                return _setup("step_ms=10", alone=True, limited=limited)
            case _:
                return _setup("step_ms=15", limited=limited)

    async def prepare(self, one: Rig) -> None:
        """Nothing: the answers are known."""

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
        prompt = _prompt(moment, name, _directives(fault, moment, name, once))
        n_tokens = N_DRAINING if moment is Moment.DRAIN else N_TOKENS
        if moment in REPLACING:  # the stream has to last until another worker has been spawned
            n_tokens <<= min(n_misses, LONGEST)
        stop = STOP if moment is Moment.STOP else None
        alone = fault.outside and moment is not Moment.DRAIN
        return Plan(
            ask_fake(prompt, n_tokens, streamed=streamed, stop=stop),
            n_tokens,
            beside=() if alone else (ask_fake(f"beside {name}", n_tokens),),
            fillers=_fillers(fault, name, once) if moment is Moment.QUEUED else (),
            lasts=_lasts(moment, prompt) if fault.outside else frozenset(),
        )

    def spoil(self, marker: Path) -> None:
        """The load makes the marker again, so that the one after it goes well."""
        marker.unlink(missing_ok=True)

    def mend(self) -> None:
        """Nothing: see `spoil`."""

    def other_model(self, now: str | None) -> str:
        """A name: the scripted engine opens no file."""
        return "/first.fake" if now != "/first.fake" else "/second.fake"


def _prompt(moment: Moment, name: str, directives: str) -> str:
    """A prompt of its own for each cell, with the directives of its moment."""
    if moment in (Moment.PREFILL, Moment.REPLAY):
        return f"{name} {LONG[: len(LONG) // 2]}{directives}{LONG[len(LONG) // 2 :]}"
    special = {Moment.CHARACTER: "[[emoji]]", Moment.STOP: f"[[say:{SAID}]]"}
    return f"{special.get(moment, '')}{directives}{name}"


def _directives(fault: Fault, moment: Moment, name: str, once: Path) -> str:
    if fault.outside or moment in NOT_FROM_INSIDE | {Moment.QUEUED}:
        return ""
    first = f"[[kill@{THIRD} once={once}-first]]"
    if moment is Moment.LOADING:
        return first
    directive = fault.text(_position(fault, moment, name, once), once)
    return first + directive if moment is Moment.REPLAY else directive


def _position(fault: Fault, moment: Moment, name: str, once: Path) -> int:
    """After how many tokens a fault from inside comes."""
    match moment:
        case Moment.PREFILL:
            return IN_PROMPT
        case Moment.FIRST:
            return 0
        case Moment.CHARACTER:
            return _inside_a_character(fault, name, once)
        case Moment.STOP:
            return SAID.index(STOP) + 2
        case Moment.LAST:
            return N_TOKENS - 1
        case _:
            return THIRD


def _inside_a_character(fault: Fault, name: str, once: Path) -> int:
    """Of the very prompt that says the position, which changes all that is said."""
    for at in range(THIRD, N_TOKENS):
        if at in _incomplete(_prompt(Moment.CHARACTER, name, fault.text(at, once))):
            return at
    raise ValueError("no position is inside a character")


def _incomplete(prompt: str) -> frozenset[int]:
    """The numbers of tokens after which some bytes of a character are still missing."""
    found, data = set(), b""
    tokens = expected_tokens(tokenize(prompt, add_special=True), N_TOKENS)
    for number, token in enumerate(tokens, 1):
        data += piece(token)
        if len(data.decode("utf-8", "ignore").encode()) < len(data):
            found.add(number)
    return frozenset(found)


def _lasts(moment: Moment, prompt: str) -> frozenset[int]:
    """During which tokens a signal from outside has to come."""
    match moment:
        case Moment.PREFILL:
            return frozenset({0})
        case Moment.FIRST:
            return frozenset(range(1, 4))
        case Moment.DECODE:
            return frozenset(range(THIRD, N_TOKENS - THIRD))
        case Moment.CHARACTER:
            return frozenset(at for at in _incomplete(prompt) if at >= THIRD)
        case Moment.STOP:
            start = SAID.index(STOP)
            return frozenset(range(start + 1, start + len(STOP)))
        case Moment.LAST:
            return frozenset({N_TOKENS - 2, N_TOKENS - 1})
        case _:
            return frozenset()


def _fillers(fault: Fault, name: str, once: Path) -> tuple[Ask, ...]:
    """They take both places; one of them brings the fault."""
    directive = "" if fault.outside else fault.text(THIRD, once)
    return tuple(
        ask_fake(f"{text}filler {number} {name}", 2 * N_TOKENS)
        for number, text in enumerate((directive, ""))
    )
