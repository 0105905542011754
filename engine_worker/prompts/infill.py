"""A prompt with a gap as tokens: llama-server's order of fill-in-the-middle tokens.

    [REPO name] ([FILE name] text)… [FILE name]   BOS   PREFIX prefix SUFFIX suffix MIDDLE

The first part is there only where the prompt brings files (`format_prompt_infill` in llama.cpp's
tools/server/server-common.cpp). Pure.
"""

from collections.abc import Callable

from engine_worker.backend.port import InfillTokens
from gpufc.errors import InvalidRequest
from gpufc.protocol import InfillPrompt, Tokens

REPOSITORY, FILE = "myproject\n", "filename\n"
"""The names that llama-server writes for the repository, and for the file with the gap."""
SNIPPET = "\n\n--- snippet ---\n\n"
"""Stands before each file where the model has no token for files."""

Tokenize = Callable[[str], list[int]]


def infill_tokens(
    prompt: InfillPrompt, ids: InfillTokens | None, first: Tokens, tokenize: Tokenize
) -> Tokens:
    """The prompt's token ids. `tokenize` reads control tokens as text and adds none; `first` is BOS
    where the model wants one.

    Raises `InvalidRequest` for a model without the tokens.
    """
    if ids is None:
        raise InvalidRequest(
            "this model has no fill-in-the-middle tokens, so it cannot complete before a suffix",
            param=prompt.param,
        )
    return (
        *_files(prompt, ids, tokenize),
        *first,
        ids.prefix,
        *tokenize(prompt.prefix),
        ids.suffix,
        *tokenize(prompt.suffix),
        ids.middle,
    )


def _files(prompt: InfillPrompt, ids: InfillTokens, tokenize: Tokenize) -> list[int]:
    if not prompt.files:
        return []
    tokens: list[int] = []
    if ids.repository is not None:
        tokens += (ids.repository, *tokenize(REPOSITORY))
    for file in prompt.files:
        if ids.file is None:
            tokens += tokenize(SNIPPET)
        else:
            tokens += (ids.file, *tokenize(file.name + "\n"))
        tokens += tokenize(file.text)
    if ids.file is not None:
        tokens += (ids.file, *tokenize(FILE))
    return tokens
