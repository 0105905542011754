"""A byte-level BPE vocabulary of a few hundred tokens, with the control tokens of ChatML."""

from typing import Any

from gguf import TokenType

_MERGES = ("t h", "i n", "e r", "a n", "o n", "th e", "r e", "Ġ t", "Ġ a", "o u", "in g", "Ġ s")
_CONTROL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
CHATML = (
    "{% for message in messages %}"
    "<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n"
    "{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def _byte_characters() -> list[str]:
    """GPT-2's printable character for each byte."""
    kept = [*range(33, 127), *range(161, 173), *range(174, 256)]
    moved = iter(range(256, 512))
    return [chr(byte if byte in kept else next(moved)) for byte in range(256)]


_TEXT = [*_byte_characters(), *(merge.replace(" ", "") for merge in _MERGES)]
N_VOCAB = len(_TEXT) + len(_CONTROL)


def keys() -> dict[str, Any]:
    """The tokenizer's keys in a GGUF header."""
    types = [int(TokenType.NORMAL)] * len(_TEXT) + [int(TokenType.CONTROL)] * len(_CONTROL)
    return {
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": "gpt-2",
        "tokenizer.ggml.tokens": [*_TEXT, *_CONTROL],
        "tokenizer.ggml.token_type": types,
        "tokenizer.ggml.merges": list(_MERGES),
        "tokenizer.ggml.bos_token_id": len(_TEXT),
        "tokenizer.ggml.eos_token_id": len(_TEXT) + 2,
        "tokenizer.ggml.add_bos_token": False,
        "tokenizer.chat_template": CHATML,
    }
