"""How a Responses request is answered, whole or in events."""

import time

from msgspec import Struct

from supervisor.answers.parts import Logprobs
from supervisor.answers.whole import WholeAnswer
from supervisor.http.generation.dialect import Exchange
from supervisor.http.responses.answer import Echo, Reply, ResponseObject
from supervisor.http.responses.events import Keep, ResponseEvents
from supervisor.http.responses.output import Output
from supervisor.http.responses.tools import ToolTable


class ResponsesDialect(Struct, frozen=True):
    """OpenAI's Responses. Implements `Dialect`.

    `keep` gets each response that has an answer. `seals` is that of `Output`.
    """

    echo: Echo
    tools: ToolTable
    keep: Keep
    seals: bool
    id_prefix: str = "resp_"

    def whole(self, exchange: Exchange, choices: list[WholeAnswer]) -> ResponseObject:
        output = self._output(exchange)
        for part in (Logprobs(choices[0].logprobs), *choices[0].parts):
            output.feed(part)
        response = self._reply(exchange).document(
            output.status,
            output=tuple(output.items),
            usage=exchange.usage(),
            completed_at=int(time.time()),
        )
        self.keep(response)
        return response

    def encoder(self, exchange: Exchange) -> ResponseEvents:
        return ResponseEvents(
            self._reply(exchange),
            self._output(exchange),
            self.keep,
            time.time,
            has_logprobs=exchange.request.logprobs is not None,
        )

    def _output(self, exchange: Exchange) -> Output:
        return Output(exchange, self.tools, seals=self.seals)

    def _reply(self, exchange: Exchange) -> Reply:
        return Reply(
            id=exchange.id, created_at=exchange.created, model=exchange.model, echo=self.echo
        )
