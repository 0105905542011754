"""Grammars compiled for one model, and kept by content."""

import threading
import time
from collections import OrderedDict
from contextlib import nullcontext
from weakref import WeakSet

import msgspec
from msgspec import Struct

from engine_worker.backend.port import Backend
from engine_worker.backend.profile import profile_of
from engine_worker.constraints import llg
from engine_worker.constraints.guide import Guide
from engine_worker.constraints.step_masks import mask_threads
from engine_worker.constraints.trial import Trial
from gpufc.constraint import Constraint, ConstraintKind
from gpufc.errors import InvalidGrammar

MAX_KEPT = 128
"""Lanes of all compiled grammars. The lexer of a large one takes up to 24 MB."""

LANES_BESIDE = 64
"""Lanes of one grammar, beside a device: threads then seldom wait for a lexer (NOTES.md)."""

LANES_S = 0.02
"""No further lane of a grammar is compiled after so many seconds. A bomb that compiles would
otherwise hold up other constraints for each of its lanes."""

MAX_MARKERS = len(llg.TRIAL_CONTROL)

WHOLE_JSON = (ConstraintKind.JSON_OBJECT, ConstraintKind.JSON_SCHEMA)
"""The kinds whose whole text is JSON."""

Key = tuple[ConstraintKind, str]


class _Marked(Struct):
    """The part of an answer's format that names control tokens."""

    markers: tuple[str, ...] = ()


_marked = msgspec.json.Decoder(_Marked)


class _Kept:
    """A compiled grammar. Sequences are spread over its lanes.

    A lane is the grammar compiled once more, with a lexer of its own. Masks of one lane are
    computed one after another, those of different lanes at the same time. A lexer gets faster with
    the masks that it has computed, so a new sequence takes the first of the least used lanes.
    """

    def __init__(self, lanes: list[llg.Matcher]) -> None:
        self._lanes = lanes
        self._living: list[WeakSet[llg.Matcher]] = [WeakSet() for _ in lanes]

    @property
    def n_lanes(self) -> int:
        return len(self._lanes)

    @property
    def is_sound(self) -> bool:
        return not any(lane.lexer.is_broken for lane in self._lanes)

    def cut(self, n_lanes: int) -> int:
        """Give up the lanes behind the first `n_lanes`. Returns their number."""
        n_given_up = max(0, len(self._lanes) - n_lanes)
        del self._lanes[n_lanes:], self._living[n_lanes:]
        return n_given_up

    def copy(self) -> llg.Matcher:
        """A matcher for a new sequence."""
        lane = min(range(len(self._lanes)), key=lambda number: len(self._living[number]))
        made = self._lanes[lane].copy()
        self._living[lane].add(made)
        return made


class Compiler:
    """Thread-safe. `compile` blocks for up to seconds; the other methods do not.

    A grammar is compiled again after one of its sequences has met a limit, which its other
    sequences would meet as well.
    """

    def __init__(self, backend: Backend, hold_lock: llg.HoldLock = nullcontext) -> None:
        """`hold_lock` is entered for calls that hold the interpreter's lock for long."""
        self._backend, self._hold_lock = backend, hold_lock
        self._n_threads = mask_threads(backend)
        self._n_lanes = LANES_BESIDE if profile_of(backend.facts).on_device else self._n_threads
        self._trial = Trial()
        self._building = threading.Lock()
        self._tokenizer: llg.Tokenizer | None = None
        self._lock = threading.Lock()
        self._kept: OrderedDict[Key, _Kept] = OrderedDict()

    @property
    def has_vocabulary(self) -> bool:
        return self._tokenizer is not None

    def read_vocabulary(self) -> None:
        """Read the vocabulary, which running streams would wait for."""
        self._vocabulary()

    def warm_up(self) -> None:
        """Read the vocabulary and start the trial process, before the first constraint comes."""
        self.read_vocabulary()
        self._trial.start()

    def is_compiled(self, constraint: Constraint) -> bool:
        """Whether `guide` would answer at once."""
        with self._lock:
            return self._sound(constraint.key) is not None

    def compile(self, constraint: Constraint) -> None:
        """Compile a constraint, in the disposable process first. Raises `InvalidGrammar`."""
        with self._lock:
            if self._sound(constraint.key) is not None:
                self._kept.move_to_end(constraint.key)
                return
        try:
            lanes = self._lanes(self._grammar(constraint), is_json=constraint.kind in WHOLE_JSON)
        except InvalidGrammar as err:
            raise _refused(constraint, err.message) from None
        with self._lock:
            self._kept[constraint.key] = _Kept(lanes)
            self._kept.move_to_end(constraint.key)
            self._make_room()

    def guide(self, constraint: Constraint) -> Guide:
        """A guide for a new sequence, also of a grammar that is to be compiled again: the engine
        calls this, and waits for no compilation but that of a grammar which is not kept any more.
        That raises `InvalidGrammar`."""
        while True:
            with self._lock:
                kept = self._kept.get(constraint.key)
                if kept is not None:
                    return Guide(kept.copy(), self._vocabulary().n_words)
            self.compile(constraint)

    def _make_room(self) -> None:
        """Grammars that were asked for longest ago lose lanes above an equal share, and then go. A
        share has a lane for each thread, with which a grammar is nearly as fast. Called with the
        lock held."""
        n_lanes = sum(kept.n_lanes for kept in self._kept.values())
        share = max(self._n_threads, MAX_KEPT // len(self._kept))
        for kept in self._kept.values():
            if n_lanes > MAX_KEPT:
                n_lanes -= kept.cut(share)
        while len(self._kept) > 1 and n_lanes > MAX_KEPT:
            n_lanes -= self._kept.popitem(last=False)[1].n_lanes

    def _sound(self, key: Key) -> _Kept | None:
        """The kept grammar, unless it is to be compiled again. Called with the lock held."""
        kept = self._kept.get(key)
        return kept if kept is not None and kept.is_sound else None

    def _lanes(self, grammar: str, *, is_json: bool) -> list[llg.Matcher]:
        """Raises `InvalidGrammar`."""
        vocabulary = self._vocabulary()  # not in the time for lanes: the first call reads it
        began = time.monotonic()
        lanes = [llg.Matcher(vocabulary, grammar, is_json=is_json)]
        while len(lanes) < self._n_lanes and time.monotonic() < began + LANES_S:
            lanes.append(llg.Matcher(vocabulary, grammar, is_json=is_json))
        return lanes

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
                n_vocab = self._backend.facts.n_vocab
                self._tokenizer = llg.Tokenizer(self._backend, n_vocab, self._hold_lock)
            return self._tokenizer


def _refused(constraint: Constraint, reason: str) -> InvalidGrammar:
    kind = constraint.kind.value.replace("_", " ")
    return InvalidGrammar(f"The {kind} is refused: {reason}", param=constraint.param or None)
