"""A request behind plugins: the stream that its reader has, over the stream that dispatch has.

Dispatch knows nothing of plugins. Its log has the model's text, each token once whatever happens to
workers. The text goes through the plugins once, in order, and into the log of the reader's stream.
So no replay of a sequence, and no second reader, runs a hook again.
"""

import asyncio
import logging

from gpufc.errors import InternalError, RequestError
from gpufc.ids import RequestNo
from gpufc.protocol import FinishReason
from supervisor.dispatch.dispatcher import Dispatcher
from supervisor.dispatch.request import GenerationRequest, Principal
from supervisor.dispatch.stream import ResponseStream
from supervisor.dispatch.stream_log import StreamLog
from supervisor.plugins.chain import Chain, Filter
from supervisor.plugins.requests import info_of
from supervisor.plugins.structs import Answer

logger = logging.getLogger(__name__)

NO_NUMBER = RequestNo(0)


class FilteredRequest:
    """Owns the task of one request. Implements `StreamObserver` for the inner stream.

    Invariant: the reader's stream ends exactly once, as every stream does.
    """

    def __init__(
        self, chain: Chain, dispatcher: Dispatcher, request: GenerationRequest, principal: Principal
    ) -> None:
        """Begins at once. Raises `RequestError`."""
        chain.require_possible(request)
        self._chain = chain
        self._dispatcher = dispatcher
        self._request = request
        self._principal = principal
        self._who = principal.shown
        self._info = info_of(request, self._who)
        self._inner: ResponseStream | None = None
        self._is_attended = True
        self._news: dict[int, None] = {}
        self._woken = asyncio.Event()
        self._logs = [
            StreamLog(NO_NUMBER, request, prompt_index=index, choice=choice)
            for index in range(len(request.prompts))
            for choice in range(request.n)
        ]
        self._filters = [Filter(chain, self._info, log.index) for log in self._logs]
        self._n_read = [0] * len(self._logs)
        self.stream = ResponseStream(
            request,
            self._logs,
            on_cancel=self._cancelled,
            on_attention=self._attend,
            fingerprint=lambda: self._inner.fingerprint if self._inner else None,
            submitted_at=dispatcher.now,
        )
        self.task = asyncio.create_task(self._run())

    # the inner stream's observer

    def gained(self, index: int) -> None:
        self._news[index] = None
        self._woken.set()

    def ended(self) -> None:
        self._woken.set()

    # the reader's stream

    def _cancelled(self, stream: ResponseStream) -> None:
        self.task.cancel()
        if self._inner is not None:
            self._inner.cancel(stream.error)
        self._finish_all(FinishReason.CANCELLED)

    def _attend(self, stream: ResponseStream, *, attended: bool) -> None:
        self._is_attended = attended
        if self._inner is not None:
            self._inner.attend(attended)

    # the task

    async def _run(self) -> None:
        try:
            inner = await self._submitted()
            while not inner.ended or self._news:
                await self._woken.wait()
                self._woken.clear()
                await self._pump(inner)
            if inner.error is not None:
                raise inner.error
        except RequestError as err:
            self._fail(err)
        except Exception:  # the boundary of a request: its reader must get its end
            logger.exception("plugins_broke request=%s", self._request.id)
            self._fail(InternalError("Something went wrong on our side"))

    async def _submitted(self) -> ResponseStream:
        """The stream of the request as the plugins want it."""
        chain, dispatcher = self._chain, self._dispatcher
        request = await chain.before_admission(self._request, self._who)
        request = await chain.on_prompt(dispatcher, request, self._info)
        inner = self._inner = dispatcher.submit(request, self._principal)
        inner.timings = self.stream.timings  # the reader has it already
        inner.observe(self)
        if not self._is_attended:
            inner.attend(False)
        return inner

    async def _pump(self, inner: ResponseStream) -> None:
        """Bring the new text of each choice to the reader."""
        while self._news:
            index = next(iter(self._news))
            del self._news[index]
            log, shown = inner.logs[index], self._logs[index]
            if shown.ended:
                continue
            start, self._n_read[index] = self._n_read[index], len(log.texts)
            is_final = log.finish is not None
            text = "".join(log.texts[start:])
            text = await self._filters[index].feed(text, final=is_final)
            if shown.ended:
                return  # cancelled meanwhile
            if is_final and self._n_read[index] < len(log.texts):  # cannot be: it had ended
                logger.error("text_after_the_end request=%s", self._request.id)
            shown.follow(log, text, final=is_final)
            if text or is_final:
                self.stream.notify(index)
            if is_final:
                self._tell(shown, str(log.finish))

    def _fail(self, error: RequestError) -> None:
        if self._inner is not None:
            self._inner.cancel(error)
        for log in self._logs:
            if not log.ended:
                log.fail(error)
                self._tell(log, error.code)
        self.stream.fail(error)

    def _finish_all(self, reason: FinishReason) -> None:
        for log in self._logs:
            if not log.ended:
                log.cancel()
                self._tell(log, str(reason))

    def _tell(self, log: StreamLog, reason: str) -> None:
        used = self.stream.usage_of(log.index)
        text = "".join(log.texts)
        answer = Answer(log.index, text, reason, used.prompt, used.completion)
        self._chain.on_finish(self._info, answer)
