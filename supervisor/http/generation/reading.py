"""How a chat's answer is read and guided: the parser and the style of the model's family, for the
tools of the request."""

from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache, partial

import msgspec

from gpufc.answer_format import constraint_of
from gpufc.constraint import Constraint, ConstraintKind
from gpufc.facts import ModelFacts
from gpufc.protocol import FinishReason
from supervisor.answers.parser import NewCounting, NewParser, Parser
from supervisor.answers.parsers import family_for, parser_for
from supervisor.answers.parsers.family import Family
from supervisor.answers.parts import (
    Ended,
    Part,
    Reasoning,
    Text,
    ToolCallArguments,
    ToolCallBegun,
)
from supervisor.answers.style import Wish, answer_format
from supervisor.dispatch.request import PLAIN, Reading, ReadingOf, Watch
from supervisor.http.generation.tools import OfferedTools


def reading_of(
    facts: Callable[[], ModelFacts | None],
    tools: OfferedTools,
    *,
    parallel: bool,
    constraint: Constraint | None = None,
) -> ReadingOf:
    """The reading of a chat's answer, once its prompt is prepared: a worker is loaded by then, and
    the end of the prompt says whether it has opened the reasoning.

    `constraint` is that of the answer's text.
    """
    schemas = {function.name: function.schema for function in tools.functions}
    wish = _wish(tools, constraint, parallel=parallel)

    @lru_cache(maxsize=4)
    def reading(template: str | None, family: Family, opened: str, inside: bool) -> Reading:
        new_parser = parser_for(
            template, tools=bool(tools.functions), schemas=schemas, inside=inside
        )
        selected: NewParser = new_parser
        if tools.must_call or not parallel:
            selected = partial(Selected, new_parser, one_call=not parallel, no_text=tools.must_call)
        grammar = guided(family, template or "", wish, opened, constraint)
        watch = None
        if not parallel and tools.functions and grammar is None:  # a grammar ends the answer itself
            watch = partial(first_call_watch, new_parser)
        return Reading(selected, family.markers, grammar, watch)

    def reading_after(opening: str) -> Reading:
        known = facts()
        template = known.chat_template if known else None
        family = _family(template)
        if family is None or not (tools.functions or _may_reason(template, family)):
            return PLAIN
        inside = family.starts_inside(opening)
        opened = family.style(template or "").opened(opening) if inside else ""
        return reading(template, family, opened, inside)

    return reading_after


def guided(
    family: Family, template: str, wish: Wish | None, opened: str, text: Constraint | None
) -> Constraint | None:
    """The constraint of an answer with calls or reasoning in it; None if the text's own one, if
    any, holds for all of it."""
    if wish is None:
        return None
    reasons = family.reasons(template)
    if not (wish.functions or reasons or opened):
        return None
    style = family.style(template)
    found = answer_format(style, wish, family.markers, opened=opened, reasons=reasons)
    if found is None:
        return None
    return constraint_of(found, "tools" if wish.functions or text is None else text.param)


def _wish(tools: OfferedTools, text: Constraint | None, *, parallel: bool) -> Wish | None:
    """What the grammar of an answer has to promise; None if nothing but the text's constraint."""
    most = tools.most_calls(parallel=parallel)
    if tools.must_call:
        return Wish(tools.guided, True, most)
    if text is not None:
        schema = _schema(text)
        return None if schema is None else Wish(tools.guided, False, most, schema)
    return Wish(tools.guided, False, most) if tools.is_strict else None


def _schema(text: Constraint) -> dict[str, object] | bool | None:
    """The schema of an answer's text, if it has one."""
    match text.kind:
        case ConstraintKind.JSON_OBJECT:
            return {"type": "object"}
        case ConstraintKind.JSON_SCHEMA:
            try:
                return msgspec.json.decode(text.text, type=dict[str, object] | bool)
            except msgspec.MsgspecError:
                return None  # the worker says why
        case _:
            return None


_family = lru_cache(maxsize=16)(family_for)


def _may_reason(template: str | None, family: Family) -> bool:
    """Whether an answer without tools can have more than text."""
    return bool(template) and (family.matches(template or "") or "<think>" in (template or ""))


def first_call_watch(new_parser: NewCounting) -> Watch:
    """Tells when an answer's first call is whole."""
    parser = new_parser()

    def is_whole(text: str) -> bool:
        parser.feed(text)
        return parser.n_calls > 0

    return is_whole


class Selected:
    """Another parser's parts without some of them. Implements `Parser`.

    `one_call` keeps the first call only, and nothing after it. `no_text`: an answer that must be
    calls has no text of its own; a limit may cut it in a marker, which would be left over as text.
    """

    __slots__ = ("_has_call", "_no_text", "_one_call", "_parser")

    def __init__(self, new_parser: NewParser, *, one_call: bool, no_text: bool) -> None:
        self._parser: Parser = new_parser()
        self._one_call = one_call
        self._no_text = no_text
        self._has_call = False

    def feed(self, text: str) -> Sequence[Part]:
        return [*self._kept(self._parser.feed(text))]

    def end(self, reason: FinishReason) -> Sequence[Part]:
        return [*self._kept(self._parser.end(reason))]

    def _kept(self, parts: Sequence[Part]) -> Iterator[Part]:
        for part in parts:
            match part:
                case ToolCallBegun(call) | ToolCallArguments(call) if self._one_call and call > 0:
                    pass
                case Text() if self._no_text:
                    pass
                case Text() | Reasoning() if self._one_call and self._has_call:
                    pass
                case ToolCallBegun():
                    self._has_call = True
                    yield part
                case Ended(reason, n_calls) if self._one_call:
                    yield Ended(reason, min(1, n_calls))
                case _:
                    yield part
