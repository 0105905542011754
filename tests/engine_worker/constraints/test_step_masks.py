"""The masks of a step: those of each guide alone, computed after the step has begun."""

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine_worker.backend.candidates import MaskWords
from engine_worker.backend.fake.backend import FakeBackend
from engine_worker.backend.port import Batch, Logits
from engine_worker.constraints import compiler as compilers
from engine_worker.constraints import llg, step_masks
from engine_worker.constraints.compiler import Compiler
from engine_worker.constraints.guide import Guide
from engine_worker.constraints.step_masks import StepMasks, Wanted, mask_threads
from gpufc.config import BackendKind, ModelConfig
from gpufc.constraint import Constraint, ConstraintKind
from gpufc.protocol import Generate, TokenRules
from tests.engine_worker.constraints.guided_requests import guided
from tests.engine_worker.constraints.matchers import TOKENIZER, matcher, schema
from tests.engine_worker.engine.engine_runs import EngineRun
from tests.fakes.facts import model_facts

END = 256
LETTERS = list(b"abcdefghijklmnopqrstuvwxyz")
WORDS = Constraint(ConstraintKind.REGEX, "[a-z]{1,8}( [a-z]{1,8}){0,9}")


class Device:
    """A device, or a CPU, as far as masks ask for it."""

    def __init__(self, *, overlaps: bool, n_threads: int = 2, beside: bool = False) -> None:
        """With `beside`, the CPU computes passes beside the engine thread."""
        self.facts = model_facts(
            n_vocab=llg.TRIAL_CONTROL.stop, asynchronous=overlaps, computes_beside=beside
        )
        self.n_threads = n_threads


DEVICES = [Device(overlaps=True), Device(overlaps=False), Device(overlaps=False, beside=True)]
NAMES = ["beside a device", "after a pass", "beside a pass"]


@pytest.fixture(params=DEVICES, ids=NAMES)
def masks(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> StepMasks:
    monkeypatch.setattr(step_masks.host, "usable_cores", lambda: 4)
    return StepMasks(request.param)


def _object(properties: dict[str, Any]) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }


leaf = st.sampled_from(
    [
        {"type": "boolean"},
        {"type": "integer", "minimum": 0, "maximum": 300},
        {"type": "string", "maxLength": 5},
        {"type": "string", "pattern": "^[a-d]{2,4}( [x-z]+)?$"},
        {"type": "string", "enum": ["alpha", "alps", "beta"]},
        {"const": "only this"},
        {"type": "null"},
    ]
)
schemas = st.recursive(
    leaf,
    lambda inner: st.one_of(
        st.dictionaries(st.sampled_from(["a", "bc", "key"]), inner, min_size=1).map(_object),
        inner.map(lambda item: {"type": "array", "items": item, "maxItems": 3}),
    ),
    max_leaves=5,
)


def tokens_of(mask: MaskWords) -> list[int]:
    bits = np.unpackbits(mask.view(np.uint8), bitorder="little")
    return [int(token) for token in np.flatnonzero(bits)]


def walked(data: st.DataObject, guides: list[Guide], n_steps: int) -> None:
    """Let these guides, which are in one state, read tokens that they allow."""
    for _ in range(n_steps):
        (mask,) = guides[0].masks(())
        assert mask is not None
        allowed = tokens_of(mask)
        token = data.draw(st.sampled_from(allowed)) if allowed else None
        if token is None or token == END:
            return
        for guide in guides:
            assert guide.read((token,))
        if guides[0].is_complete:
            return


@settings(deadline=None, max_examples=40)
@given(data=st.data())
@pytest.mark.parametrize("overlaps", [True, False])
def test_masks_of_any_step_are_those_of_each_guide_alone(
    data: st.DataObject, overlaps: bool
) -> None:
    compare_any_steps(data, StepMasks(Device(overlaps=overlaps, n_threads=3)))  # type: ignore[arg-type]


def compare_any_steps(data: st.DataObject, step: StepMasks) -> None:
    """The masks of three steps after any tokens with those of each guide alone."""
    step._n_threads = 3
    compiled = [matcher(schema(one)) for one in data.draw(st.lists(schemas, min_size=1))]
    pairs = []
    for _ in range(data.draw(st.integers(1, 6))):
        lane = data.draw(st.sampled_from(compiled))
        pairs.append([Guide(lane.copy(), TOKENIZER.n_words) for _ in range(2)])
        walked(data, pairs[-1], data.draw(st.integers(0, 12)))
    for _ in range(3):
        drafts = [draft_for(data, alone) for alone, _ in pairs]
        expected = [alone.masks(draft) for (alone, _), draft in zip(pairs, drafts, strict=True)]
        foreseen, planned = (data.draw(some_of(len(pairs))) for _ in range(2))
        step.foresee([pairs[number][1] for number in foreseen])
        step.begin([Wanted(pairs[number][1], drafts[number]) for number in planned])
        for found, wanted in zip(step.take(), [expected[n] for n in planned], strict=True):
            assert [None if mask is None else tokens_of(mask) for mask in found] == [
                None if mask is None else tokens_of(mask) for mask in wanted
            ]
        for pair in pairs:
            if not pair[0].is_complete:
                walked(data, pair, 1)


