"""How a family of models writes reasoning and calls, and the format of a guided answer. Pure.

A family's style and its parser belong together: the parser reads each text that the style allows,
as the same calls.
"""

from collections.abc import Sequence

from msgspec import Struct, structs

from gpufc.answer_format import AnswerFormat, Calls, Function, Members, Span, Text

NAME = "{name}"
"""In the texts around a call: the function's name."""

THINK = Span("<think>", "</think>")


class Style(Struct, frozen=True):
    """One family's way to write.

    | field | meaning |
    | --- | --- |
    | `call` | around the arguments of a call |
    | `section`, `between` | around all calls, between two of them |
    | `members` | how arguments are written that are no JSON object |
    | `one_call` | an answer ends with its first call |
    | `trigger` | the beginning of all calls, which may follow any text; empty: calls come first |
    | `reasoning` | around reasoning |
    | `preambles` | around text that may come before the answer or a call |
    | `gaps` | blanks may stand around reasoning |
    | `text` | the answer's own text; None: an answer that may be text or calls is not guided |
    | `forbidden` | texts in which a parser would see a call |
    """

    call: Span
    section: Span = Span()
    between: str = ""
    members: Members | None = None
    one_call: bool = False
    trigger: str = ""
    reasoning: tuple[Span, ...] = (THINK,)
    preambles: tuple[Span, ...] = ()
    gaps: bool = True
    text: Text | None = Text()
    forbidden: tuple[str, ...] = ()

    def calls(self, functions: Sequence[Function], most: int | None) -> Calls:
        """Calls of these functions, whose `around` is set here."""
        written = tuple(
            structs.replace(
                function,
                around=Span(self.call.begin.replace(NAME, function.name), self.call.end),
            )
            for function in functions
        )
        return Calls(
            written, self.section, self.between, self.members, 1 if self.one_call else most
        )

    def opened(self, prompt: str) -> str:
        """The text that ends the reasoning which this prompt has opened; empty without any."""
        end = prompt.rstrip()
        found = (span.end for span in self.reasoning if end.endswith(span.begin.rstrip()))
        return next(found, "")


class Wish(Struct, frozen=True):
    """What an answer must be: a call where `must_call`, else calls, or text.

    `most` limits the number of calls. With a `schema` the text is JSON.
    """

    functions: tuple[Function, ...] = ()
    must_call: bool = False
    most: int | None = None
    schema: dict[str, object] | bool | None = None


def answer_format(
    style: Style, wish: Wish, markers: Sequence[str], *, opened: str, reasons: bool
) -> AnswerFormat | None:
    """The format of an answer; None if this family's answers cannot be guided so.

    `opened` is `Style.opened`. `reasons`: the model may reason before it answers.
    """
    calls = style.calls(wish.functions, wish.most) if wish.functions else None
    text = None if wish.must_call else _text(style, wish)
    if (text is None and not wish.must_call) or (calls and _is_alike(style, wish)):
        return None
    is_free = calls is not None and not wish.must_call and wish.schema is None
    spans = style.reasoning if reasons or opened else ()
    return AnswerFormat(
        markers=tuple(markers),
        inside=opened,
        spans=spans if wish.must_call or wish.schema is not None else (*spans, *style.preambles),
        gaps=style.gaps,
        calls=calls,
        text=text,
        trigger=style.trigger if is_free else "",
        forbidden=style.forbidden,
    )


def _is_alike(style: Style, wish: Wish) -> bool:
    """Whether a call without a marker may begin like the answer's JSON."""
    is_bare = not style.trigger and style.text is not None and bool(style.text.not_first)
    return is_bare and wish.schema is not None and not wish.must_call


def _text(style: Style, wish: Wish) -> Text | None:
    if wish.schema is None or style.text is None:
        return style.text
    return Text(style.text.around, wish.schema)
