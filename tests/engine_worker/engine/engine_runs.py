"""An engine driven step by step in the test's own thread."""

from collections.abc import Callable

from engine_worker.backend.port import Backend
from engine_worker.engine.loop import Engine, ToEngine
from engine_worker.speculation.drafter import Drafter
from gpufc.ids import Epoch
from gpufc.protocol import Delta, FromWorker, Step


class EngineRun:
    """An engine with everything that it has emitted."""

    def __init__(
        self,
        backend: Backend,
        *,
        max_running: int = 4,
        batch_tokens: int = 32,
        drafter: Drafter | None = None,
    ) -> None:
        self.messages: list[FromWorker] = []
        self.engine = Engine(
            backend,
            self.messages.append,
            epoch=Epoch(1),
            max_running=max_running,
            batch_tokens=batch_tokens,
            drafter=drafter,
        )

    def fix_costs(self, first_s: float, token_s: float) -> None:
        """Let no clock decide: a step costs this much, however long it takes."""

        def seconds(n_tokens: int, _: int) -> float:
            return first_s + token_s * n_tokens

        costs = self.engine._reporter._costs
        costs.seconds = seconds  # type: ignore[method-assign]
        costs.settled_seconds = seconds  # type: ignore[method-assign]

    @property
    def busy(self) -> bool:
        scheduler = self.engine.scheduler
        return not (
            scheduler.is_idle and self.engine._embedding.is_idle and self.engine.inbox.empty()
        )

    def run(self, *requests: ToEngine, between: Callable[[], None] = lambda: None) -> None:
        """Run requests to their end; `between` is called after each step."""
        for request in requests:
            self.engine.inbox.put(request)
        while self.busy:
            self.engine.take_requests()
            plan = self.engine.run_step()
            self.engine.run_embedder(plan)
            between()

    def deltas(self, request: int) -> list[Delta]:
        steps = (message for message in self.messages if isinstance(message, Step))
        return [delta for step in steps for delta in step.deltas if delta.request == request]

    def tokens(self, request: int) -> list[int]:
        """All tokens of a request; checks that positions follow each other without a gap."""
        tokens: list[int] = []
        first = self.deltas(request)[0].position
        for delta in self.deltas(request):
            assert delta.position == first + len(tokens)
            tokens += delta.tokens
        return tokens

    @property
    def n_cached(self) -> int:
        """Tokens of the last started request that were found in the cache."""
        steps = (message for message in self.messages if isinstance(message, Step))
        return [started for step in steps for started in step.started][-1].n_cached

    def text(self, request: int) -> str:
        return "".join(delta.text for delta in self.deltas(request))
