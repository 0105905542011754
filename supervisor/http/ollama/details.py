"""A loaded model as Ollama's clients want it described, from its worker's facts. Pure.

Clients decide by these values: one hides a model without the capability `tools`, another fails on a
word that it does not know, a third fills a context of the size that it reads here.
"""

from collections.abc import Mapping
from typing import Any

from msgspec import Struct

from gpufc.facts import ModelFacts
from supervisor.answers.parsers import family_for

UNKNOWN = "unknown"

FILE_TYPES: Mapping[int, str] = {
    0: "F32", 1: "F16", 2: "Q4_0", 3: "Q4_1", 7: "Q8_0", 8: "Q5_0", 9: "Q5_1", 10: "Q2_K",
    11: "Q3_K_S", 12: "Q3_K_M", 13: "Q3_K_L", 14: "Q4_K_S", 15: "Q4_K_M", 16: "Q5_K_S",
    17: "Q5_K_M", 18: "Q6_K", 19: "IQ2_XXS", 20: "IQ2_XS", 21: "Q2_K_S", 22: "IQ3_XS",
    23: "IQ3_XXS", 24: "IQ1_S", 25: "IQ4_NL", 26: "IQ3_S", 27: "IQ3_M", 28: "IQ2_S", 29: "IQ2_M",
    30: "IQ4_XS", 31: "IQ1_M", 32: "BF16", 36: "TQ1_0", 37: "TQ2_0", 38: "MXFP4_MOE",
}  # fmt: skip
"""llama.cpp's `general.file_type` (`llama_ftype`) by number."""


class Details(Struct, frozen=True, kw_only=True):
    """The short description. Every field is there also before the model is loaded."""

    parent_model: str = ""
    format: str = "gguf"
    family: str = UNKNOWN
    families: tuple[str, ...] = (UNKNOWN,)
    parameter_size: str = UNKNOWN
    quantization_level: str = UNKNOWN


def details(facts: ModelFacts | None) -> Details:
    """The details of a model; None before it was loaded for the first time."""
    if facts is None:
        return Details()
    file_type = facts.metadata.get("general.file_type")
    quantization = FILE_TYPES.get(file_type, UNKNOWN) if isinstance(file_type, int) else UNKNOWN
    return Details(
        family=facts.architecture,
        families=(facts.architecture,),
        parameter_size=amount(facts.n_params),
        quantization_level=quantization,
    )


def amount(n_params: int) -> str:
    """A number of parameters as people write it: 7.6B, 134.52M."""
    for size, letter, digits in ((1e9, "B", 1), (1e6, "M", 2), (1e3, "K", 0)):
        if n_params >= size:
            return f"{n_params / size:.{digits}f}{letter}"
    return str(n_params)


def capabilities(facts: ModelFacts) -> list[str]:
    """The abilities, in Ollama's words. Every model that can chat can be told of tools: where the
    chat template does not know them, the worker adds them to the system message."""
    if not facts.generates:
        return ["embedding"] if facts.embedding_size else []
    found = ["completion"]
    if facts.can_infill:
        found.append("insert")
    template = facts.chat_template
    if template and not facts.template_error:
        found.append("tools")
        if reasons(template):
            found.append("thinking")
    return found


def reasons(template: str) -> bool:
    """Whether a chat template is that of a model that reasons."""
    family = family_for(template)
    return family is not None and family.reasons(template)


def model_info(facts: ModelFacts, name: str) -> dict[str, Any]:
    """The short entries of the file's header. The context length is that which is served, since
    clients take it as their limit; `name` stands in for a missing base name."""
    known = {"general.architecture": facts.architecture, "general.basename": name}
    return {
        **known,
        **facts.metadata,
        "general.parameter_count": facts.n_params,
        f"{facts.architecture}.context_length": facts.n_ctx,
    }


def parameters(facts: ModelFacts) -> str:
    """The parameters of a Modelfile, a line for each."""
    return f"num_ctx {facts.n_ctx}"


def template(facts: ModelFacts, abilities: list[str]) -> str:
    """The chat template, with a comment that names what the service adds. Clients look for these
    names in it, in the spelling of Ollama's own templates."""
    names = [word for ability, word in _TEMPLATE_WORDS.items() if ability in abilities]
    comment = "".join(f"{{#- .{name} -#}}" for name in names)
    return (facts.chat_template or "{{ prompt }}") + comment


_TEMPLATE_WORDS = {"tools": "Tools", "insert": "Suffix"}
