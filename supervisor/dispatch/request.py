"""What is asked for, in no client's dialect, and on whose behalf."""

from enum import StrEnum

from msgspec import Struct

from gpufc.config import Replay
from gpufc.ids import RequestId
from gpufc.protocol import Prompt
from gpufc.sampling import SamplingParams


class Scope(StrEnum):
    """What a principal may do. `ADMIN` includes the others."""

    GENERATE = "generate"
    READ = "read"
    ADMIN = "admin"


class Principal(Struct, frozen=True):
    """Who asks. Those with equal `cache_scope` may reuse each other's cached prefixes.

    `address` is set where the name does not tell clients apart.
    """

    name: str
    scopes: frozenset[Scope]
    cache_scope: str = ""
    address: str = ""

    @property
    def owner(self) -> str:
        """Among whom slots are shared evenly: whoever has the same one shares its part."""
        return self.address or self.name

    def may(self, scope: Scope) -> bool:
        """Whether it holds `scope`, by itself or through `ADMIN`."""
        return scope in self.scopes or Scope.ADMIN in self.scopes


ANONYMOUS = Principal("anonymous", frozenset({Scope.GENERATE, Scope.READ}))
"""Everybody, as long as no keys are configured."""


class GenerationRequest(Struct, frozen=True, kw_only=True):
    """One request as accepted: all that a replay needs besides the tokens that it has.

    It means `len(prompts) * n` sequences. The seed in `sampling` is fixed here, at acceptance, and
    is the same for all of them: their choice numbers tell their random numbers apart. `model` is a
    served name, not an alias. `created` is unix time in seconds.
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

    @property
    def n_sequences(self) -> int:
        """How many places it takes in admission."""
        return len(self.prompts) * self.n
