"""Routing strategies side by side: a simulation of chats, and the cost of a choice.

    python -m scripts.lab.routing chats          Markdown table of the strategies
    python -m scripts.lab.routing cost           microseconds for each choice

Simulated users hold conversations of several turns with a pause between. Each replica is an engine
with continuous batching: a step computes one token for each running sequence and a chunk of
prompts, and takes time by the figures of `ENGINES`. Its prefix cache keeps the conversations used
last, and finds the longest common prefix. Choices are made by the classes of `supervisor.routing`.
"""

import argparse
import heapq
import random
import statistics
import sys
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Iterator
from functools import partial
from typing import NamedTuple

from gpufc.config import Routing
from gpufc.ids import Epoch
from supervisor.routing.port import Arrival, Strategy
from supervisor.routing.router import Router
from supervisor.routing.strategies import strategy

Tokens = tuple[int, ...]


class EngineModel(NamedTuple):
    """The seconds of a step: a part for itself, for each running sequence, for each token of a
    prompt. At most `chunk` of those in a step, at most `slots` sequences, and `cells` of cache."""

    step_s: float
    sequence_s: float
    prefill_s: float
    chunk: int
    slots: int
    cells: int


ENGINES = {
    # the demo model on two cores, as design figures give it
    "CPU, 135M": EngineModel(0.002, 0.009, 0.0043, 128, 10, 12_000),
    # a model of 8B parameters on a data centre's GPU, in round figures
    "GPU, 8B": EngineModel(0.008, 0.0001, 0.00006, 2048, 64, 150_000),
}


class Load(NamedTuple):
    """Users, and their behaviour: seconds of thinking (mean), tokens of system prompts, messages
    and answers (means), turns of a conversation (mean)."""

    users: int
    think_s: float
    system: int = 400
    message: int = 80
    answer: int = 100
    turns: int = 6
    n_systems: int = 3


class Sequence:
    """One turn of a user on its way."""

    def __init__(self, user: "User", prompt: Tokens, answer: int, now: float) -> None:
        self.user, self.prompt, self.asked_at = user, prompt, now
        self.n_answer = self.left = answer
        self.arrival = Arrival(prompt, 0, "")
        self.unfilled = len(prompt)
        self.n_found = 0


class User:
    """Holds one conversation after the other."""

    def __init__(self, load: Load, dice: random.Random, numbers: Iterator[int]) -> None:
        self._load, self._dice, self._numbers = load, dice, numbers
        self.history: Tokens = ()

    def _some(self, mean: int) -> int:
        return max(1, int(self._dice.gammavariate(2.0, mean / 2.0)))

    def ask(self, now: float) -> Sequence:
        if not self.history or self._dice.random() < 1.0 / self._load.turns:
            which = self._dice.randrange(self._load.n_systems)
            self.history = tuple(range(-which * 10_000 - self._load.system, -which * 10_000))
        fresh = tuple(next(self._numbers) for _ in range(self._some(self._load.message)))
        self.history += fresh
        return Sequence(self, self.history, self._some(self._load.answer), now)

    def pause_s(self) -> float:
        return self._dice.expovariate(1.0 / self._load.think_s)


class Cache:
    """Whole conversations by the last use, found by their longest common prefix in blocks."""

    BLOCK = 16

    def __init__(self, cells: int) -> None:
        self._cells, self._used = cells, 0
        self._kept: OrderedDict[int, Tokens] = OrderedDict()
        self._blocks: dict[int, int] = {}

    def found(self, tokens: Tokens) -> int:
        """The cached tokens at the beginning; the last one is always computed."""
        n = 0
        for end in range(self.BLOCK, len(tokens), self.BLOCK):
            if not self._blocks.get(hash(tokens[:end])):
                break
            n = end
        return n

    def keep(self, key: int, tokens: Tokens) -> None:
        self._drop(key)
        while self._kept and self._used + len(tokens) > self._cells:
            self._drop(next(iter(self._kept)))
        self._kept[key] = tokens
        self._used += len(tokens)
        self._count(tokens, 1)

    def _drop(self, key: int) -> None:
        tokens = self._kept.pop(key, None)
        if tokens is not None:
            self._used -= len(tokens)
            self._count(tokens, -1)

    def _count(self, tokens: Tokens, by: int) -> None:
        for end in range(self.BLOCK, len(tokens) + 1, self.BLOCK):
            block = hash(tokens[:end])
            self._blocks[block] = self._blocks.get(block, 0) + by
            if not self._blocks[block]:
                del self._blocks[block]


