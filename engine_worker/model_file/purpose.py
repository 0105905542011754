"""A model's purpose by its header: to generate text, to embed it, or to rank documents. Pure."""

from enum import StrEnum

from engine_worker.model_file.gguf_header import GgufHeader
from gpufc.errors import ModelLoadError
from gpufc.facts import Pooling


class Purpose(StrEnum):
    """The work of a model. Only a model that generates has a chat or a completion."""

    GENERATE = "generate"
    EMBED = "embed"
    RANK = "rank"


_POOLINGS = {1: Pooling.MEAN, 2: Pooling.CLS, 3: Pooling.LAST, 4: Pooling.RANK}
"""`LLAMA_POOLING_TYPE_…`. A model that generates text has no pooling or another number: 0 is none,
and -1, which llama.cpp writes without a sign into files of its own, is not specified."""

_EMBEDS = frozenset(
    {
        *("bert", "nomic-bert", "nomic-bert-moe", "neo-bert", "jina-bert-v2", "jina-bert-v3"),
        *("modern-bert", "eurobert", "gemma-embedding", "llama-embed"),
    }
)
"""Architectures that generate no text."""

_UNSERVED = frozenset(
    {
        *("t5", "t5encoder", "clip"),
        # speech
        *("wavtokenizer-dec", "qwen3tts", "pockettts"),
        # heads that draft from the inside of another model
        *("eagle3", "dflash", "gemma4-assistant"),
    }
)
_UNSERVED_TYPES = frozenset({"adapter", "mmproj", "imatrix"})


def purpose_of(header: GgufHeader) -> Purpose:
    """The purpose of a model that `require_served` lets pass."""
    arch = header.architecture
    if pooling_of(header) is Pooling.RANK:
        return Purpose.RANK
    is_causal = header.metadata.get(f"{arch}.attention.causal") is not False
    if arch in _EMBEDS or not is_causal or header.number(f"{arch}.pooling_type") in _POOLINGS:
        return Purpose.EMBED
    return Purpose.GENERATE


def pooling_of(header: GgufHeader) -> Pooling:
    """The header's pooling; the mean where it has none."""
    given = _POOLINGS.get(header.number(f"{header.architecture}.pooling_type"))
    if given is None and "cls" in header.tensor_bytes:  # a head that scores
        return Pooling.RANK
    return given or Pooling.MEAN


def other_kind(header: GgufHeader) -> str:
    """What the file is, if it is no text model, such as an adapter; else empty."""
    kind, arch = header.text("general.type"), header.architecture
    return kind or arch if kind in _UNSERVED_TYPES or arch in _UNSERVED else ""


def require_served(header: GgufHeader, path: str) -> None:
    """Raises `ModelLoadError` for a file that holds no model, or none that can be served."""
    arch = header.architecture
    if kind := other_kind(header):
        raise ModelLoadError(f"{path} is not a text model ({kind})")
    if not arch or not header.n_tensors:
        raise ModelLoadError(
            f"{path} holds no model: {'no weights' if arch else 'no architecture'}"
        )
