"""Tokenizes with a model's vocabulary in a process of its own, which a text may end.

    python -m engine_worker.backend.llama.vocabulary_process PARENT_PID

First frame: (model path, CPU seconds for one text). Then each frame is a text, each answer a list
of token ids. Special tokens are text here.
"""

import os
import sys
import threading

import llama_cpp.llama_cpp as lc
import msgspec

from engine_worker import disposable
from engine_worker.backend.llama.vocabulary import Vocabulary

MEMORY_BYTES = 6 << 30
STACK_BYTES = 1 << 30
"""Of the thread that tokenizes: llama.cpp's regular expressions need some 360 bytes a character."""

_encoder = msgspec.msgpack.Encoder()


def serve(parent: int) -> None:
    """Answer frames until stdin ends."""
    disposable.confine(parent, MEMORY_BYTES)
    source, sink = sys.stdin.buffer, sys.stdout.buffer
    first = disposable.read_message(source)
    if first is None:
        return
    model_path, cpu_s = msgspec.msgpack.decode(first, type=tuple[str, int])
    vocabulary = load(model_path)
    if vocabulary is None:
        sys.exit(f"{model_path} has no vocabulary")
    disposable.answer(sink, b"")
    while (frame := disposable.read_message(source)) is not None:
        disposable.allow_cpu(cpu_s)
        disposable.answer(sink, _encoder.encode(_tokenized(vocabulary, frame.decode())))


def load(model_path: str) -> Vocabulary | None:
    """The vocabulary of a model's file, without its weights; None if it has none. Nothing of it is
    freed: it is for a process that ends with its use."""
    lc.llama_log_set(_quiet, None)
    params = lc.llama_model_default_params()
    params.vocab_only, params.use_mmap = True, False
    model = lc.llama_model_load_from_file(os.fsencode(model_path), params)
    return Vocabulary(lc, lc.llama_model_get_vocab(model)) if model else None


def _tokenized(vocabulary: Vocabulary, text: str) -> list[int]:
    """In a thread with a large stack, whose memory is given back afterwards."""
    tokens: list[int] = []

    def run() -> None:
        tokens.extend(vocabulary.tokenize(text, add_special=False, parse_special=False))

    threading.stack_size(STACK_BYTES)
    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    return tokens


_quiet = lc.llama_log_callback(lambda _level, _text, _: None)

if __name__ == "__main__":
    serve(int(sys.argv[1]))
