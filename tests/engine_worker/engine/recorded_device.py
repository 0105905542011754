"""A fake device with a KV stream for each sequence, and the batches that it was given."""

import msgspec

from engine_worker.backend.fake.backend import FakeBackend
from engine_worker.backend.fake.vocabulary import tokenize
from engine_worker.backend.port import Batch
from gpufc.config import BackendKind, KvUnified, ModelConfig

N_STREAMS = 12


class Recorded(FakeBackend):
    """A device with a KV stream each, and the batches that it was given."""

    batches: list[Batch]

    def begin(self, batch: Batch) -> None:
        self.batches.append(batch)
        if batch.in_one_pass:
            # so it can be cut in two: what is ahead has no outputs, the last pass a row for each
            lasts = {
                sequence: output
                for sequence, output in zip(batch.sequences, batch.outputs, strict=True)
            }
            assert all(lasts.values())
            assert sum(batch.outputs) == len(lasts)
            assert batch.sequences == sorted(batch.sequences)
        super().begin(batch)


def device() -> Recorded:
    config = ModelConfig(
        backend=BackendKind.FAKE, kv_cells=16 * 512, n_ctx=512, kv_unified=KvUnified.FALSE
    )
    made = Recorded.load(config, N_STREAMS + 4, lambda _: None)
    made.batches = []
    made.facts = msgspec.structs.replace(
        made.facts, asynchronous=True, n_gpu_layers=made.facts.n_layers
    )
    return made


def prompt(text: str) -> tuple[int, ...]:
    return tuple(tokenize(text, add_special=True))
