"""A question to any ready worker, as an awaitable."""

import asyncio
from collections.abc import Callable, Iterator

from gpufc.ids import Epoch, RequestNo
from gpufc.protocol import ToWorker
from supervisor.dispatch.group import ModelGroup
from supervisor.dispatch.question import Answer, Question


class Asking:
    """In the event loop. `require_worker` is told the model of each question, which may need a
    worker to be started."""

    def __init__(
        self,
        numbers: Iterator[RequestNo],
        clock: Callable[[], float],
        require_worker: Callable[[str, ModelGroup], None],
    ) -> None:
        self._numbers = numbers
        self._clock = clock
        self._require_worker = require_worker

    async def put(
        self,
        model: str,
        group: ModelGroup,
        message: Callable[[Epoch, RequestNo], ToWorker],
        *,
        is_computed: bool = False,
    ) -> tuple[Answer, str | None]:
        """The answer, and the fingerprint of the worker that has given it."""
        no = next(self._numbers)
        future: asyncio.Future[tuple[Answer, str | None]]
        future = asyncio.get_running_loop().create_future()

        def answered(answer: Answer) -> None:
            if not future.done():  # the worker may be gone when the future is read
                future.set_result((answer, group.fingerprint(answer.epoch)))

        group.questions.add(
            Question(
                no,
                lambda epoch: message(epoch, no),
                answered=answered,
                failed=lambda error: None if future.done() else future.set_exception(error),
                since=self._clock(),
                is_computed=is_computed,
            )
        )
        group.pump()
        self._require_worker(model, group)
        try:
            return await future
        finally:
            group.questions.drop(no)
            if is_computed:
                group.pump()  # a sequence may have waited for it
