"""A request in no client's dialect, and the principal that it is made for."""

from collections.abc import Callable
from enum import StrEnum
from typing import Protocol

from msgspec import Struct

from gpufc.adapters import Adapters
from gpufc.config import Replay
from gpufc.constraint import Constraint
from gpufc.ids import RequestId
from gpufc.protocol import NO_RULES, LogprobsWanted, Prompt, TokenRules, Tokens
from gpufc.sampling import SamplingParams
from supervisor.answers.parser import NewParser, PlainText


class Scope(StrEnum):
    """A right that a principal may have. `ADMIN` includes the others."""

    GENERATE = "generate"
    READ = "read"
    ADMIN = "admin"


class Account(Protocol):
    """Holds a principal to its limits (`supervisor.access.account.KeyAccount`)."""

    def note_request(self) -> None:
        """A request has come. Raises `RateLimited`, and then does not count it."""
        ...

    def require_room(self, n_sequences: int) -> None:
        """Raises `RateLimited` if so many more sequences are too many now, `InvalidRequest` if they
        always are."""
        ...

    def open(self, n_sequences: int) -> None:
        """A request's sequences begin."""
        ...

    def close(self, n_sequences: int, n_tokens: int, seconds: float) -> None:
        """All of them have ended; once for each `open`. `n_tokens` are those of prompts and
        answers."""
        ...


class Principal(Struct, frozen=True):
    """The identity that a request is made under.

    Principals with an equal `cache_scope` may reuse each other's cached prefixes. `address` is set
    where the name does not tell clients apart. `models` are patterns of served names; empty for
    all. Without an `account` there are no limits. Where it `yields`, requests of all others go
    first.
    """

    name: str
    scopes: frozenset[Scope]
    cache_scope: str = ""
    address: str = ""
    is_anonymous: bool = False
    models: tuple[str, ...] = ()
    account: Account | None = None
    yields: bool = False

    @property
    def shown(self) -> str:
        """The name for operators and their plugins, without a key's digest."""
        return self.name.partition("#")[0]

    @property
    def owner(self) -> str:
        """The name under which its sequences share slots with those of other owners."""
        return self.address or self.name

    def may(self, scope: Scope) -> bool:
        """Whether it holds `scope`, by itself or through `ADMIN`."""
        return scope in self.scopes or Scope.ADMIN in self.scopes


ANONYMOUS = Principal("anonymous", frozenset({Scope.GENERATE, Scope.READ}), is_anonymous=True)
"""The principal of a request without a key."""


Watch = Callable[[str], bool]
"""Is given an answer's text piece by piece. True once the answer is whole."""


class Reading(Struct, frozen=True):
    """How an answer's text is read. `spelt` are control tokens that the text must show.

    `constraint` makes the text be of the format that is read. It holds instead of the request's.
    `new_watch` makes the watch that ends the sequence before the model does.
    """

    new_parser: NewParser = PlainText
    spelt: tuple[str, ...] = ()
    constraint: Constraint | None = None
    new_watch: Callable[[], Watch] | None = None


PLAIN = Reading()
"""All text is the answer."""

ReadingOf = Callable[[str], Reading]
"""The reading for an answer, given the end of its prompt's text."""


def plain(_opening: str) -> Reading:
    """The reading of all text as the answer."""
    return PLAIN


class GenerationRequest(Struct, frozen=True, kw_only=True):
    """One accepted request: all that a replay needs besides the tokens generated so far.

    It has `len(prompts) * n` sequences. They share the seed in `sampling`, which is fixed at
    acceptance; their choice numbers make their random numbers differ. `model` is a served name,
    never an alias. `created` is unix time in seconds. `reading` says how answers are read,
    `logprobs` which log probabilities are wanted. `prediction` may be like the answers.
    """

    id: RequestId
    model: str
    prompts: tuple[Prompt, ...]
    sampling: SamplingParams
    created: int
    n: int = 1
    max_tokens: int | None = None
    stop: tuple[str, ...] = ()
    cache_prompt: bool = True
    replay: Replay = Replay.FAST
    constraint: Constraint | None = None
    reading: ReadingOf = plain
    adapters: Adapters = ()
    logprobs: LogprobsWanted | None = None
    rules: TokenRules = NO_RULES
    prediction: Tokens = ()

    @property
    def n_sequences(self) -> int:
        """How many places it takes in admission."""
        return len(self.prompts) * self.n
