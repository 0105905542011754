"""Simulate drafting policies on real token sequences, without decoding them.

Each text is a sequence of the model's tokens, and its end is the answer. A step takes the time that
was measured on the machine of the table, with 10 % noise. A policy learns costs from these steps as
it does in the engine. The model generates the ordinary answers at temperature 0.8, which takes most
of the script's time.

Prints Markdown tables of the speed relative to no drafts, with the drafted and the accepted tokens
for each token of the answers.
"""

import argparse
import inspect
import json
import random
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import heapq
import shlex
import textwrap

from engine_worker.backend.llama.backend import LlamaBackend
from engine_worker.backend.port import Batch
from engine_worker.backend.profile import Drafting
from engine_worker.sampling.sampler import Sampler
from engine_worker.scheduling.step_costs import StepCosts
from engine_worker.speculation.drafter import Draft, DraftRequest
from engine_worker.speculation.policies import speculator_for
from engine_worker.speculation.prompt_lookup import PromptLookup
from gpufc.config import ModelConfig
from gpufc.ids import RequestNo
from gpufc.sampling import SamplingParams


class Machine(NamedTuple):
    """`points` are pairs of a step's tokens and milliseconds, interpolated between.

    Each of the two steps after a change of the number of tokens takes `changed_ms` more.
    """

    name: str
    points: tuple[tuple[int, float], ...]
    changed_ms: float = 0.0


CPU = Machine("CPU", ((1, 9.3), (5, 32.5), (9, 52.0), (17, 78.0), (33, 142.0), (129, 510.0)))
GPU = Machine("GPU", ((1, 1.4), (8, 2.4), (9, 3.8), (33, 5.5), (1025, 18.0)), changed_ms=4.8)
KEY = RequestNo(1)
N_TOKENS = 220
QUESTIONS = (
    "Why is the sky blue?",
    "Tell me a story about a lighthouse keeper.",
    "Explain how a diesel engine works.",
    "Write a letter to my landlord about a broken heater.",
    "Explain recursion to a child, with an example in Python.",
    "Give me five tips for growing tomatoes.",
    "What is the difference between TCP and UDP?",
    "Write a Python function that parses a CSV file and explain it.",
)


class Text(NamedTuple):
    """All tokens; the first `n_prompt` are the prompt."""

    tokens: list[int]
    n_prompt: int


class Outcome(NamedTuple):
    seconds: float
    n_drafted: int
    n_accepted: int


Policy = Callable[[StepCosts], Callable[[list[int], int], list[int]]]
"""Makes, from the costs of steps, a function that drafts from (tokens, tokens still to come)."""


class Reported(PromptLookup):
    """Prompt lookup that reports the same evidence for every draft.

    With 0 the acceptance rates differ by position in the draft, with 32 there is one for all.
    """

    def __init__(self, evidence: int) -> None:
        super().__init__()
        self.evidence = evidence

    def assumed_rate(self, evidence: int) -> float:
        return 0.6

    def draft_all(self, requests: Sequence[DraftRequest]) -> list[Draft]:
        return [Draft(draft.tokens, self.evidence) for draft in super().draft_all(requests)]


def adaptive(make: Callable[[], PromptLookup]) -> Policy:
    def begin(costs: StepCosts) -> Callable[[list[int], int], list[int]]:
        speculator = speculator_for(Drafting.ANY_LENGTH, make(), costs)

        def draft(tokens: list[int], limit: int) -> list[int]:
            request = DraftRequest(KEY, tokens, limit, limit)
            return speculator.draft_all([request], n_decoding=1)[0]

        return draft

    return begin


def per_stretch(costs: StepCosts) -> Callable[[list[int], int], list[int]]:
    """The engine's policy on a device, where a draft may reach past the end of the answer."""
    speculator = speculator_for(Drafting.ONE_LENGTH, PromptLookup(), costs)

    def draft(tokens: list[int], n_useful: int) -> list[int]:
        return speculator.draft_all([DraftRequest(KEY, tokens, 100, n_useful)], n_decoding=1)[0]

    return draft


def always(length: int) -> Policy:
    def begin(_: StepCosts) -> Callable[[list[int], int], list[int]]:
        lookup = PromptLookup()

        def draft(tokens: list[int], limit: int) -> list[int]:
            (found,) = lookup.draft_all([DraftRequest(KEY, tokens, min(limit, length), limit)])
            return found.tokens

        return draft

    return begin


POLICIES: dict[str, Policy] = {
    "always 4": always(4),
    "always 16": always(16),
    "one rate for each sequence": adaptive(lambda: Reported(32)),
    "rates by position in the draft": adaptive(lambda: Reported(0)),
    "rates by evidence (per step)": adaptive(PromptLookup),
    "one length (per stretch)": per_stretch,
}


