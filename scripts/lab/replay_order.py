"""How soon replays go on with the scheduler's policies, simulated: no model and no device.

    python scripts/lab/replay_order.py
    python scripts/lab/replay_order.py --model 8B --replays 64 --beside 64 --step-tokens 512 768

`--beside` sequences decode on a device with all layers and a KV stream for each. Then `--replays`
of `--shortest` to `--longest` tokens arrive at once. The scheduler is the engine's own. The time of
a step is the sum of its passes, which are formed as llama.cpp does it: sequences with consecutive
slots compute equally many tokens. `MODELS` has the costs of passes. Prints a row for each case,
means over `--rounds` of lengths: milliseconds until the next token (median, mean, 99th percentile)
and the longest gap of the other streams. `overlapped` has replays in chunks of one length
(`OverlappedReplays`), `whole` one after another (`WholeReplays`). `replay_burst.py` measures.
"""

import argparse
import random
import sys
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from statistics import fmean, median

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from msgspec import Struct

from engine_worker.backend.profile import Shape
from engine_worker.scheduling import whole_replays
from engine_worker.scheduling.plan import Plan
from engine_worker.scheduling.scheduler import Scheduler
from engine_worker.text.sequence import Sequence
from engine_worker.tuning import H100
from tests.engine_worker.scheduling.device_planner import scheduler
from tests.engine_worker.scheduling.plans import computed
from tests.engine_worker.text.sequences import sequence, spec

PROMPT = 12
WARM_TOKENS = 20
POLICIES = {"overlapped": 0.0, "whole": H100.whole_replays_token_s}
"""Each with the seconds of a prompt token that make the scheduler choose it."""

Shapes = list[tuple[int, int]]
"""For each pass its sequences, and the tokens of each."""


class Costs(Struct, frozen=True, kw_only=True):
    """Seconds of a pass without rows of logits, of each of its tokens, of a pass with rows and of
    each row, and in addition of a pass of another shape than the last one of its kind."""

    pass_s: float
    token_s: float
    rows_pass_s: float
    row_s: float
    new_shape_s: float
    most_tokens: int
    batch_tokens: int


MODELS = {
    # 11,000 prompt tokens/s in passes of 512, 8 ms for a step of 64 rows
    "8B": Costs(
        pass_s=2.5e-3,
        token_s=86e-6,
        rows_pass_s=3.5e-3,
        row_s=70e-6,
        new_shape_s=3e-3,
        most_tokens=1024,
        batch_tokens=2048,
    ),
    # fitted to the measured rows of `replay_burst.py` in scheduling/NOTES.md
    "SmolLM2": Costs(
        pass_s=3.5e-3,
        token_s=8e-6,
        rows_pass_s=1.5e-3,
        row_s=70e-6,
        new_shape_s=4e-3,
        most_tokens=2048,
        batch_tokens=4096,
    ),
}


