"""One request of a client, and the answer that it got."""

import json
import re
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

JSON = {"Content-Type": "application/json"}
SKIPPED = "x-gpufc-skipped-tools"


class Answer(NamedTuple):
    """What came back. `stream` says whether a stream was asked for."""

    status: int
    headers: Mapping[str, str]
    data: bytes
    stream: bool = False

    @property
    def json(self) -> Any:
        return json.loads(self.data)

    @property
    def lines(self) -> list[Any]:
        """The objects of NDJSON. An empty line is an error."""
        assert self.headers["Content-Type"].startswith("application/x-ndjson")
        return [json.loads(line) for line in self.data.decode().removesuffix("\n").split("\n")]

    @property
    def events(self) -> list[Any]:
        """The documents of server-sent events without `[DONE]`. A name is that of its document."""
        assert self.headers["Content-Type"].startswith("text/event-stream"), self.data
        found = []
        for frame in self.data.decode().split("\n\n"):
            fields = dict(re.findall(r"^(event|data): (.*)$", frame, re.MULTILINE))
            if fields.get("data", "[DONE]") == "[DONE]":
                continue
            document = json.loads(fields["data"])
            assert fields.get("event", document.get("type")) == document.get("type")
            found.append(document)
        return found


Check = Callable[[Answer], Any]


class Request(NamedTuple):
    """`needs` reads an answer of 200, or checks a refusal with another `status`.

    `streams`: it is sent whole and as a stream, and both answers are checked.
    """

    client: str
    path: str
    body: Any
    needs: Check
    status: int = 200
    headers: Mapping[str, str] = {}
    method: str = "POST"
    streams: bool = False

    def bodies(self) -> list[Any]:
        """The bodies to send."""
        if not self.streams:
            return [self.body]
        return [self.body | {"stream": stream} for stream in (False, True)]


def is_refused(param: str, code: str = "invalid_value") -> Check:
    """A refusal in OpenAI's form that names the field."""

    def check(answer: Answer) -> None:
        error = answer.json["error"]
        assert (error["param"], error["code"]) == (param, code), error

    return check


def nothing(_answer: Answer) -> None:
    """The client reads the status only."""
