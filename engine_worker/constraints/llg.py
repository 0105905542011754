"""llguidance: grammars in its own form, its tokenizer, its matcher. No other module imports it."""

from array import array
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from threading import Event
from typing import Any, Protocol

import llguidance
import numpy as np
from llguidance.gbnf_to_lark import gbnf_to_lark

from engine_worker.backend.candidates import MaskWords
from engine_worker.constraints import digits
from gpufc.errors import InvalidGrammar

LIMITS = llguidance.LLParserLimits(
    initial_lexer_fuel=1_000_000,
    step_lexer_fuel=200_000,
    step_max_items=50_000,
    max_lexer_states=50_000,
    max_grammar_size=100_000,
    verbose_errors=False,
)
"""What a grammar may take when it is compiled, and in one step. A step over its limit ends the
sequence. The fuel of a step is about 15 ms; a mask alone renews it (`Lexer`)."""

MAX_NEW_BYTES = 64
"""Bytes that a lexer reads between two masks. The fuel of a step is enough for them in each grammar
that was tried and has masks at every token (NOTES.md)."""

JSON_LAYOUT = {
    "whitespace_flexible": False,
    "item_separator": ", ",
    "key_separator": ": ",
    "lenient": False,
    "coerce_one_of": False,
}
"""JSON in the layout of Python's `json.dumps`. With optional whitespace no separator is forced."""


class Vocabulary(Protocol):
    """The part of a backend that a tokenizer is made of."""

    end_tokens: frozenset[int]

    def writable(self, token: int) -> bytes: ...
    def written(self, text: str) -> list[int]: ...


HoldLock = Callable[[], AbstractContextManager[None]]
"""The context manager for a call that holds the interpreter's lock for long."""