def play(text: Text, policy: Policy, machine: Machine, seed: int) -> Outcome:
    """Generate the answer step by step, as an engine with these costs would."""
    noise, n_drafted, n_accepted, total = random.Random(seed), 0, 0, 0.0
    costs = StepCosts()
    draft = policy(costs)
    costs.computed(text.n_prompt, seconds(machine, text.n_prompt))
    n_before, n_alike = text.n_prompt, 0
    known = text.tokens[: text.n_prompt]
    while len(known) < len(text.tokens):
        costs_known = costs.seconds(1, 1) is not None
        left = text.tokens[len(known) :]
        drafted = draft(known, len(left) - 1) if costs_known else []
        pairs = zip(drafted, left, strict=False)
        n_most = min(len(drafted), len(left))
        n_right = next((n for n, (a, b) in enumerate(pairs) if a != b), n_most)
        n_alike = n_alike + 1 if n_before == 1 + len(drafted) else 0
        n_before = 1 + len(drafted)
        took = seconds(machine, n_before) * noise.lognormvariate(0.0, 0.1)
        took += machine.changed_ms / 1000 if n_alike < 2 else 0.0
        costs.computed(1 + len(drafted), took)
        known += left[: n_right + 1]
        n_drafted, n_accepted, total = n_drafted + len(drafted), n_accepted + n_right, total + took
    return Outcome(total, n_drafted, n_accepted)


def seconds(machine: Machine, n_tokens: int) -> float:
    points = machine.points
    after = next((n for n, (size, _) in enumerate(points) if n and size >= n_tokens), -1)
    (n_left, ms_left), (n_right, ms_right) = points[after - 1], points[after]
    return (ms_left + (ms_right - ms_left) * (n_tokens - n_left) / (n_right - n_left)) / 1000


def cell(texts: list[Text], policy: Policy, machine: Machine) -> str:
    plain = [play(text, always(0), machine, seed) for seed, text in enumerate(texts)]
    found = [play(text, policy, machine, seed) for seed, text in enumerate(texts)]
    n_tokens = sum(len(text.tokens) - text.n_prompt for text in texts)
    speed = sum(each.seconds for each in plain) / sum(each.seconds for each in found)
    drafted, accepted = sum(f.n_drafted for f in found), sum(f.n_accepted for f in found)
    return f"{speed:.2f} ({drafted / n_tokens:.2f}, {accepted / n_tokens:.2f})"


def texts(backend: LlamaBackend) -> dict[str, list[Text]]:
    def tokenize(text: str) -> list[int]:
        return backend.tokenize(text, add_special=False, parse_special=True)

    def exchange(question: str, answer: str = "") -> Text:
        asked = f"<|im_start|>user\n{question}<|im_end|>\n<|im_start|>assistant\n"
        prompt = tokenize(asked)
        return Text([*prompt, *tokenize(answer)], len(prompt))

    sources = [inspect.getsource(module)[2000:7000] for module in (textwrap, heapq, shlex)]
    rng = random.Random(3)
    return {
        "copy": [exchange(f"Repeat this.\n{source}", source) for source in sources],
        "edited code": [exchange(f"Edit.\n{code}", edited(code, rng)) for code in sources],
        "rows": [exchange("List users.", rows(rng)) for _ in range(3)],
        "phrase": [exchange("Write it.", "I will not talk in class again, I promise.\n" * 20)],
        "ordinary": answers(backend, [exchange(question).tokens for question in QUESTIONS]),
    }


def edited(code: str, rng: random.Random) -> str:
    """The code with two names changed, one line in fifty removed, and one in fifty commented."""
    names = re.findall(r"\b[a-z_]{5,}\b", code)
    by_use = sorted(set(names), key=lambda name: (names.count(name), name))
    for old, new in ((by_use[-2], "renamed_item"), (by_use[-5], "other")):
        code = re.sub(rf"\b{old}\b", new, code)
    lines = [line for line in code.split("\n") if rng.random() > 0.02]
    return "\n".join(line + ("  # to be checked" if rng.random() < 0.02 else "") for line in lines)


def rows(rng: random.Random) -> str:
    def row(number: int) -> str:
        name, city = rng.choice(("Alice", "Chen", "Maria")), rng.choice(("Paris", "Lima", "Oslo"))
        return json.dumps({"id": number, "name": name, "age": rng.randrange(20, 70), "city": city})

    return "\n".join(row(number) for number in range(30))


def answers(backend: LlamaBackend, prompts: list[list[int]]) -> list[Text]:
    """The model's own answers, at temperature 0.8."""
    found = []
    for number, prompt in enumerate(prompts):
        sampler = Sampler(SamplingParams(seed=number), backend.facts.n_vocab, backend.end_tokens)
        tokens, n_computed = list(prompt), 0
        backend.remove(0)
        for position in range(N_TOKENS):
            new = tokens[n_computed:]
            outputs = [False] * (len(new) - 1) + [True]
            places = list(range(n_computed, len(tokens)))
            backend.begin(Batch(new, places, [0] * len(new), outputs))
            n_computed = len(tokens)
            token = sampler.choose(backend.logits()[0], tokens, 0, position)
            if backend.is_end(token):
                break
            tokens.append(token)
        found.append(Text(tokens, len(prompt)))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", required=True, help="a GGUF file")
    options = parser.parse_args()
    config = ModelConfig(model_path=options.model, n_ctx=2048, cached_sequences=0)
    backend = LlamaBackend.load(config, 1, lambda _: None)
    found = texts(backend)
    backend.close()
    for machine in (CPU, GPU):
        print(f"| {machine.name} | {' | '.join(found)} |\n|{' --- |' * (len(found) + 1)}")
        for name, policy in POLICIES.items():
            cells = [cell(each, policy, machine) for each in found.values()]
            print(f"| {name} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
