"""Prompts and inputs to embed, before they are tokens."""

from msgspec import Struct

from gpufc.chat import ChatPrompt
from gpufc.protocol.wishes import Tokens


class TextPrompt(Struct, frozen=True, array_like=True, tag=True):
    """Plain text. `add_special` adds BOS and EOS if the model wants them. `parse_special` reads the
    text of control tokens, such as `<|im_end|>`, as control tokens."""

    text: str
    add_special: bool = True
    parse_special: bool = True


class TokenPrompt(Struct, frozen=True, array_like=True, tag=True):
    """Token ids, used as they are. The worker refuses ids outside the vocabulary."""

    tokens: Tokens


class ContextFile(Struct, frozen=True, array_like=True):
    """A file whose text stands before the code to complete."""

    name: str
    text: str


class InfillPrompt(Struct, frozen=True, array_like=True, tag=True):
    """Text with a gap between `prefix` and `suffix`, which the answer fills.

    The worker writes it with the model's fill-in-the-middle tokens, and refuses it, naming `param`,
    where the model has none. Control tokens in the texts are read as text.
    """

    prefix: str
    suffix: str
    files: tuple[ContextFile, ...] = ()
    param: str = "suffix"


Prompt = TextPrompt | TokenPrompt | ChatPrompt | InfillPrompt


class PairPrompt(Struct, frozen=True, array_like=True, tag=True):
    """A query and a document that a reranker scores together."""

    query: str
    document: str


EmbeddingInput = TextPrompt | TokenPrompt | PairPrompt