@settings(deadline=None, max_examples=40)
@given(data=st.data())
def test_a_guide_allows_the_tokens_that_its_mask_has_where_none_is_forced(
    data: st.DataObject,
) -> None:
    guide = Guide(matcher(schema(data.draw(schemas))), TOKENIZER.n_words)
    for _ in range(12):
        (mask,) = guide.masks(())
        assert mask is not None
        if not guide.forced:
            for is_due in (False, True):  # the check answers, and then the mask
                allowed = [
                    token
                    for token in range(len(TOKENIZER.pieces))
                    if checked(guide, token, is_due=is_due)
                ]
                assert allowed == tokens_of(mask)
        walked(data, [guide], 1)
        if guide.is_complete:
            return


def checked(guide: Guide, token: int, *, is_due: bool) -> bool:
    guide.matcher.lexer.n_new_bytes = llg.MAX_NEW_BYTES if is_due else 0  # type: ignore[attr-defined]
    return guide.allows(token)


def some_of(number: int) -> st.SearchStrategy[list[int]]:
    return st.lists(st.sampled_from(range(number)), unique=True)


def draft_for(data: st.DataObject, guide: Guide) -> tuple[int, ...]:
    """No draft, one that the guide allows in part, or any."""
    forced = guide.forced[:3]
    anything = st.lists(st.integers(97, 122), max_size=3)
    return tuple(data.draw(st.one_of(st.just([]), st.just(forced), anything)))


def test_the_masks_of_a_step_are_rows_of_one_array(masks: StepMasks) -> None:
    guides = [Guide(matcher(WORDS), TOKENIZER.n_words) for _ in range(5)]
    masks.begin([Wanted(guide) for guide in guides])
    first = [row for (row,) in masks.take()]
    masks.begin([Wanted(guide) for guide in guides])
    second = [row for (row,) in masks.take()]
    memory = {row.ctypes.data for row in first if row is not None}
    assert len(memory) == 5
    assert {row.ctypes.data for row in second if row is not None} == memory


@pytest.mark.parametrize("overlaps", [True, False])
def test_a_device_has_masks_ahead_that_are_not_needed(overlaps: bool) -> None:
    step = StepMasks(Device(overlaps=overlaps))  # type: ignore[arg-type]
    one = matcher(WORDS)
    one.lexer.n_new_bytes = llg.MAX_NEW_BYTES
    step.begin([Wanted(Guide(one, TOKENIZER.n_words), is_needed=False)])
    ((mask,),) = step.take()
    assert (mask is not None) is overlaps
    assert one.lexer.is_due is not overlaps


def test_a_step_without_guides_starts_no_thread(masks: StepMasks) -> None:
    masks.begin([])
    assert masks.take() == []
    assert masks._threads is None


def test_a_matcher_that_meets_a_limit_allows_nothing_and_the_others_have_their_masks(
    masks: StepMasks, monkeypatch: pytest.MonkeyPatch
) -> None:
    sound = Guide(matcher(WORDS), TOKENIZER.n_words)
    monkeypatch.setattr(llg, "LIMITS", SHORT)
    poor = Guide(llg.Matcher(TOKENIZER, llg.from_regex(DEEP)), TOKENIZER.n_words)
    masks.begin([Wanted(poor), Wanted(sound)])
    (nothing,), (some,) = masks.take()
    assert nothing is not None
    assert some is not None
    assert tokens_of(nothing) == []
    assert tokens_of(some) == LETTERS


DEEP = r"((a|b|c|d)*(a|c)(a|b|c|d|e){14}x?)*|[a-z ]*a[a-z ]{60}q"
SHORT = llg.llguidance.LLParserLimits(max_lexer_states=4, verbose_errors=False)


@pytest.fixture
def compiler(monkeypatch: pytest.MonkeyPatch) -> Iterator[Compiler]:
    monkeypatch.setattr(compilers, "LANES_S", 60.0)  # a busy machine compiles all lanes as well
    made = Compiler(FakeBackend(ModelConfig(backend=BackendKind.FAKE), 1))
    made._n_lanes = 2
    yield made
    made.close()


def test_sequences_of_one_constraint_are_spread_over_lexers(compiler: Compiler) -> None:
    compiler.compile(WORDS)
    guides = [compiler.guide(WORDS) for _ in range(4)]
    lexers = [guide.matcher.lexer for guide in guides]  # type: ignore[attr-defined]
    assert lexers[0] is lexers[2]
    assert lexers[1] is lexers[3]
    assert lexers[0] is not lexers[1]
    del guides[0], guides[1:]  # the second one is left
    assert compiler.guide(WORDS).matcher.lexer is lexers[0]  # type: ignore[attr-defined]


