"""Between a durable request and its gains, in both directions. Pure.

`Sent` remembers how much of a request has been taken, so that each gain has the rest. `Known` is
the sum of all gains, from which another front restores the request.
"""

from collections.abc import Sequence

from msgspec import Struct, field

from gpufc.protocol import TokenLogprobs
from supervisor.cells.records import Batch, ChoiceGain, Gain, OfLog, PromptGain
from supervisor.dispatch.durable import DurableRequest
from supervisor.dispatch.request import Reading, ReadingOf
from supervisor.dispatch.stream_log import StreamLog


class Sent(Struct):
    """How much of a request has been taken. The numbers are by choice."""

    n_entries: int = 0
    n_tags: int = 1
    prompts: set[int] = field(default_factory=set)
    n_tokens: dict[int, int] = field(default_factory=dict)
    n_texts: dict[int, int] = field(default_factory=dict)
    n_logprobs: dict[int, int] = field(default_factory=dict)


def gain_since(name: str, request: DurableRequest, sent: Sent, *, tells_tags: bool = True) -> Gain:
    """What a request has gained since the call before, and note it in `sent`.

    The first tag goes without saying: it is a part of the request's id. Without `tells_tags` a
    later call has the new tags.
    """
    at, n_tags = sent.n_entries, sent.n_tags
    tags = request.tags[n_tags:] if tells_tags else []
    touched = dict.fromkeys(request.choices[at:])
    logs = [request.stream.logs[index] for index in touched]
    prompts = [_prompt(log) for log in logs if log.prompt_index not in sent.prompts]
    prompts = list({one.index: one for one in prompts}.values())
    sent.n_entries, sent.n_tags = len(request.marks), n_tags + len(tags)
    sent.prompts.update(one.index for one in prompts)
    return Gain(
        name,
        at,
        tuple(zip(request.choices[at:], request.marks[at:], strict=True)),
        tuple(_choice(log, sent) for log in logs),
        tuple(prompts),
        tuple(tags),
        tuple(request.tag_ends.get(tag) for tag in request.tags[n_tags - 1 : -1][: len(tags)]),
    )


def _prompt(log: StreamLog) -> PromptGain:
    reading = log.reading
    return PromptGain(
        log.prompt_index,
        tuple(log.prompt_tokens or ()),
        log.opening,
        log.fingerprint,
        reading.spelt,
        reading.constraint,
        reading.new_watch is not None,
    )


def _choice(log: StreamLog, sent: Sent) -> ChoiceGain:
    index = log.index
    n_tokens, n_texts = sent.n_tokens.get(index, 0), sent.n_texts.get(index, 0)
    n_logprobs = sent.n_logprobs.get(index, 0)
    sent.n_tokens[index], sent.n_texts[index] = len(log.tokens), len(log.texts)
    sent.n_logprobs[index] = len(log.logprobs)
    return ChoiceGain(
        index,
        n_tokens,
        tuple(log.tokens[n_tokens:]),
        tuple(log.texts[n_texts:]),
        log.sampler_state,
        log.n_cached,
        log.finish,
        log.by_end_token,
        log.stopped_by,
        tuple(log.logprobs[n_logprobs:]),
        () if n_logprobs else log.prompt_logprobs,
    )


class KnownChoice(Struct):
    """The sum of one choice's gains."""

    tokens: list[int] = field(default_factory=list)
    texts: list[str] = field(default_factory=list)
    logprobs: list[TokenLogprobs] = field(default_factory=list)
    prompt_logprobs: tuple[TokenLogprobs, ...] = ()
    last: ChoiceGain | None = None


NOTHING = KnownChoice()


class Known(Struct):
    """The sum of a request's gains.

    Invariant: a gain that does not follow the ones before is left out, with all after it, so that
    what is known is a state that the request was in.
    """

    order: list[tuple[int, int]] = field(default_factory=list)
    choices: dict[int, KnownChoice] = field(default_factory=dict)
    prompts: dict[int, PromptGain] = field(default_factory=dict)
    tags: list[tuple[str, int | None]] = field(default_factory=list)
    is_broken: bool = False

    def add(self, gain: Gain) -> None:
        """Take the next gain."""
        fits = gain.at == len(self.order) and all(
            one.at == len(self.choices.get(one.index, NOTHING).tokens) for one in gain.choices
        )
        if self.is_broken or not fits:
            self.is_broken = True
            return
        self.order += gain.order
        self.prompts |= {one.index: one for one in gain.prompts}
        since = (*gain.tags_since, *(None for _ in gain.tags))
        self.tags += zip(gain.tags, since, strict=False)
        for one in gain.choices:
            known = self.choices.setdefault(one.index, KnownChoice())
            known.tokens += one.tokens
            known.texts += one.texts
            known.logprobs += one.logprobs
            known.prompt_logprobs = known.prompt_logprobs or one.prompt_logprobs
            known.last = one

    @property
    def has_begun(self) -> bool:
        """Whether any choice has a token: then the rest has to come from the same model."""
        return any(one.tokens for one in self.choices.values())

    @property
    def fingerprint(self) -> str | None:
        """The model that the rest has to come from; None for any."""
        if not self.has_begun:
            return None
        return next((one.fingerprint for one in self.prompts.values()), None)

    def needs_client(self, n_prompts: int, *, is_plain: bool) -> bool:
        """Whether the request can go on only with the reading that its client's request has."""
        has_watch = any(one.has_watch for one in self.prompts.values())
        return has_watch or not (is_plain or len(self.prompts) == n_prompts)

    def fill(self, logs: Sequence[StreamLog], reading: ReadingOf | None) -> None:
        """Bring new logs of the request to this state. Without a `reading`, they go on as the
        prompts' gains say."""
        for log in logs:
            known, prompt = self.choices.get(log.index), self.prompts.get(log.prompt_index)
            if known is not None:
                _fill(log, known)
            if prompt is not None:
                read = Reading(spelt=prompt.spelt, constraint=prompt.constraint)
                if reading is not None:
                    read = reading(prompt.opening)
                log.begin_as(prompt.tokens, prompt.opening, prompt.fingerprint, read)


def _fill(log: StreamLog, known: KnownChoice) -> None:
    log.tokens.extend(known.tokens)
    log.texts.extend(known.texts)
    log.logprobs.extend(known.logprobs)
    log.prompt_logprobs = known.prompt_logprobs
    last = known.last
    if last is not None:
        log.sampler_state, log.n_cached = last.sampler_state, last.n_cached
        log.finish, log.by_end_token, log.stopped_by = (
            last.finish,
            last.by_end_token,
            last.stopped_by,
        )


class Log(Struct):
    """The sum of a log's records: what is known of each open request, by name, and whether the run
    may write no more."""

    open: dict[str, Known] = field(default_factory=dict)
    is_closed: bool = False

    def add(self, record: OfLog) -> None:
        """Take the next record."""
        if isinstance(record, Batch):
            for name in record.ended:  # a gain beside it is that of the key's next request
                self.open.pop(name, None)
            for gain in record.gains:
                self.open.setdefault(gain.name, Known()).add(gain)
        else:
            self.is_closed = True
