"""A backend that knows each slot's tokens, and compares each row of logits with the model alone."""

import hashlib
from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import NamedTuple

import numpy as np

from engine_worker.backend.llama.backend import LlamaBackend
from engine_worker.backend.llama.loading import Loaded
from engine_worker.backend.port import Batch
from tests.models.reference import Reference


class Row(NamedTuple):
    """The logits after the last of `tokens`."""

    tokens: tuple[int, ...]
    logits: np.ndarray


class WatchedBackend(LlamaBackend):
    """Keeps its own list of the tokens whose cells each slot has, from the calls that it gets.

    A batch must go on where its slot's tokens end. `rows` has the logits of every output, without
    those of guesses that were cut off at once: each would cost a whole reference. `n_cut` counts
    the cuts, `n_copied` the copies of a beginning.
    """

    def __init__(self, loaded: Loaded) -> None:
        super().__init__(loaded)
        self.rows: list[Row] = []
        self.n_cut = self.n_copied = 0
        self._first_of_pass = 0
        self._tokens: dict[int, list[int]] = {}
        self._exported: dict[bytes, list[int]] = {}

    def forget(self) -> None:
        """Begin to collect anew."""
        self.rows, self._first_of_pass = [], 0
        self.n_cut = self.n_copied = 0

    def begin(self, batch: Batch) -> None:
        super().begin(batch)
        seen: list[tuple[int, ...]] = []
        entries = zip(batch.tokens, batch.positions, batch.sequences, batch.outputs, strict=True)
        for token, position, slot, is_output in entries:
            held = self._tokens.setdefault(slot, [])
            assert position == len(held), f"slot {slot} has {len(held)} tokens, not {position}"
            held.append(token)
            if is_output:
                seen.append(tuple(held))
        self._first_of_pass = len(self.rows)
        self.rows += [Row(*row) for row in zip(seen, self.logits().copy(), strict=True)]

    def remove(self, slot: int, start: int = 0) -> None:
        super().remove(slot, start)
        held = self._tokens.setdefault(slot, [])
        if 0 < start < len(held):
            self.n_cut += 1
            latest = self.rows[self._first_of_pass :]
            self.rows[self._first_of_pass :] = [
                row
                for row in latest
                if len(row.tokens) <= start or row.tokens != tuple(held[: len(row.tokens)])
            ]
        del held[start:]

    def copy_prefix(self, source: int, target: int, n_tokens: int) -> None:
        super().copy_prefix(source, target, n_tokens)
        self.n_copied += 1
        assert not self._tokens.get(target), f"slot {target} is not empty"
        self._tokens[target] = self._tokens[source][:n_tokens]

    def export_state(self, slot: int, memory: memoryview) -> int:
        size = super().export_state(slot, memory)
        self._exported[_digest(memory[:size])] = list(self._tokens[slot])
        return size

    def import_state(self, slot: int, memory: memoryview) -> bool:
        taken = super().import_state(slot, memory)
        if taken:
            self._tokens[slot] = list(self._exported[_digest(memory)])
        return taken


def _digest(memory: memoryview) -> bytes:
    return hashlib.sha256(memory).digest()


def distances(rows: Sequence[Row], alone: Reference) -> list[float]:
    """The largest difference of a logit of each row from the same tokens in an empty cache.

    Tokens that begin another row's are computed once.
    """
    found: list[float] = []
    for tokens, members in _families(rows):
        wanted = alone.rows(tokens)
        found += [float(np.abs(row.logits - wanted[len(row.tokens) - 1]).max()) for row in members]
    return found


def _families(rows: Sequence[Row]) -> Iterator[tuple[tuple[int, ...], list[Row]]]:
    """Rows by the longest tokens that begin with theirs."""
    longest: tuple[int, ...] = ()
    named: list[tuple[tuple[int, ...], Row]] = []
    for row in sorted(rows, key=lambda row: row.tokens, reverse=True):
        if longest[: len(row.tokens)] != row.tokens:
            longest = row.tokens
        named.append((longest, row))
    for tokens, members in groupby(named, key=lambda pair: pair[0]):
        yield tokens, [row for _, row in members]
