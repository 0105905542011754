"""Parsers of the families of models: reasoning and tool calls, chosen by the chat template."""

from collections.abc import Mapping

from supervisor.answers.parser import NewCounting, PlainText
from supervisor.answers.parsers.deepseek import DEEPSEEK
from supervisor.answers.parsers.deepseek_dsml import DEEPSEEK_DSML
from supervisor.answers.parsers.family import Family, Schema, Setup
from supervisor.answers.parsers.gemma import GEMMA
from supervisor.answers.parsers.generic import GENERIC
from supervisor.answers.parsers.glm import GLM
from supervisor.answers.parsers.harmony import HARMONY
from supervisor.answers.parsers.hermes import HERMES
from supervisor.answers.parsers.kimi import KIMI
from supervisor.answers.parsers.kimi_k3 import KIMI_K3
from supervisor.answers.parsers.llama import LLAMA
from supervisor.answers.parsers.mistral import MISTRAL
from supervisor.answers.parsers.qwen_xml import QWEN_XML

FAMILIES: tuple[Family, ...] = (
    HARMONY,
    KIMI_K3,
    KIMI,
    DEEPSEEK_DSML,
    DEEPSEEK,
    GLM,
    QWEN_XML,
    MISTRAL,
    GEMMA,
    LLAMA,
    HERMES,
    GENERIC,
)
"""In the order in which a template is tried: the first one that matches is its family."""

NAMES = ("none", *(family.name for family in FAMILIES))
"""The names that an override may have. `none`: all text is the answer."""


class UnknownParser(ValueError):
    """No family has this name."""


def family_for(template: str | None, override: str | None = None) -> Family | None:
    """The family of a chat template, or the one of this name. None: all text is the answer."""
    if override == "none":
        return None
    if override is not None:
        for family in FAMILIES:
            if family.name == override:
                return family
        raise UnknownParser(f"no parser {override!r}; there are {', '.join(NAMES)}")
    return next((family for family in FAMILIES if family.matches(template or "")), GENERIC)


def parser_for(
    template: str | None,
    *,
    tools: bool,
    override: str | None = None,
    schemas: Mapping[str, Schema] | None = None,
    inside: bool = False,
) -> NewCounting:
    """Makes parsers for the answers of a model with this chat template.

    Without `tools` all calls are text, and so is all that a model without reasoning writes.
    `schemas` holds the schema of each tool's parameters by the tool's name: formats without types
    take theirs from it, and bare JSON is a call only if it names one of them. `inside`: the prompt
    has opened the reasoning (`Family.starts_inside`). Raises `UnknownParser`.
    """
    family = family_for(template, override)
    if family is None:
        return PlainText
    if not (tools or inside or override or family.reasons(template or "")):
        return PlainText
    return family.new_parser(Setup(tools, schemas or {}, inside))
