"""A bound answer and a forced tool call, killed behind each of their chunks: are they whole?

Each kill costs a load of the model and an answer. So a run takes `N_SAMPLED` chunks of each kind,
and with `--full` all of them.

After an exact replay an answer has the log probabilities of the undisturbed one. After a fast one
it has those that llama.cpp alone gives its tokens, with those before the kill in one batch.
"""

import json
import os
import random
import signal
from collections.abc import Awaitable, Callable, Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

from jsonschema import Draft202012Validator
from msgspec import Struct, field, structs

from tests.chaos.report import Report, reporting
from tests.chaos.rig import Rig, rig
from tests.chaos.rounding import Alone

N_SAMPLED = 12
N_CTX = 1024
NEAR = 1e-4
"""How far a log probability may be from the expected one: rounding of the sum over the
vocabulary."""

WORD = {"type": "string", "minLength": 1, "maxLength": 6}
SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        "name": WORD,
        "age": {"type": "integer", "minimum": 0, "maximum": 120},
        "colour": {"enum": ["red", "green", "a rather long name of a colour"]},
        "words": {"type": "array", "items": WORD, "minItems": 2, "maxItems": 2},
    },
    "required": ["name", "age", "colour", "words"],
    "additionalProperties": False,
}
"""Each text has a bound: a small model does not end a free one, and each kill costs a whole
answer."""
NAME = "describe"
CALL: dict[str, Any] = {
    "tools": [
        {"type": "function", "function": {"name": NAME, "strict": True, "parameters": SCHEMA}}
    ],
    "tool_choice": {"type": "function", "function": {"name": NAME}},
}
FORMAT: dict[str, Any] = {
    "response_format": {
        "type": "json_schema",
        "json_schema": {"name": NAME, "strict": True, "schema": SCHEMA},
    }
}
LOGPROBS = {"logprobs": True, "top_logprobs": 2}
COMMON: dict[str, Any] = {
    "messages": [{"role": "user", "content": "Describe a fox by the sea."}],
    "seed": 7,
    "temperature": 0.8,
    "max_tokens": 400,
    "stream": True,
}
UNCACHED = {"cache_prompt": False}
"""Each worker computes the prompt in the same batches, also after an answer to it."""
ASKED: dict[str, dict[str, Any]] = {
    "JSON schema": FORMAT | LOGPROBS,
    "JSON schema, forced tokens at once": FORMAT,
    "forced call": CALL | LOGPROBS,
}
"""A request with log probabilities computes forced tokens one by one, and each token has a chunk,
also one of a call that is held back. So does an exact replay; a fast one keeps to forced tokens at
once without log probabilities."""


class Answer(Struct):
    """What a stream has brought. `text` is the answer, or the arguments of its call. `logprobs` has
    each token with its log probability, also those of the format around a call."""

    n_chunks: int = 0
    text: str = ""
    calls: list[str] = field(default_factory=list)
    finish: list[str] = field(default_factory=list)
    logprobs: list[tuple[bytes, float]] = field(default_factory=list)


Expected = Callable[[Answer, Answer, Answer], Iterable[list[float]]]
"""The log probabilities that an answer may have, from its first token on: a list for each place at
which it may have gone on. Its arguments are the answer, the undisturbed one, and what had come when
the worker was killed."""


async def run(
    model: Path, replay: str, seed: int, *, full: bool = False, containing: str = ""
) -> Report:
    """Every answer is valid, what was sent stays, and log probabilities belong to their tokens: of
    the kinds whose name contains this."""
    which = "each chunk" if full else f"{N_SAMPLED} chunks of each, seed {seed}"
    report = reporting(f"bound answers, {replay} replay: a kill behind {which}")
    n_most = None if full else N_SAMPLED
    environ = {"GPUFC_REPLAY": replay, "GPUFC_RESTART_LIMIT": "10000", "GPUFC_N_THREADS": "1"}
    arguments = ("--model-path", str(model), "--n-ctx", str(N_CTX))
    with Alone(model, N_CTX) as alone:
        async with rig(*arguments, environ=environ) as one:
            for kind in (kind for kind in ASKED if containing in kind):
                fields = ASKED[kind] | (UNCACHED if replay == "fast" else {})
                undisturbed = await _answer(one, fields, None)
                prompt = alone.tokens(await _prompt(one, fields))
                judge = exact if replay == "exact" else partial(fast, alone, prompt)
                wrong = faults(undisturbed, undisturbed, Answer(), kind, judge)
                report.wrong += [f"{kind}, undisturbed: {line}" for line in wrong]
                chosen = positions(undisturbed.n_chunks, n_most, seed)
                ask = partial(_answer, one, fields)
                different = await _each_position(ask, report, kind, undisturbed, chosen, judge)
                if replay == "exact" and different:
                    report.wrong.append(f"{kind}: another answer after kills behind {different}")
    return report


