"""What hooks get and return, as plain structs. `api` shows them to authors."""

from msgspec import Struct


class Info(Struct, frozen=True):
    """The request that a hook is about. `principal` is the name of the key, or `anonymous`."""

    id: str
    model: str
    principal: str


class Message(Struct):
    """One turn of a chat. `origin` is its place in the request; None for a turn that is new."""

    role: str
    content: str
    origin: int | None = None


class Prompt(Struct):
    """A chat has `messages`, a completion `text`. A prompt of token ids has neither: `on_prompt`
    gets its text."""

    text: str | None = None
    messages: list[Message] | None = None


class Request(Struct):
    """A request before its admission. A hook may change every field but `info`."""

    info: Info
    prompts: list[Prompt]
    max_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None


class Sequence(Struct, frozen=True):
    """A prompt of `tokens` tokens, for so many choices that are computed next to each other.

    `prefix` has a hash for each 64 tokens, of all up to there: prompts with an equal hash begin
    alike and may share cached work. The front makes other hashes after its restart.
    """

    tokens: int
    max_tokens: int | None
    choices: int
    prefix: list[int]


class Worker(Struct, frozen=True):
    """A worker of the request's model. Of `capacity` sequences that it may have, it has
    `outstanding`, with `prefill` tokens of prompts that it has not computed yet."""

    name: str
    outstanding: int
    capacity: int
    prefill: int


class Load(Struct, frozen=True):
    """The sequences of the request's model: those that run in `slots`, and those that wait."""

    running: int
    waiting: int
    slots: int


class Delta(Struct, frozen=True):
    """`text` goes to the client now. The last `keep` characters of the hook's input are held back:
    the next call has them before the new text."""

    text: str
    keep: int = 0


class Identity(Struct, frozen=True):
    """A principal. `scopes` are of `generate`, `read`, `admin`; `models` patterns of model names,
    none for all."""

    name: str
    scopes: tuple[str, ...] = ("generate",)
    models: tuple[str, ...] = ()


class Answer(Struct, frozen=True):
    """A finished choice, as the client has it. `reason` is `stop`, `length`, `cancelled`, or the
    code of an error."""

    index: int
    text: str
    reason: str
    prompt_tokens: int
    completion_tokens: int


class Event(Struct, frozen=True):
    """Something that happened to a worker: `worker_ready`, `worker_lost` or `worker_draining`."""

    kind: str
    worker: str
    model: str
    detail: str = ""
