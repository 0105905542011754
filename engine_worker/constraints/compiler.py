"""Grammars compiled for one model, each once, and kept by content."""

import threading
from collections import OrderedDict

import msgspec
from msgspec import Struct

from engine_worker.backend.port import Backend
from engine_worker.constraints import llg
from engine_worker.constraints.guide import Guide
from engine_worker.constraints.trial import Trial
from gpufc.constraint import Constraint, ConstraintKind
from gpufc.errors import InvalidGrammar

MAX_KEPT = 128
"""Compiled grammars. A large one takes some megabytes."""

MAX_MARKERS = len(llg.TRIAL_CONTROL)

Key = tuple[ConstraintKind, str]


class _Marked(Struct):
    """The part of an answer's format that names control tokens."""

    markers: tuple[str, ...] = ()


_marked = msgspec.json.Decoder(_Marked)


class Compiler:
    """Thread-safe. `compile` blocks for up to seconds; the other methods do not."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend
        self._trial = Trial()
        self._building = threading.Lock()
        self._tokenizer: llg.Tokenizer | None = None
        self._lock = threading.Lock()
        self._kept: OrderedDict[Key, llg.Matcher] = OrderedDict()

    def warm_up(self) -> None:
        """Read the vocabulary and start the trial process, before the first constraint comes."""
        self._vocabulary()
        self._trial.start()

    def is_compiled(self, constraint: Constraint) -> bool:
        """Whether `guide` would answer at once."""
        with self._lock:
            return constraint.key in self._kept

    def compile(self, constraint: Constraint) -> None:
        """Compile a constraint, in the disposable process first. Raises `InvalidGrammar`."""
        with self._lock:
            if constraint.key in self._kept:
                self._kept.move_to_end(constraint.key)
                return
        try:
            matcher = llg.Matcher(self._vocabulary(), self._grammar(constraint))
        except InvalidGrammar as err:
            raise _refused(constraint, err.message) from None
        with self._lock:
            self._kept[constraint.key] = matcher
            while len(self._kept) > MAX_KEPT:
                self._kept.popitem(last=False)

    def guide(self, constraint: Constraint) -> Guide:
        """A guide for a new sequence. Compiles if it must, and then raises `InvalidGrammar`."""
        while True:
            with self._lock:
                matcher = self._kept.get(constraint.key)
                if matcher is not None:
                    return Guide(matcher.copy(), self._vocabulary().n_words)
            self.compile(constraint)

    def _grammar(self, constraint: Constraint) -> str:
        if constraint.kind is not ConstraintKind.ANSWER:
            return self._trial.grammar(constraint)
        control = self._control(constraint.text)
        grammar = self._trial.grammar(constraint, tuple(control))
        return llg.with_tokens(grammar, tuple(control.values()))

    def _control(self, text: str) -> dict[str, int]:
        """The markers of a format that are control tokens of this model, with their ids."""
        try:
            markers = set(_marked.decode(text).markers)
        except msgspec.MsgspecError as err:
            raise InvalidGrammar(f"it is no format of an answer: {err}") from None
        tokens = self._backend.special_tokens().tokens
        found = {token.text: token.id for token in tokens if token.is_control}
        control = {text: found[text] for text in sorted(markers & found.keys())}
        if len(control) > MAX_MARKERS:
            raise InvalidGrammar(f"at most {MAX_MARKERS} markers")
        return control

    def close(self) -> None:
        """End the trial process."""
        self._trial.close()

    def _vocabulary(self) -> llg.Tokenizer:
        with self._building:
            if self._tokenizer is None:
                self._tokenizer = llg.Tokenizer(self._backend, self._backend.facts.n_vocab)
            return self._tokenizer


def _refused(constraint: Constraint, reason: str) -> InvalidGrammar:
    kind = constraint.kind.value.replace("_", " ")
    return InvalidGrammar(f"The {kind} is refused: {reason}", param=constraint.param or None)