def test_grammars_share_the_lanes_that_are_kept(
    compiler: Compiler, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compilers, "MAX_KEPT", 6)
    compiler._n_lanes, compiler._n_threads = 4, 2
    many = [msgspec.structs.replace(WORDS, text=f"[a-z]{{1,{n}}}") for n in range(1, 5)]

    def kept() -> list[int]:
        return [one.n_lanes for one in compiler._kept.values()]

    found = []
    for constraint in many:
        compiler.compile(constraint)
        found.append(kept())
    assert found == [[4], [3, 3], [2, 2, 2], [2, 2, 2]]
    assert [compiler.is_compiled(one) for one in many] == [False, True, True, True]
    guides = [compiler.guide(many[-1]) for _ in range(8)]  # more than lanes: not compiled again
    assert compiler.is_compiled(many[-1])
    assert len({id(guide.matcher.lexer) for guide in guides}) == 2  # type: ignore[attr-defined]


def test_the_reading_of_the_vocabulary_leaves_time_for_lanes(
    compiler: Compiler, monkeypatch: pytest.MonkeyPatch
) -> None:
    now, read = [0.0], compiler._vocabulary

    def reading() -> llg.Tokenizer:
        now[0] += 61.0 if compiler._tokenizer is None else 0.0
        return read()

    monkeypatch.setattr(compilers, "time", SimpleNamespace(monotonic=lambda: now[0]))
    monkeypatch.setattr(compiler, "_vocabulary", reading)
    first, second = compiler.guide(WORDS), compiler.guide(WORDS)
    assert first.matcher.lexer is not second.matcher.lexer


def test_a_grammar_with_a_broken_lexer_is_compiled_again(
    compiler: Compiler, monkeypatch: pytest.MonkeyPatch
) -> None:
    deep = Constraint(ConstraintKind.REGEX, DEEP)
    with monkeypatch.context() as limited:
        limited.setattr(llg, "LIMITS", SHORT)
        compiler.compile(deep)
        first = compiler.guide(deep)
        (nothing,) = first.masks(())
    assert nothing is not None
    assert not nothing.any()
    assert not compiler.is_compiled(deep)
    compiler.compile(deep)
    (some,) = compiler.guide(deep).masks(())
    assert some is not None
    assert some.any()


def test_a_cpu_has_the_threads_of_its_passes_and_a_device_the_cores_that_are_left(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for n_cores, expected in ((1, 1), (2, 1), (8, 6), (128, step_masks.MAX_THREADS)):
        monkeypatch.setattr(step_masks.host, "usable_cores", lambda n=n_cores: n)
        assert mask_threads(Device(overlaps=True)) == expected  # type: ignore[arg-type]
        assert mask_threads(Device(overlaps=False, n_threads=3)) == 3  # type: ignore[arg-type]


class Noting(FakeBackend):
    """Notes when a step is begun and when its logits are asked for."""

    notes: list[str]

    def begin(self, batch: Batch) -> None:
        super().begin(batch)
        self.notes.append("begin")

    def logits(self) -> Logits:
        self.notes.append("logits")
        return super().logits()


def noted(
    monkeypatch: pytest.MonkeyPatch, requests: list[Generate], *, overlaps: bool
) -> list[str]:
    """What happens while these requests are answered."""
    notes: list[str] = []
    backend = Noting(ModelConfig(backend=BackendKind.FAKE), 4)
    backend.notes = notes
    backend.facts = msgspec.structs.replace(backend.facts, asynchronous=overlaps)
    compiler = Compiler(backend)
    compiler.compile(WORDS)
    compute = llg.MaskThreads._compute

    def note(self: llg.MaskThreads, *arguments: Any) -> None:
        compute(self, *arguments)
        notes.append("masks")

    monkeypatch.setattr(llg.MaskThreads, "_compute", note)
    run = EngineRun(backend, max_running=4, batch_tokens=128)
    run.engine._guide = compiler.guide
    run.run(*requests)
    compiler.close()
    return notes


@pytest.mark.parametrize("overlaps", [True, False])
def test_needed_masks_are_computed_after_the_step_has_begun_and_before_its_logits(
    monkeypatch: pytest.MonkeyPatch, overlaps: bool
) -> None:
    two = [asked(number, rules=TokenRules(min_tokens=1)) for number in (1, 2)]
    notes = noted(monkeypatch, two, overlaps=overlaps)
    assert notes[:3] == ["begin", "masks", "logits"]
    if overlaps:  # those of a later step are begun while it is planned
        notes = [note for note in notes if note != "begin"]
        assert notes == ["masks", "logits"] * (len(notes) // 2)
    else:
        assert notes == ["begin", "masks", "logits"] * (len(notes) // 3)


def asked(number: int, **fields: Any) -> Generate:
    return guided(number, WORDS, prompt="person", max_tokens=5, **fields)
