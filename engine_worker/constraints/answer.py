"""From the format of an answer to a grammar: reasoning, calls, text. Runs in the disposable
process, and fails closed: what a client asks for is enforced, or refused by its name.

    free text       (text | control token of a span)*  trigger  calls
    anything else   spans  calls or text
"""

from collections.abc import Sequence

from engine_worker.constraints.arguments import Writer
from engine_worker.constraints.enforced import enforced
from engine_worker.constraints.lark import Lark, one_of, some, without
from gpufc.answer_format import AnswerFormat, Calls, Span, Text
from gpufc.errors import InvalidGrammar

_GAP = r"/[ \n]{1,2}/"
"""Blanks around reasoning."""


def lark_of(answer: AnswerFormat, control: Sequence[str], *, loose: bool = False) -> str:
    """The grammar of a format, for a model that has these control tokens.

    `loose`: functions that are not strict are called with arguments of the right types only.

    Raises `InvalidGrammar`.
    """
    lark = Lark(control)
    if answer.trigger and answer.calls is not None:
        return lark.text(_free(lark, answer, answer.calls, loose))
    return lark.text(_anchored(lark, answer, loose))


def _anchored(lark: Lark, answer: AnswerFormat, loose: bool) -> str:
    """Spans, then calls or text."""
    bodies = []
    if answer.calls is not None:
        bodies.append(_calls(lark, answer.calls, loose))
    if answer.text is not None:
        bodies.append(_text(lark, answer.text, answer.forbidden))
    if not bodies:
        raise InvalidGrammar("neither calls nor text may come")
    inside = without((*answer.forbidden, answer.inside, *(span.end for span in answer.spans)))
    gap = f"{_GAP}?" if answer.gaps else ""
    parts = []
    if answer.inside:
        parts.append(lark.until(answer.inside, inside))
    if answer.spans:
        spans = [
            lark.rule(f"{lark.exact(span.begin)} {lark.until(span.end, inside)}")
            for span in answer.spans
        ]
        parts.append(f"({gap} {one_of(spans)})*")
    if parts:
        parts.append(gap)
    return " ".join(filter(None, (*parts, one_of(bodies))))


def _free(lark: Lark, answer: AnswerFormat, calls: Calls, loose: bool) -> str:
    """Free text until the trigger, with which calls begin. Reasoning is a part of the text."""
    trigger = answer.trigger
    not_first = answer.text.not_first if answer.text else ""
    text = without([trigger, *answer.forbidden], not_first)
    ends = (text for span in answer.spans for text in (span.begin, span.end))
    controls = lark.controls((answer.inside, *ends))
    free = lark.terminal(text)
    before = f"({free} {one_of(controls)})* " if controls else ""
    called = f"{lark.until(trigger, text)} {_calls(lark, calls, loose, trigger)}"
    return f"{before}({free} | {called})"


def _text(lark: Lark, text: Text, forbidden: Sequence[str]) -> str:
    around = text.around
    if text.schema is not None:
        inner = lark.json(enforced(text.schema))
        return " ".join(filter(None, (lark.exact(around.begin), inner, lark.exact(around.end))))
    pattern = without(forbidden, text.not_first)
    inner = lark.until(around.end, pattern) if around.end else lark.terminal(pattern)
    return " ".join(filter(None, (lark.exact(around.begin), inner)))


def _calls(lark: Lark, calls: Calls, loose: bool, skipped: str = "") -> str:
    """The calls, without the text `skipped` at their beginning."""
    writer = Writer(lark, calls.members, loose=loose)
    arguments = [writer.arguments(function) for function in calls.functions]
    spans = [function.around for function in calls.functions]
    each = _one(lark, spans, arguments)
    # one literal, hence one lexeme: free text may begin with a part of it
    begins = [_past(calls.section.begin + span.begin, skipped) for span in spans]
    firsts = [Span(begin, span.end) for begin, span in zip(begins, spans, strict=True)]
    first = _one(lark, firsts, arguments)
    most = None if calls.most is None else calls.most - 1
    more = some(f"{lark.exact(calls.between)} {each}", 0, most)
    return " ".join(filter(None, (first, more, lark.exact(calls.section.end))))


def _one(lark: Lark, spans: Sequence[Span], arguments: Sequence[str]) -> str:
    """The rule for one call of any function."""
    options = [
        lark.rule(" ".join(filter(None, (lark.exact(span.begin), inner, lark.exact(span.end)))))
        for span, inner in zip(spans, arguments, strict=True)
    ]
    return lark.rule(" | ".join(options))


def _past(text: str, beginning: str) -> str:
    if not text.startswith(beginning):
        raise InvalidGrammar("calls do not begin with their trigger")
    return text[len(beginning) :]
