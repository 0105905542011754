"""What an engine in this process answers: each check runs on slots that were emptied."""

from collections.abc import Callable, Sequence

from engine_worker.backend.llama.backend import LlamaBackend
from gpufc.config import Replay
from gpufc.ids import RequestNo
from tests.models.runs import ModelRun, some_tokens
from tests.models.table.alone import Alone
from tests.models.table.judging import Cell, Compared, cell, compared, repeated

N_TOKENS = 48


class EngineChecks:
    """One model in one layout of its cache. Each check returns a cell of the table."""

    def __init__(self, backend: LlamaBackend, alone: Alone) -> None:
        self._backend, self._alone = backend, alone

    def _run(self) -> ModelRun:
        return ModelRun(self._backend)

    def _compared(self, prompt: Sequence[int], tokens: Sequence[int]) -> Compared:
        wanted = self._alone.wanted(prompt, N_TOKENS)
        return compared(prompt, tokens, wanted, self._alone.moved)

    def _answered(self, stem: Sequence[int]) -> list[int]:
        """The first of some endings that llama.cpp alone answers at length."""
        prompts = ([*stem, *some_tokens(9, seed)] for seed in range(11, 20))
        least = N_TOKENS // 2
        return next(one for one in prompts if len(self._alone.wanted(one, N_TOKENS).tokens) > least)

    def greedy(self) -> Cell:
        """Prompts of several lengths, each in empty slots."""
        prompts = [some_tokens(n, n) for n in (3, 40, 157, 300, 600)]
        return cell([self._compared(one, self._run().answer(one, N_TOKENS)) for one in prompts])

    def eight(self) -> Cell:
        """Eight prompts at once."""
        prompts = [some_tokens(5 + 20 * at, 100 + at) for at in range(8)]
        answers = self._run().answers(prompts, N_TOKENS)
        return cell([self._compared(*pair) for pair in zip(prompts, answers, strict=True)])

    def after_finished(self) -> Cell:
        """A prompt again, one that parts from it, and the next turn of a conversation."""
        run, stem = self._run(), some_tokens(200, 2)
        first = run.answer(stem, N_TOKENS)
        found = [self._compared(stem, first), self._compared(stem, run.answer(stem, N_TOKENS))]
        for prompt in ([*stem[:160], *some_tokens(30, 3)], [*stem, *first, *some_tokens(9, 4)]):
            found.append(self._compared(prompt, run.answer(prompt, N_TOKENS)))
        return cell(found)

    def beside_running(self) -> Cell:
        """A prompt that begins as that of a running sequence, once this one answers."""
        run, stem = self._run(), some_tokens(200, 5)
        second = [*stem[:170], *some_tokens(30, 6)]
        requests = [run.request(stem, N_TOKENS), run.request(second, N_TOKENS)]

        def begin_the_second() -> None:
            if len(run.engine.deltas(requests[0].request)) == 3:
                run.engine.engine.inbox.put(requests[1])

        tokens = run.run(requests[0], begin_the_second)
        beside = run.engine.tokens(requests[1].request)
        return cell([self._compared(stem, tokens), self._compared(second, beside)])

    def preempted(self) -> Cell:
        """A sequence that gives its cells up three times, beside one that keeps them."""
        run, prompt, other = self._run(), some_tokens(140, 7), some_tokens(60, 8)
        request, beside = run.request(prompt, N_TOKENS), run.request(other, N_TOKENS)
        run.engine.engine.inbox.put(beside)
        tokens = run.run(request, _preempting(run, request.request, (2, 9, 30)))
        answers = [(prompt, tokens), (other, run.engine.tokens(beside.request))]
        return cell([self._compared(*pair) for pair in answers])

    def exact(self) -> Cell:
        """The same for exact replays, which repeat the undisturbed answer."""
        run, prompt = self._run(), some_tokens(140, 9)
        undisturbed = run.request(prompt, N_TOKENS, replay=Replay.EXACT)
        run.engine.run(undisturbed)
        request = run.request(prompt, N_TOKENS, replay=Replay.EXACT)
        tokens = run.run(request, _preempting(run, request.request, (2, 9, 30)))
        return repeated(tokens, run.engine.tokens(undisturbed.request))

    def in_next_worker(self) -> Cell:
        """The next turn of a conversation, in a worker that has taken the cells over."""
        before, prompt = self._run(), some_tokens(200, 10)
        first = before.answer(prompt, N_TOKENS)
        after = before.succeeded()
        turn = self._answered([*prompt, *first])
        told = cell([self._compared(turn, after.answer(turn, N_TOKENS))])
        return told.also(f"{after.n_cached} of {len(turn)} cached")


def _preempting(run: ModelRun, request: RequestNo, positions: Sequence[int]) -> Callable[[], None]:
    scheduler, left = run.engine.engine.scheduler, list(positions)

    def preempt() -> None:
        found = scheduler.find(request)
        if left and found is not None and found.n_generated >= left[0]:
            left.pop(0)
            scheduler.preempt(found)

    return preempt
