"""The fake engine's tokens and its text: a pure function of a sequence's history.

Token ids 0–255 are the bytes of prompts. 256 is BOS, 257 EOS, then come the control tokens.
`GENERATED + b` is byte `b` as the engine generates it. No prompt is tokenized to these. So the
number of generated tokens is exact for any chat template, and the same in a replay.

The generated text is lowercase letters and spaces, drawn from a hash over *all* tokens before. One
wrong, missing or doubled token therefore changes the whole rest of the text. Directives in the
prompt's text change it:

    [[emoji]]          generate characters of two to four bytes instead
    [[say:TEXT]]       begin with TEXT, then go on as usual
    [[stop@N]]         end (EOS) after N generated tokens
    [[FAULT@N]]        commit the fault while computing the token after the N-th generated one;
                       N = -1: while computing the prompt, at the directive's last byte
    [[FAULT@N once=PATH]]   only if the file PATH does not exist, and create it
    [[exit@N:CODE]]    commit the fault `exit`, with its exit code

`faults.py` has the deeds of `FAULTS`, `channel.py` the messages of `MISSPEAKS`. A stream gets
exactly N tokens before its fault: the step before sent the N-th. A replay that begins beyond N does
not meet the fault again; one that begins at N or before does.
"""

import re
import zlib
from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache, partial

from msgspec import Struct

from engine_worker.backend.port import InfillTokens, SpecialToken, SpecialTokens
from gpufc.adapters import Adapters

BOS, EOS = 256, 257
SPECIALS = {
    **{BOS: "<|bos|>", EOS: "<|eos|>", 258: "<|im_start|>", 259: "<|im_end|>", 260: "<|tool|>"},
    **{261: "<|fim_prefix|>", 262: "<|fim_suffix|>", 263: "<|fim_middle|>"},
}
ENDS = frozenset({EOS, 259})
GENERATED = 272
N_VOCAB = GENERATED + 256

NAN = "nan"
FREEZE = "freeze"
MISSPEAKS = frozenset({"garbage", "oversize", "duplicate", "old_epoch"})
FAULTS = MISSPEAKS | {
    *("segv", "abort", "kill", "exit", "hang", FREEZE, "hog", "raise", "decode_error", NAN)
}
IN_PROMPT = -1

_LETTERS = b"etaoin shrdlu cmfwyp vbgkjqxz "
_CHARACTERS = ("é", "ß", "中", "文", "字", "€", "日", "🙂", "🚀", "👍", "🌍")
MAX_DIRECTIVE = 4096
_BRACKET = ord("]")
_MASK = (1 << 64) - 1
_FAULT = re.compile(
    r"(?P<fault>[a-z_]+)@(?P<at>-?\d+)(?::(?P<code>\d+))?(?: once=(?P<once>[^\]\s]+))?"
)


class Directive(Struct, frozen=True):
    """One `[[…]]`: `kind` is emoji, say, stop or a fault."""

    kind: str
    at: int = 0
    code: int = 1
    once: str = ""
    text: bytes = b""


class State(Struct, frozen=True):
    """The engine's state after a token: all that the next token depends on.

    `pending` are the bytes that come next, never empty. `bracket`: the token was a prompt's `]`.
    """

    digest: int = 0
    n_generated: int = 0
    directives: tuple[Directive, ...] = ()
    pending: bytes = b" "
    bracket: bool = False


def salt(adapters: Adapters) -> int:
    """What adapters do here: they change the text, each set in another way. 0 without any."""
    return zlib.crc32(repr(adapters).encode()) if adapters else 0


def advance(before: State, token: int, tail: Callable[[], Sequence[int]], salt: int = 0) -> State:
    """The state after `token`, computed with adapters of this `salt`. `tail` returns up to
    `MAX_DIRECTIVE` tokens before it; it is called only where a directive may end."""
    digest = _mix(before.digest ^ salt, token)
    if token >= GENERATED:
        pending = before.pending[1:] if token == GENERATED + before.pending[0] else b""
        return State(
            digest,
            before.n_generated + 1,
            before.directives,
            pending or _unit(digest, before.directives),
        )
    directives = before.directives
    if token == _BRACKET and before.bracket:
        directives = (*directives, *_directive(tail()))
    said = b"".join(entry.text for entry in directives if entry.kind == "say")
    pending = said or _unit(digest, directives)
    return State(digest, 0, directives, pending, token == _BRACKET)