class Replica:
    """One engine. `step` computes once and returns its seconds."""

    def __init__(self, model: EngineModel, no: Epoch) -> None:
        self.model, self.no = model, no
        self.running: list[Sequence] = []
        self.cache = Cache(model.cells)
        self.is_stepping = False

    def add(self, one: Sequence) -> int:
        one.n_found = self.cache.found(one.prompt)
        one.unfilled -= one.n_found
        self.running.append(one)
        return one.n_found

    def step(self) -> tuple[float, list[Sequence], list[Sequence]]:
        """The seconds, the sequences with their first token, and those that have ended."""
        budget = self.model.chunk
        n_prefill, first, ended, n_decoding = 0, [], [], 0
        for one in list(self.running):
            if one.unfilled:
                part = min(budget, one.unfilled)
                budget, n_prefill = budget - part, n_prefill + part
                one.unfilled -= part
                if one.unfilled:
                    continue
                first.append(one)
            n_decoding += 1
            one.left -= 1
            if not one.left:
                ended.append(one)
                self.running.remove(one)
        model = self.model
        seconds = model.step_s + n_decoding * model.sequence_s + n_prefill * model.prefill_s
        return seconds, first, ended


class Result(NamedTuple):
    cached_share: float
    tokens_per_s: float
    first_p50_s: float
    first_p95_s: float


def simulate(
    new: Callable[[], Strategy],
    model: EngineModel,
    n_replicas: int,
    load: Load,
    *,
    seconds: float,
    seed: int,
) -> Result:
    """One run. The first quarter of it is not counted."""
    dice = random.Random(seed)
    numbers = iter(range(1, 1 << 60))
    router = Router(new())
    replicas = {Epoch(no): Replica(model, Epoch(no)) for no in range(1, n_replicas + 1)}
    for no in replicas:
        router.add(no, model.slots)
    users = [User(load, dice, numbers) for _ in range(load.users)]
    events: list[tuple[float, int, User | Replica]] = []
    order = iter(range(1 << 60))
    for user in users:
        heapq.heappush(events, (dice.uniform(0.0, load.think_s), next(order), user))
    waiting: deque[Sequence] = deque()
    n_prompt = n_cached = n_generated = 0
    firsts: list[float] = []
    counts_from = seconds / 4.0

    def start(now: float) -> None:
        nonlocal n_prompt, n_cached
        while waiting:
            one = waiting[0]
            chosen = router.choose(one.arrival)
            if chosen is None:
                return
            waiting.popleft()
            replica = replicas[chosen]
            router.took(chosen, one.arrival)
            found = replica.add(one)
            router.prefilled(chosen, found)
            if now >= counts_from:
                n_prompt, n_cached = n_prompt + len(one.prompt), n_cached + found
            if not replica.is_stepping:
                replica.is_stepping = True
                heapq.heappush(events, (now, next(order), replica))

    while events:
        now, _, who = heapq.heappop(events)
        if now > seconds:
            break
        if isinstance(who, User):
            waiting.append(who.ask(now))
            start(now)
            continue
        if not who.running:
            who.is_stepping = False
            continue
        took_s, first, ended = who.step()
        then = now + took_s
        for one in first:
            router.prefilled(who.no, one.arrival.n_tokens - one.n_found)
            if then >= counts_from:
                firsts.append(then - one.asked_at)
        if then >= counts_from:
            n_generated += sum(1 for one in who.running if not one.unfilled) + len(ended)
        for one in ended:
            answer = tuple(next(numbers) for _ in range(one.n_answer))
            one.user.history = one.prompt + answer
            who.cache.keep(id(one.user), one.prompt + answer)
            router.gave_back(who.no)
            heapq.heappush(events, (then + one.user.pause_s(), next(order), one.user))
        heapq.heappush(events, (then, next(order), who))
        start(then)
    firsts.sort()
    return Result(
        n_cached / max(1, n_prompt),
        n_generated / (seconds - counts_from),
        statistics.median(firsts),
        firsts[int(0.95 * len(firsts))],
    )


