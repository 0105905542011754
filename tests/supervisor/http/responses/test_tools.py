"""Tools as functions, and the way back from a function's name."""

from collections.abc import Callable
from typing import Any

import pytest

from gpufc.errors import InvalidRequest
from supervisor.http.generation.tools import (
    AllowedTool,
    AllowedTools,
    ChosenFunction,
    Tool,
    ToolChoiceObject,
    ToolFunction,
)
from supervisor.http.responses.tools import INPUT_SCHEMA, MAX_TOOLS, Called, tool_choice, tool_table
from tests.growth import assert_linear

SCHEMA = {"type": "object", "properties": {"a": {"type": "string"}}}
FUNCTION = {
    "type": "function",
    "name": "f",
    "description": "Does",
    "parameters": SCHEMA,
    "strict": True,
    "defer_loading": True,
}
CUSTOM = {"type": "custom", "name": "patch", "description": "Edits"}
NOTES = {"type": "namespace", "name": "notes_", "description": "d", "tools": [FUNCTION, CUSTOM]}


def test_a_function_stays_one() -> None:
    table = tool_table([FUNCTION, {"type": "function", "name": "g"}])
    assert table.tools == (
        Tool("function", ToolFunction("f", "Does", SCHEMA, True)),
        Tool("function", ToolFunction("g")),
    )
    assert table.of("f") == Called("f")
    assert table.of("unknown") == Called("unknown")


def test_a_custom_tool_is_a_function_of_one_text_whose_grammar_is_described() -> None:
    grammar = {"type": "grammar", "syntax": "lark", "definition": "start: /a+/"}
    table = tool_table([CUSTOM | {"format": grammar}, {"type": "custom", "name": "free"}])
    patch, free = (tool.function for tool in table.tools)
    assert patch == ToolFunction(
        "patch",
        "Edits\n\nThe input has this lark grammar:\nstart: /a+/",
        INPUT_SCHEMA,
    )
    assert free == ToolFunction("free", None, INPUT_SCHEMA)
    assert table.of("patch") == Called("patch", is_custom=True)


def test_a_custom_tool_s_regular_expression_binds_its_text() -> None:
    expression = {"type": "grammar", "syntax": "regex", "definition": "a|b"}
    (tool,) = tool_table([{"type": "custom", "name": "ab", "format": expression}]).tools
    assert tool.function is not None
    assert tool.function.strict
    properties = tool.function.schema["properties"]
    assert properties == {"input": {"type": "string", "pattern": "^(?:a|b)$"}}


def test_tools_of_a_namespace_have_its_name_before_theirs() -> None:
    table = tool_table([NOTES])
    names = [tool.function.name for tool in table.tools if tool.function]
    assert names == ["notes__f", "notes__patch"]
    assert table.of("notes__f") == Called("f", "notes_")
    assert table.of("notes__patch") == Called("patch", "notes_", is_custom=True)


def test_two_tools_never_share_a_name() -> None:
    table = tool_table([FUNCTION | {"name": "notes__f"}, NOTES])
    assert table.of("notes__f") == Called("notes__f")
    assert table.of("notes__f_2") == Called("f", "notes_")


def test_there_are_at_most_so_many_tools_in_all() -> None:
    most = NOTES | {"tools": [FUNCTION] * MAX_TOOLS}
    table = tool_table([most])
    assert len(table.called) == MAX_TOOLS
    with pytest.raises(InvalidRequest):
        tool_table([most, FUNCTION])


def test_tools_of_other_types_are_left_to_be_skipped() -> None:
    table = tool_table([{"type": "web_search"}, {"type": "mcp", "tools": 5}, {"name": "x"}])
    assert [tool.type for tool in table.tools] == ["web_search", "mcp", "unknown"]
    assert table.called == {}


@pytest.mark.parametrize(
    ("tool", "param"),
    [
        ({"type": "function"}, "tools[1].name"),
        ({"type": "custom", "name": ""}, "tools[1].name"),
        ({"type": "namespace", "tools": []}, "tools[1].name"),
        (
            {"type": "namespace", "name": "n", "tools": [{"type": "custom"}]},
            "tools[1].tools[0].name",
        ),
        ({"type": "function", "name": "f", "parameters": 5}, "tools[1]"),
    ],
)
def test_a_tool_that_is_malformed_is_named(tool: dict[str, Any], param: str) -> None:
    with pytest.raises(InvalidRequest) as raised:
        tool_table([FUNCTION, tool])
    assert raised.value.param == param


TABLE = tool_table([FUNCTION, CUSTOM, NOTES])


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        (None, None),
        ("auto", "auto"),
        ("required", "required"),
        ({"type": "function", "name": "f"}, ToolChoiceObject("function", ChosenFunction("f"))),
        (
            {"type": "custom", "name": "patch"},
            ToolChoiceObject("function", ChosenFunction("patch")),
        ),
        (
            {"type": "function", "name": "f", "namespace": "notes_"},
            ToolChoiceObject("function", ChosenFunction("notes__f")),
        ),
        (
            {
                "type": "allowed_tools",
                "mode": "required",
                "tools": [{"type": "function", "name": "f"}, {"type": "web_search"}],
            },
            ToolChoiceObject(
                "allowed_tools",
                allowed_tools=AllowedTools(
                    "required", [AllowedTool("function", ChosenFunction("f"))]
                ),
            ),
        ),
        (
            {
                "type": "allowed_tools",
                "mode": None,
                "tools": [{"type": None, "name": "f"}],
            },
            ToolChoiceObject(
                "allowed_tools",
                allowed_tools=AllowedTools("auto", [AllowedTool("function", ChosenFunction("f"))]),
            ),
        ),
        ({"type": "web_search_preview"}, None),
        ({"type": "mcp", "server_label": "x"}, None),
    ],
)
def test_a_choice_names_functions(given: Any, meant: Any) -> None:
    assert tool_choice(given, TABLE) == meant


@pytest.mark.parametrize(
    "given",
    [
        {},
        {"type": "function"},
        {"type": "allowed_tools", "tools": "f"},
        {"type": "allowed_tools", "mode": "never", "tools": []},
        {"type": "allowed_tools", "mode": "", "tools": []},
        {"type": "allowed_tools", "mode": False, "tools": []},
    ],
)
def test_a_choice_that_is_malformed_is_refused(given: dict[str, Any]) -> None:
    with pytest.raises(InvalidRequest):
        tool_choice(given, TABLE)


def test_a_choice_among_many_tools_takes_linear_time() -> None:
    """All of it is read in the event loop."""

    def choice(n: int) -> Callable[[], object]:
        table = tool_table([{"type": "function", "name": f"f{number}"} for number in range(n)])
        named = [{"name": "unknown"}, {"name": "f1", "namespace": ["none"]}] * n
        return lambda: tool_choice({"type": "allowed_tools", "tools": named}, table)

    assert_linear(choice, 128)
