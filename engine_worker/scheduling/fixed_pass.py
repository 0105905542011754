"""A last pass that has a row of logits for every running sequence. Pure.

For a device with all layers and a KV stream for each sequence. llama.cpp captures the launch of a
pass (a CUDA graph) for one shape and one place in memory, and pays twice for every change. So one
token of every running sequence is computed in a last pass, each with a row; the rest of the
prompts is computed ahead of it without rows, in passes that have a graph of their own.
"""

import collections.abc

from msgspec import structs

from engine_worker.kv.edits import KvEdit
from engine_worker.scheduling.plan import Chunk, Decoding, Plan
from engine_worker.scheduling.step_shape import Mixed, decoding_of
from engine_worker.text.sequence import Sequence
from gpufc.protocol import Started


class FixedPass(Mixed):
    """Chunks get a padding row where they are not the last of their prompt.

    Steps with drafts, exact replays or log probabilities of a prompt do without. Drafts change the
    shape anyway, an exact replay must be computed in the same passes as the first time, and the
    passes ahead of the last one have no rows.
    """

    def decoding(
        self, ready: collections.abc.Sequence[Sequence], fed: collections.abc.Sequence[Sequence]
    ) -> Decoding:
        return decoding_of(ready, [Chunk(seq, 1, is_last=False, is_padded=True) for seq in fed])

    def plan(
        self,
        edits: list[KvEdit],
        decoding: Decoding,
        chunks: list[Chunk],
        started: list[Started],
        n_prompts: int,
    ) -> Plan:
        if not (chunks and decoding.work) or decoding.n_drafted or _has_passes_of_its_own(chunks):
            return super().plan(edits, decoding, chunks, started, n_prompts)
        padded = [structs.replace(chunk, is_padded=not chunk.is_last) for chunk in chunks]
        plan = super().plan(edits, decoding, padded, started, n_prompts)
        return structs.replace(plan, in_one_pass=True)


def _has_passes_of_its_own(chunks: list[Chunk]) -> bool:
    return any(chunk.sequence.exact or chunk.sequence.scores_prompt for chunk in chunks)