LOADS = {
    "CPU, 135M": {"light": Load(3, 4.0), "medium": Load(6, 4.0), "heavy": Load(12, 4.0)},
    "GPU, 8B": {
        "light": Load(40, 4.0, system=2000, message=200, answer=150),
        "medium": Load(80, 4.0, system=2000, message=200, answer=150),
        "heavy": Load(160, 4.0, system=2000, message=200, answer=150),
    },
}
"""Users for each replica, by the name of the load."""


def chats(seconds: float, seeds: int) -> None:
    """Print the table."""
    print("| engine | replicas | users | strategy | cached share | tok/s | first token p50 | p95 |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- |")
    for engine, model in ENGINES.items():
        for n_replicas in (2, 4):
            for name, load in LOADS[engine].items():
                users = load._replace(users=load.users * n_replicas)
                for routing in Routing:
                    runs = [
                        simulate(
                            partial(strategy, routing),
                            model,
                            n_replicas,
                            users,
                            seconds=seconds,
                            seed=seed,
                        )
                        for seed in range(seeds)
                    ]
                    mean = Result(*(statistics.mean(column) for column in zip(*runs, strict=True)))
                    print(
                        f"| {engine} | {n_replicas} | {users.users} ({name}) | {routing} "
                        f"| {mean.cached_share:.0%} | {mean.tokens_per_s:,.0f} "
                        f"| {mean.first_p50_s:.2f} s | {mean.first_p95_s:.2f} s |",
                        flush=True,
                    )


def cost(n_workers: int) -> None:
    """Print the processor time of a choice, with its accounts, among so many workers."""
    n_choices = 5_000
    print(f"| strategy | prompt | hashing, µs | choice of {n_workers:,}, µs | accounts, µs |")
    print("| --- | --- | --- | --- | --- |")
    for routing in Routing:
        for n_tokens in (512, 8192):
            dice = random.Random(1)
            router = Router(strategy(routing))
            for no in range(1, n_workers + 1):
                router.add(Epoch(no), 64)
            prompts = [
                tuple(range(user * 100_000, user * 100_000 + n_tokens)) for user in range(200)
            ]
            spent = [0.0, 0.0, 0.0]
            open_work: deque[tuple[Epoch, Arrival]] = deque()
            for _ in range(n_choices):
                arrival = Arrival(dice.choice(prompts), 0, "")
                times = [time.process_time()]
                if routing is Routing.PREFIX_AFFINITY:
                    _ = arrival.prefix  # made once, and kept
                times.append(time.process_time())
                chosen = router.choose(arrival)
                times.append(time.process_time())
                if chosen is None:
                    sys.exit("no worker was chosen")
                router.took(chosen, arrival)
                router.prefilled(chosen, arrival.n_tokens)
                open_work.append((chosen, arrival))
                if len(open_work) > 20 * n_workers:
                    router.gave_back(open_work.popleft()[0])
                times.append(time.process_time())
                for part in range(3):
                    spent[part] += times[part + 1] - times[part]
            per = [1e6 * total / n_choices for total in spent]
            print(
                f"| {routing} | {n_tokens:,} tokens | {per[0]:.1f} | {per[1]:.1f} | {per[2]:.1f} |"
            )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=("chats", "cost"))
    parser.add_argument("--seconds", type=float, default=400.0)
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--workers", type=int, default=1000)
    options = parser.parse_args()
    if options.what == "chats":
        chats(options.seconds, options.seeds)
    else:
        cost(options.workers)


if __name__ == "__main__":
    main()