async def _prompt(one: Rig, fields: dict[str, Any]) -> str:
    """The text before the answer."""
    async with one.session.post(f"{one.url}/apply-template", json=COMMON | fields) as response:
        text: str = (await response.json())["prompt"]
        return text


def positions(n_chunks: int, n_most: int | None, seed: int) -> list[int]:
    """Chunks to kill behind: all but the last one, or so many of them at random."""
    every = range(1, n_chunks)
    if n_most is None or n_most >= len(every):
        return list(every)
    return sorted(random.Random(seed).sample(every, n_most))


async def _each_position(
    ask: Callable[..., Awaitable[Answer]],
    report: Report,
    kind: str,
    undisturbed: Answer,
    chosen: list[int],
    judge: Expected,
) -> list[int]:
    """The chunks behind which a kill led to another answer."""
    n_kills, different, farthest = 0, list[int](), 0.0
    for position in chosen:
        sent: list[Answer] = []
        found = await ask(position, sent.append)
        if not sent:  # the answer was over before
            continue
        n_kills += 1
        if found.text != undisturbed.text:
            different.append(position)
        wrong = faults(found, undisturbed, sent[0], kind, judge)
        report.wrong += [f"{kind}, behind chunk {position}: {line}" for line in wrong]
        (expected,) = exact(found, undisturbed, sent[0])
        pairs = zip(found.logprobs, expected, strict=False)
        farthest = max(farthest, *(abs(logprob - other) for (_, logprob), other in pairs), 0.0)
    report.row(f"{kind}: kills, chunks", f"{n_kills}, {undisturbed.n_chunks}")
    report.row(
        f"{kind}: equal to the undisturbed answer", f"{n_kills - len(different)} of {n_kills}"
    )
    report.row(f"{kind}: a log probability was moved by at most", f"{farthest:.4f}")
    if not n_kills:
        report.wrong.append(f"{kind}: nothing was killed")
    return different


def faults(
    found: Answer, undisturbed: Answer, sent: Answer, kind: str, judge: Expected
) -> list[str]:
    """What is wrong with an answer of which `sent` had come when its worker was killed."""
    asked = ASKED[kind]
    is_call = "tools" in asked
    wrong = [f"not valid: {fault:.200}" for fault in _invalid(found.text)]
    if not found.text.startswith(sent.text):
        wrong.append("what was sent has changed")
    if found.calls != ([NAME] if is_call else []):
        wrong.append(f"calls of {found.calls}")
    if found.finish != (["tool_calls"] if is_call else ["stop"]):
        wrong.append(f"finish reasons {found.finish}")
    if "logprobs" not in asked:
        return wrong
    spelt = b"".join(token for token, _ in found.logprobs).decode("utf-8", "replace")
    if spelt != found.text and not (is_call and found.text in spelt):
        return [*wrong, f"log probabilities of other tokens: {spelt!r}"]
    if found.text == undisturbed.text and len(found.logprobs) != len(undisturbed.logprobs):
        n_other = len(undisturbed.logprobs)
        wrong.append(f"{len(found.logprobs)} log probabilities, undisturbed {n_other}")
    n_same, n_sent = _n_common(found, undisturbed), len(sent.logprobs)
    if n_same < n_sent:  # found by no judge: what it compares begins behind what had come
        wrong.append(f"token {n_same} of {n_sent} that had come is another one")
    return wrong + _misplaced(found, judge(found, undisturbed, sent))


