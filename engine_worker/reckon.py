"""Reckons the memory that a model will take: `python -m engine_worker.reckon`.

A `gpufc.reckoning.Question` comes in on stdin as JSON, a `Reckoning` goes out on stdout. A process
of its own, because a model's header is untrusted and the front does not parse it. Loads neither
weights nor llama.cpp, so that it takes a moment only.
"""

import sys
from pathlib import Path

import msgspec

from engine_worker.backend.llama.demand import ModelDemand
from engine_worker.model_file.gguf_header import read_header
from engine_worker.model_file.purpose import require_served
from engine_worker.placement.reckoning import reckon
from gpufc.errors import MemoryShort, ModelLoadError
from gpufc.facts import MAX_SEQUENCES
from gpufc.reckoning import Question, Reckoning


def answer(question: Question) -> Reckoning:
    """The reckoning. A fault of the file, or the lack of memory, is its `error`."""
    config = question.config
    try:
        header = read_header(Path(config.model_path or ""))
        require_served(header, config.model_path or "")
        n_sequences = min(MAX_SEQUENCES, question.n_running + config.cached_sequences)
        demand = ModelDemand(config, header, n_sequences)
        found = reckon(
            demand.layers,
            header.file_bytes,
            n_gpu_layers=config.n_gpu_layers,
            host_room=question.host_bytes,
            device_rooms=question.device_bytes,
        )
    except ModelLoadError as err:
        return Reckoning(error=str(err), lacks_memory=isinstance(err, MemoryShort))
    return msgspec.structs.replace(found, architecture=header.architecture, n_ctx=demand.n_ctx)


def main() -> None:
    question = msgspec.json.decode(sys.stdin.buffer.read(), type=Question)
    sys.stdout.buffer.write(msgspec.json.encode(answer(question)) + b"\n")


if __name__ == "__main__":
    main()
