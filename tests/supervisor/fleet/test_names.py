"""Which served model each of a client's names means, and the name that its answer shows."""

from collections.abc import Callable

import pytest

from gpufc.config import ModelConfig
from gpufc.errors import ModelNotFound
from supervisor.fleet.names import ServedNames, aliases, matches
from tests.growth import assert_linear

ONE = ServedNames({"Tiny": {"tiny.gguf", "default"}}, {"Tiny": ("claude-*", "gpt-4o")})
TWO = ServedNames(
    {"small": {"default"}, "big:latest": {"default"}},
    {"small": ("*", "claude-*"), "big:latest": ("claude-opus-4",)},
)


@pytest.mark.parametrize(
    ("names", "name", "served"),
    [
        (ONE, None, "Tiny"),
        (ONE, "Tiny", "Tiny"),
        (ONE, "Tiny:latest", "Tiny"),
        (ONE, "tiny.gguf", "Tiny"),
        (ONE, "default:latest", "Tiny"),
        (ONE, "claude-sonnet-4-5", "Tiny"),
        (ONE, "claude-", "Tiny"),
        (ONE, "gpt-4o:latest", "Tiny"),
        (TWO, "big", "big:latest"),
        (TWO, "claude-opus-4", "big:latest"),  # a whole name goes before any pattern
        (TWO, "claude-opus-4:latest", "big:latest"),
        (TWO, "claude-haiku", "small"),
        (TWO, "default", "small"),
    ],
)
def test_a_name_means_one_model(names: ServedNames, name: str | None, served: str) -> None:
    assert names.resolve(name) == served


@pytest.mark.parametrize("name", ["tiny", "Claude-sonnet", "gpt-4", "", "claude-" + "x" * 300])
def test_an_unknown_name_is_told_the_served_ones_and_the_key(name: str) -> None:
    with pytest.raises(ModelNotFound, match=r"served: 'Tiny'.*`aliases`") as caught:
        ONE.resolve(name)
    assert caught.value.param == "model"
    assert len(caught.value.message) < 500


def test_of_several_models_one_must_be_named() -> None:
    with pytest.raises(ModelNotFound, match="'small', 'big:latest'"):
        TWO.resolve(None)
    without = ServedNames({"a": {"default"}, "b": {"default"}})
    with pytest.raises(ModelNotFound):
        without.resolve("default")


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        (None, "Tiny"),
        ("Tiny:latest", "Tiny"),
        ("default", "Tiny"),
        ("claude-opus-4", "claude-opus-4"),
        ("gpt-4o", "gpt-4o"),
    ],
)
def test_an_answer_shows_the_served_name_unless_a_configured_one_was_used(
    name: str | None, shown: str
) -> None:
    assert ONE.shown(name) == shown


def test_an_unknown_name_is_not_shown() -> None:
    with pytest.raises(ModelNotFound):
        ONE.shown("other")


def test_names_are_not_configured_unless_they_are() -> None:
    plain = ModelConfig(model="Tiny")
    names = ServedNames({"Tiny": aliases(plain)}, {"Tiny": plain.aliases})
    with pytest.raises(ModelNotFound):
        names.resolve("claude-sonnet")


@pytest.mark.parametrize(
    ("pattern", "name", "does"),
    [
        ("a", "a", True),
        ("a", "ab", False),
        ("*", "", True),
        ("a*", "a", True),
        ("*a", "ba", True),
        ("a*a", "a", False),
        ("a*a", "aa", True),
        ("a*b*c", "a-b-b-c", True),
        ("a*b*c", "acb", False),
        ("*b*b*", "b", False),
        ("a.c", "abc", False),
        ("[ab]*", "a", False),
    ],
)
def test_a_star_is_any_text_and_nothing_else_is_special(
    pattern: str, name: str, does: bool
) -> None:
    assert matches(pattern, name) is does


def test_no_pattern_takes_more_than_linear_time() -> None:
    def unlike(n: int) -> Callable[[], object]:
        pattern, name = "*a" * 100 + "*b", "a" * n
        assert not matches(pattern, name)
        return lambda: matches(pattern, name)

    assert_linear(unlike, 12_500)


def test_names_come_and_go() -> None:
    names = ServedNames()
    with pytest.raises(ModelNotFound, match="no model is served"):
        names.resolve(None)
    names.serve("a", ["a.gguf"], ["claude-*"])
    assert (names.resolve(None), names.resolve("a.gguf")) == ("a", "a")
    names.serve("b", ["b.gguf"])
    assert (names.resolve("b:latest"), names.resolve("claude-x")) == ("b", "a")
    with pytest.raises(ModelNotFound, match="several models"):
        names.resolve(None)
    names.forget("a")
    assert names.resolve("b.gguf") == "b"
    with pytest.raises(ModelNotFound):
        names.resolve("claude-x")