def _invalid(text: str) -> list[str]:
    try:
        answer = json.loads(text)
    except ValueError as err:
        return [str(err)]
    return [error.message for error in Draft202012Validator(SCHEMA).iter_errors(answer)]


def exact(found: Answer, undisturbed: Answer, sent: Answer) -> list[list[float]]:
    """Those of the undisturbed answer up to the first other token: later ones have another text
    before them."""
    return [[logprob for _, logprob in undisturbed.logprobs[: _n_common(found, undisturbed)]]]


def fast(
    alone: Alone, prompt: list[int], found: Answer, undisturbed: Answer, sent: Answer
) -> Iterator[list[float]]:
    """Those of llama.cpp alone, for each number of tokens that the log may have had at the kill: at
    least those that had come."""
    ids = alone.ids([token for token, _ in found.logprobs])
    before = [logprob for _, logprob in undisturbed.logprobs]
    n_same = _n_common(found, undisturbed)
    for n_known in range(min(len(sent.logprobs), n_same), n_same + 1):
        yield before[:n_known] + alone.logprobs(prompt, ids, n_known)


def _n_common(found: Answer, undisturbed: Answer) -> int:
    """The number of tokens with which both begin."""
    pairs = zip(found.logprobs, undisturbed.logprobs, strict=False)
    return next(
        (at for at, ((token, _), (other, _)) in enumerate(pairs) if token != other),
        min(len(found.logprobs), len(undisturbed.logprobs)),
    )


def _misplaced(found: Answer, allowed: Iterable[list[float]]) -> list[str]:
    """Log probabilities that are far from those of each allowed list, by the nearest one. Nothing
    is right where no list is allowed."""
    nearest: list[str] | None = None
    for expected in allowed:
        wrong = [
            f"token {at}: log probability {logprob:.4f}, expected {other:.4f}"
            for at, ((_, logprob), other) in enumerate(zip(found.logprobs, expected, strict=False))
            if abs(logprob - other) > NEAR
        ]
        if not wrong:
            return []
        if nearest is None or len(wrong) < len(nearest):
            nearest = wrong
    return ["nothing to compare log probabilities with"] if nearest is None else nearest


async def _answer(
    one: Rig,
    fields: dict[str, Any],
    position: int | None,
    killed: Callable[[Answer], None] = lambda sent: None,
) -> Answer:
    """The whole answer. Its worker is killed behind the chunk of that number, if there is one, and
    `killed` is called with what had come."""
    row = await one.until_ready()
    found, epoch = Answer(), None
    url = f"{one.url}/v1/chat/completions"
    async with one.session.post(url, json=COMMON | fields) as response:
        if response.status != 200:
            raise AssertionError(f"{response.status}: {await response.text()}")
        async for line in response.content:
            data = line.strip().removeprefix(b"data: ")
            if not line.startswith(b"data: ") or data == b"[DONE]":
                continue
            _take(found, json.loads(data))
            if found.n_chunks == position and epoch is None and not found.finish:
                os.kill(row["pid"], signal.SIGKILL)
                epoch = row["epoch"]
                killed(structs.replace(found, logprobs=list(found.logprobs)))
    if epoch is not None:  # the answer may have been whole before the front noticed the death
        await one.until_ready(after=epoch)
    return found


def _take(found: Answer, chunk: dict[str, Any]) -> None:
    if "error" in chunk:
        raise AssertionError(str(chunk["error"]))
    for choice in chunk["choices"]:
        delta = choice["delta"]
        found.text += delta.get("content") or ""
        for call in delta.get("tool_calls") or ():
            if call["function"].get("name"):
                found.calls.append(call["function"]["name"])
            found.text += call["function"].get("arguments") or ""
        for one in (choice.get("logprobs") or {}).get("content") or ():
            found.logprobs.append((bytes(one["bytes"]), one["logprob"]))
        if choice.get("finish_reason"):
            found.finish.append(choice["finish_reason"])
    found.n_chunks += 1