def next_token(state: State) -> int:
    """The token that the engine generates in `state`."""
    for entry in state.directives:
        if entry.kind == "stop" and state.n_generated >= entry.at:
            return EOS
    return GENERATED + state.pending[0]


def expected_tokens(history: Sequence[int], n: int, adapters: Adapters = ()) -> list[int]:
    """The next `n` tokens after `history`. If EOS comes first, it is the last."""
    state, salted = State(), salt(adapters)
    for end, token in enumerate(history):
        state = advance(state, token, partial(_tail, history, end), salted)
    generated: list[int] = []
    while len(generated) < n:
        generated.append(next_token(state))
        if generated[-1] == EOS:
            break
        state = advance(state, generated[-1], list, salted)
    return generated


def _tail(history: Sequence[int], end: int) -> Sequence[int]:
    return history[max(0, end - MAX_DIRECTIVE) : end]


def expected_text(history: Sequence[int], n: int, adapters: Adapters = ()) -> str:
    """The text of `expected_tokens`, without an unfinished last character."""
    return b"".join(map(piece, expected_tokens(history, n, adapters))).decode("utf-8", "ignore")


def tokenize(text: str, *, add_special: bool = False, parse_special: bool = True) -> list[int]:
    """UTF-8 bytes; with `parse_special`, the spelling of a control token becomes that token."""
    tokens = [BOS] if add_special else []
    parts: Iterable[str] = _SPELT.split(text) if parse_special else (text,)
    for part in parts:
        special = _BY_SPELLING.get(part) if parse_special else None
        tokens.extend((special,) if special is not None else part.encode("utf-8", "replace"))
    return tokens


def piece(token: int) -> bytes:
    """A token's bytes; control tokens have none."""
    if token < 256:
        return bytes((token,))
    return bytes((token - GENERATED,)) if token >= GENERATED else b""


SPECIAL_TOKENS = SpecialTokens(
    tokens=tuple(SpecialToken(id, text, is_control=True) for id, text in SPECIALS.items()),
    names={"bos_token": SPECIALS[BOS], "eos_token": SPECIALS[EOS]},
    first=(BOS,),
    infill=InfillTokens(261, 262, 263),
)
"""What `tokenize` does, as a fact."""

_BY_SPELLING = {spelling: token for token, spelling in SPECIALS.items()}
_SPELT = re.compile("(" + "|".join(map(re.escape, _BY_SPELLING)) + ")")


def _mix(digest: int, token: int) -> int:
    """One step of a 64-bit hash (the constants are splitmix64's)."""
    digest = ((digest ^ (token + 1)) * 0xBF58476D1CE4E5B9 + 0x9E3779B97F4A7C15) & _MASK
    return digest ^ (digest >> 29)


def _unit(digest: int, directives: tuple[Directive, ...]) -> bytes:
    """The next letter, or the bytes of the next character."""
    if any(entry.kind == "emoji" for entry in directives):
        return _CHARACTERS[digest % len(_CHARACTERS)].encode()
    return _LETTERS[digest % len(_LETTERS)].to_bytes(1, "little")


def _directive(tail: Sequence[int]) -> tuple[Directive, ...]:
    """The directive that ends with a bracket after `tail`, if there is one."""
    text = bytes(token if token < 256 else 0 for token in tail)
    start = text.rfind(b"[[")
    return () if start < 0 else parse_directive(text[start + 2 : -1].decode("utf-8", "replace"))


@lru_cache(maxsize=1024)
def parse_directive(text: str) -> tuple[Directive, ...]:
    """The directive inside `[[…]]`; empty for text that only looks like one."""
    if text == "emoji":
        return (Directive("emoji"),)
    if text.startswith("say:") and len(text) > 4:
        return (Directive("say", text=text[4:].encode()),)
    match = _FAULT.fullmatch(text)
    if match is None or match["fault"] not in FAULTS | {"stop"}:
        return ()
    code = int(match["code"] or 1)
    return (Directive(match["fault"], int(match["at"]), code, match["once"] or ""),)