class Tokenizer:
    """A model's vocabulary as llguidance reads it. Immutable. Making one reads every token.

    llguidance holds the interpreter's lock while it builds its two parts, the trie of all tokens
    and the tries of its slices. Each is built within `hold_lock`.

    `without_digits` is the mask of the tokens that begin with no digit.
    """

    def __init__(
        self, vocabulary: Vocabulary, n_vocab: int, hold_lock: HoldLock = nullcontext
    ) -> None:
        read = _Wrapped(vocabulary, n_vocab)
        with hold_lock():
            unsliced = llguidance.LLTokenizer(
                llguidance.TokenizerWrapper(read),
                n_vocab=n_vocab,
                eos_token=sorted(vocabulary.end_tokens),
                slices=[],
            )
        with hold_lock():
            self.inner = unsliced.with_slices(unsliced.general_slices())
        self.n_words = -(-n_vocab // 32)
        self.pieces = read.tokens
        bits = np.zeros(self.n_words * 32, bool)
        bits[:n_vocab] = [not digits.begins_with_digit(piece) for piece in read.tokens]
        self.without_digits = np.packbits(bits, bitorder="little").view(np.int32)

    def n_bytes(self, token: int) -> int:
        """The length of a token's text; 0 for one that the vocabulary does not have."""
        return len(self.pieces[token]) if token < len(self.pieces) else 0


class _Wrapped:
    is_tokenizer_wrapper = True
    bos_token_id = None

    def __init__(self, vocabulary: Vocabulary, n_vocab: int) -> None:
        self._written = vocabulary.written
        ends = vocabulary.end_tokens
        self.eos_token_id = min(ends)
        self.special_token_ids = sorted(ends)
        self.tokens = [
            b"<end%d>" % token if token in ends else vocabulary.writable(token)
            for token in range(n_vocab)
        ]

    def __call__(self, text: bytes | str) -> list[int]:
        decoded = text.decode("utf-8", "replace") if isinstance(text, bytes) else text
        return self._written(decoded)


class Lexer:
    """The lexer that a compiled grammar has in common with all of its copies.

    llguidance locks it for each mask: copies of one matcher never compute masks at the same time.
    It also keeps a limit that one copy has met, for all of them: `is_broken`.

    Each state that a lexer meets for the first time takes fuel, in masks, checks and reading alike.
    A mask begins with full fuel, unless a token is forced; checks and reading begin with the rest.
    `n_new_bytes` counts the bytes since the last renewal. The engine thread alone changes it.
    """

    def __init__(self) -> None:
        self.is_broken = False
        self.n_new_bytes = 0

    @property
    def is_due(self) -> bool:
        """Whether a mask comes before any further new state."""
        return self.n_new_bytes >= MAX_NEW_BYTES


class Matcher:
    """The state of one grammar after the tokens of one sequence.

    Not thread-safe. A matcher that has met a limit has an `error`, and allows no token any more.

    Invariant: of a JSON text, `_states` has the state of `digits` before the first token and after
    each token.
    """

    def __init__(self, tokenizer: Tokenizer, grammar: str, *, is_json: bool = False) -> None:
        """`is_json`: the whole text is JSON, whose numbers are bounded by `digits`.

        Raises `InvalidGrammar`.
        """
        self._tokenizer = tokenizer
        self._states = array("q", (digits.START,)) if is_json else None
        self._inner = llguidance.LLMatcher(tokenizer.inner, grammar, log_level=0, limits=LIMITS)
        self.lexer = Lexer()
        if self._inner.is_error():
            raise InvalidGrammar(_first_line(self._inner.get_error()))

    def copy(self) -> "Matcher":
        """A matcher in the same state, which shares the lexer and nothing else."""
        copied = Matcher.__new__(Matcher)
        copied._tokenizer, copied._inner = self._tokenizer, self._inner.deep_copy()
        copied._states = None if self._states is None else self._states[:]
        copied.lexer = self.lexer
        return copied

    @property
    def error(self) -> str:
        return _first_line(self._inner.get_error()) if self._inner.is_error() else ""

    @property
    def is_complete(self) -> bool:
        """Whether the text is whole and nothing may follow it."""
        return bool(self._inner.is_stopped()) and not self._inner.is_error()

    @property
    def is_accepting(self) -> bool:
        """Whether the text is whole as it stands."""
        return bool(self._inner.is_accepting())

    def consume(self, tokens: Sequence[int]) -> int:
        """Feed tokens up to the first one that is not allowed. Returns how many were.

        Many tokens are read in pieces, with masks between them. A single one needs none: its states
        are known from the check, the mask or the forced tokens that it comes from.
        """
        if len(tokens) == 1:
            return self._consume(tokens)
        n_read = 0
        while n_read < len(tokens):
            piece = tokens[n_read : self._end_of_piece(tokens, n_read)]
            n_of_piece = self._consume(piece)
            n_read += n_of_piece
            if n_of_piece < len(piece):
                break
        return n_read

    def _end_of_piece(self, tokens: Sequence[int], start: int) -> int:
        """The end of the tokens that the lexer's fuel is enough for, at least one."""
        lexer = self.lexer
        if lexer.is_due:
            n_forced = len(self.forced())
            if n_forced:
                return start + n_forced  # their states are known now
            self._renew()
        for end, token in enumerate(tokens[start : start + MAX_NEW_BYTES], start + 1):
            lexer.n_new_bytes += self._tokenizer.n_bytes(token)
            if lexer.is_due:
                return end
        return min(len(tokens), start + MAX_NEW_BYTES)

    def _consume(self, tokens: Sequence[int]) -> int:
        n_read = int(self._inner.try_consume_tokens(list(tokens)))
        if self._states is not None:
            state = self._states[-1]
            for token in tokens[:n_read]:
                state = digits.after(state, self._tokenizer.pieces[token])
                self._states.append(state)
        return n_read

    def find_limit(self) -> None:
        """Find out whether a token was not read because of a limit, which no error tells: the lexer
        is then marked as broken."""
        self.copy().mask()  # a copy computes it anew

    def allows(self, token: int) -> bool:
        """Whether the mask of the next token has this one, where no token is `forced`."""
        if self.lexer.is_due or (
            self._has_too_many_digits and digits.begins_with_digit(self._tokenizer.pieces[token])
        ):  # the mask knows what else may follow
            return bool(self._renew()[token >> 5] >> (token & 31) & 1)
        self.lexer.n_new_bytes += self._tokenizer.n_bytes(token)
        return not self._inner.is_error() and self._inner.validate_tokens([token]) == 1

    def _renew(self) -> MaskWords:
        """The mask where no token is forced, which renews the lexer's fuel."""
        words = self.mask()
        self.lexer.n_new_bytes = 0
        return words

    def rollback(self, n_tokens: int) -> None:
        """Forget the last tokens."""
        if n_tokens:
            self._inner.rollback(n_tokens)
            if self._states is not None:
                del self._states[-n_tokens:]

    def forced(self) -> list[int]:
        """The tokens that must come next, as the model's tokenizer cuts them. Possibly none."""
        if self._inner.is_error():
            return []
        tokens = list(self._inner.compute_ff_tokens())
        if not tokens:
            return tokens
        self.lexer.n_new_bytes += sum(map(self._tokenizer.n_bytes, tokens))
        return tokens[: self._inner.validate_tokens(tokens)]

    def mask(self) -> MaskWords:
        """The tokens that may come next; end tokens are among them if the text is whole."""
        words = np.zeros(self._tokenizer.n_words, np.int32)
        if not self._inner.is_error():
            self._inner.unsafe_compute_mask_ptr(words.ctypes.data, words.nbytes)
        self._settle(words)
        return words

    @property
    def _has_too_many_digits(self) -> bool:
        return self._states is not None and self._states[-1] >= digits.MAX_DIGITS

    def _settle(self, words: MaskWords) -> None:
        """Complete a mask that has been computed. It is empty if the matcher has met a limit, and
        has no digit after too many, if anything else is allowed."""
        if self._inner.is_error():
            self.lexer.is_broken = True
            words[:] = 0
            return
        if _has_several(words):  # the mask of a forced token renews no fuel
            self.lexer.n_new_bytes = 0
        if self._has_too_many_digits:
            ending = words & self._tokenizer.without_digits
            if ending.any():
                words[:] = ending


Rows = Sequence[tuple[Matcher, int]]
"""Matchers, each with the row of an array that its mask is written into. None occurs twice."""


class MaskThreads:
    """Computes masks of several matchers at once, without the interpreter's lock.

    For one caller at a time. Matchers with different lexers are computed side by side, neighbours
    with one lexer one after another.
    """

    def __init__(self, n_threads: int) -> None:
        self._executor = llguidance.LLExecutor(num_threads=n_threads)
        self._beside: ThreadPoolExecutor | None = None
        self._last: Future[None] | None = None

    def fill(self, rows: Rows, words: MaskWords) -> None:
        """Write the mask of each matcher into its row of `words`, as `Matcher.mask` gives it.

        `words` has shape (n_rows, n_vocab / 32), contiguous.
        """
        self._compute(_sound(rows), words)
        _settle(rows, words)

    def begin(self, rows: Rows, words: MaskWords) -> Callable[[], None]:
        """`fill` beside the caller, which calls the returned function to wait for the masks.

        When this returns, the computing thread has let the lock go, or it still computes the masks
        of the call before: either way it takes none of the caller's time.
        """
        if self._beside is None:
            self._beside = ThreadPoolExecutor(1, "masks")
        is_free = self._last is None or self._last.done()
        is_under_way = Event()
        computed = self._beside.submit(self._compute, _sound(rows), words, is_under_way.set)
        self._last = computed
        if is_free:
            is_under_way.wait()

        def wait() -> None:
            computed.result()
            _settle(rows, words)

        return wait

    def _compute(
        self, sound: list[Any], words: MaskWords, tell: Callable[[], None] = lambda: None
    ) -> None:
        tell()
        if sound:
            self._executor.unsafe_compute_mask_ptr(
                sound, words.ctypes.data, words.strides[0], len(words)
            )


def _sound(rows: Rows) -> list[Any]:
    """What the executor takes."""
    return [(one._inner, row) for one, row in rows if not one._inner.is_error()]


def _has_several(words: MaskWords) -> bool:
    """Whether a mask allows more than one token."""
    found = words[words != 0].view(np.uint32)
    return len(found) > 1 or bool(len(found) and int(found[0]) & (int(found[0]) - 1))


def _settle(rows: Rows, words: MaskWords) -> None:
    for one, row in rows:
        one._settle(words[row])


TRIAL_CONTROL = range(257, 257 + 64)
"""Tokens without a text in the vocabulary of a trial."""


def trial_tokenizer() -> Tokenizer:
    """A vocabulary of bytes: enough to find out whether a grammar compiles."""
    return Tokenizer(_Bytes(), TRIAL_CONTROL.stop)


class _Bytes:
    end_tokens = frozenset({256})

    def writable(self, token: int) -> bytes:
        return bytes((token,)) if token < 256 else b""

    def written(self, text: str) -> list[int]:
        return list(text.encode("utf-8", "replace"))


def from_json_schema(schema: str) -> str:
    """The grammar of a schema in which every keyword is to be enforced."""
    return _made(llguidance.LLMatcher.grammar_from_json_schema, schema, overrides=JSON_LAYOUT)


def from_regex(pattern: str) -> str:
    """The grammar of texts that a regular expression matches as a whole."""
    return _made(llguidance.LLMatcher.grammar_from_regex, pattern)


def from_lark(lark: str) -> str:
    """The grammar of a Lark text in llguidance's dialect."""
    return _made(llguidance.LLMatcher.grammar_from_lark, lark)


def with_tokens(lark: str, control: Sequence[int]) -> str:
    """A Lark text of `lark.Lark` with its control tokens."""
    marks = (f"mark_{number}: <[{token}]>\n" for number, token in enumerate(control))
    return from_lark("".join((lark, *marks)))


def check(grammar: str) -> None:
    """Raises `InvalidGrammar` for a grammar that does not compile."""
    error = llguidance.LLMatcher.validate_grammar(grammar, limits=LIMITS)
    if error:
        raise InvalidGrammar(_first_line(error))


def from_gbnf(gbnf: str) -> str:
    """The grammar of a text in llama.cpp's GBNF."""
    try:
        lark = gbnf_to_lark(gbnf)
    except Exception as err:  # the converter raises plain exceptions
        raise InvalidGrammar(_first_line(str(err))) from None
    return from_lark(lark)


def _made(make: Callable[..., Any], text: str, **options: Any) -> str:
    try:
        return str(make(text, **options))
    except (ValueError, TypeError) as err:
        raise InvalidGrammar(_first_line(str(err))) from None


def _first_line(message: str) -> str:
    return message.strip().split("\n", 1)[0][:500]