class Device:
    """Tells how long a plan takes, given the passes before."""

    def __init__(self, costs: Costs) -> None:
        self._costs = costs
        self._last: dict[bool, tuple[int, int] | None] = {True: None, False: None}

    def seconds(self, plan: Plan) -> float:
        counts = {work.slot: work.n_tokens for work in plan.work}
        if plan.in_one_pass:
            ahead = self._passes({slot: count - 1 for slot, count in counts.items()})
            passes = [*ahead, *self._passes(dict.fromkeys(counts, 1))]
        else:
            passes = self._passes(counts)
        return sum(self._of_pass(*shape) for shape in passes)

    def _passes(self, left: dict[int, int]) -> Shapes:
        passes = []
        while left := {slot: count for slot, count in left.items() if count}:
            run = [min(left)]
            while run[-1] + 1 in left:
                run.append(run[-1] + 1)
            most = max(1, self._costs.most_tokens // len(run))
            count = min(most, *(left[slot] for slot in run))
            passes.append((len(run), count))
            left |= {slot: left[slot] - count for slot in run}
        return passes

    def _of_pass(self, n_sequences: int, count: int) -> float:
        costs, has_rows = self._costs, count == 1
        is_new = self._last[has_rows] != (n_sequences, count)
        self._last[has_rows] = n_sequences, count
        if has_rows:
            seconds = costs.rows_pass_s + costs.row_s * n_sequences
        else:
            seconds = costs.pass_s + costs.token_s * n_sequences * count
        return seconds + is_new * costs.new_shape_s


class Outcome(Struct, frozen=True):
    """Seconds until each replay's next token; the longest gap of the streams beside."""

    waits: list[float]
    longest_gap: float


class Run:
    """One scheduler on one device, with a clock of its own."""

    def __init__(self, costs: Costs, n_slots: int, token_s: float) -> None:
        self.scheduler: Scheduler = scheduler(
            n_slots, costs.batch_tokens, shape=Shape.FIXED, prompt_token_s=token_s
        )
        self._device = Device(costs)
        self.now = 0.0

    def step(self) -> list[Sequence]:
        """Returns the sequences that have gained a token."""
        plan = self.scheduler.plan()
        self.now += self._device.seconds(plan)
        self.scheduler.commit(plan)
        gained = [item.sequence for item in computed(plan) if item.output]
        for one in gained:
            one.accept(97)
        return gained


def simulate(costs: Costs, lengths: list[int], n_beside: int, token_s: float) -> Outcome:
    """Replays of these lengths beside streams that decode."""
    run = Run(costs, n_beside + len(lengths), token_s)
    dice = random.Random(1)
    beside = [_sequence(number, PROMPT, 0, dice) for number in range(n_beside)]
    for one in beside:
        run.scheduler.add(one)
    while any(one.n_gained < WARM_TOKENS for one in beside):
        run.step()
    replays = [
        _sequence(n_beside + number, PROMPT, length - PROMPT, dice)
        for number, length in enumerate(sorted(lengths))  # the front sends the shortest first
    ]
    for one in replays:
        run.scheduler.add(one)
    began = run.now
    last = dict.fromkeys(beside, began)
    waits: dict[Sequence, float] = {}
    longest = 0.0
    while len(waits) < len(replays):
        for one in run.step():
            if one in last:
                longest, last[one] = max(longest, run.now - last[one]), run.now
            else:
                waits.setdefault(one, run.now - began)
    return Outcome(sorted(waits.values()), longest)


def _sequence(number: int, n_prompt: int, n_generated: int, dice: random.Random) -> Sequence:
    known = tuple(97 + dice.randrange(26) for _ in range(n_prompt + n_generated))
    asked = spec(number, known[:n_prompt], tokens=known[n_prompt:], max_tokens=1 << 20)
    return sequence(asked, n_ctx=1 << 20)


def main() -> None:
    options = _options()
    print("| model | replays, streams beside | policy | median | mean | 99 % | gap of the others |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    for model, (n_replays, n_beside) in product(options.model, _cases(options)):
        for name, token_s in _policies(options):
            outcomes = [
                simulate(MODELS[model], _lengths(n_replays, seed, options), n_beside, token_s)
                for seed in range(options.rounds)
            ]
            figures = (
                fmean([median(one.waits) for one in outcomes]),
                fmean([fmean(one.waits) for one in outcomes]),
                fmean([one.waits[int(0.99 * len(one.waits))] for one in outcomes]),
                fmean([one.longest_gap for one in outcomes]),
            )
            row = (model, f"{n_replays}, {n_beside}", name, *(f"{1000 * s:.0f}" for s in figures))
            print(f"| {' | '.join(row)} |", flush=True)


def _policies(options: argparse.Namespace) -> Iterator[tuple[str, float]]:
    """The policies by name, once for each number of tokens of a step with whole replays."""
    yield "overlapped", POLICIES["overlapped"]
    for n_tokens in options.step_tokens:
        whole_replays.STEP_TOKENS, whole_replays.MOST_TOKENS = n_tokens, 2 * n_tokens
        yield f"whole, {n_tokens}", POLICIES["whole"]


def _cases(options: argparse.Namespace) -> list[tuple[int, int]]:
    return list(zip(options.replays, options.beside, strict=True))


def _lengths(n: int, seed: int, options: argparse.Namespace) -> list[int]:
    dice = random.Random(seed)
    return [dice.randint(options.shortest, options.longest) for _ in range(n)]


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("--model", nargs="+", choices=list(MODELS), default=list(MODELS))
    add("--replays", type=int, nargs="+", default=[32, 64, 64], help="one number for each case")
    add("--beside", type=int, nargs="+", default=[32, 64, 0], help="streams, for each case")
    add("--shortest", type=int, default=PROMPT + 1, help="tokens of a replay and its prompt")
    add("--longest", type=int, default=450)
    add("--step-tokens", type=int, nargs="+", default=[whole_replays.STEP_TOKENS])
    add("--rounds", type=int, default=10)
    return parser.parse_args()


if __name__ == "__main__":
    main()
