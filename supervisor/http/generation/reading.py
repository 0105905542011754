"""How a chat's answer is read: the parser of the model's family, for the tools of the request."""

from collections.abc import Callable, Sequence
from functools import lru_cache, partial

from gpufc.facts import ModelFacts
from gpufc.protocol import FinishReason
from supervisor.answers.parser import NewParser, Parser
from supervisor.answers.parsers import family_for, parser_for
from supervisor.answers.parsers.family import Family
from supervisor.answers.parts import Ended, Part, ToolCallArguments, ToolCallBegun
from supervisor.dispatch.request import PLAIN, Reading, ReadingOf
from supervisor.http.generation.tools import OfferedTools


def reading_of(
    facts: Callable[[], ModelFacts | None], tools: OfferedTools, *, parallel: bool
) -> ReadingOf:
    """The reading of a chat's answer, once its prompt is prepared: a worker is loaded by then, and
    the end of the prompt says whether it has opened the reasoning."""

    def reading(opening: str) -> Reading:
        known = facts()
        template = known.chat_template if known else None
        family = _family(template)
        if family is None or not (tools.functions or _may_reason(template, family)):
            return PLAIN
        new_parser = parser_for(
            template,
            tools=bool(tools.functions),
            schemas={function.name: function.schema for function in tools.functions},
            inside=family.starts_inside(opening),
        )
        return Reading(new_parser if parallel else partial(OneCall, new_parser), family.markers)

    return reading


_family = lru_cache(maxsize=16)(family_for)


def _may_reason(template: str | None, family: Family) -> bool:
    """Whether an answer without tools can have more than text."""
    return bool(template) and (family.matches(template or "") or "<think>" in (template or ""))


class OneCall:
    """Another parser's parts with the first call only. Implements `Parser`."""

    __slots__ = ("_parser",)

    def __init__(self, new_parser: NewParser) -> None:
        self._parser: Parser = new_parser()

    def feed(self, text: str) -> Sequence[Part]:
        return _first_call_only(self._parser.feed(text))

    def end(self, reason: FinishReason) -> Sequence[Part]:
        return _first_call_only(self._parser.end(reason))


def _first_call_only(parts: Sequence[Part]) -> list[Part]:
    kept: list[Part] = []
    for part in parts:
        match part:
            case ToolCallBegun(call) | ToolCallArguments(call) if call > 0:
                pass
            case Ended(reason, n_calls):
                kept.append(Ended(reason, min(1, n_calls)))
            case _:
                kept.append(part)
    return kept
