"""A scripted backend without a model, for tests and for measuring everything around the model.

It keeps an exact account of the KV cache: the token at each position of each slot. Its text depends
on all of these tokens (`vocabulary.py`), so that a mistake in scheduling, prefix reuse, preemption
or replay shows in the text. `faults.py` has its faults.
"""

import hashlib
import time
from typing import Self

import numpy as np

from engine_worker.backend.candidates import CandidateFinder
from engine_worker.backend.fake import faults, vocabulary
from engine_worker.backend.fake.embedder import EMBEDDING_SIZE, EMBEDDING_TOKENS, FakeEmbedder
from engine_worker.backend.fake.faults import NO_LINK, Link, Script, first_time
from engine_worker.backend.fake.vocabulary import (
    BOS,
    ENDS,
    EOS,
    FAULTS,
    GENERATED,
    IN_PROMPT,
    MAX_DIRECTIVE,
    N_VOCAB,
    NAN,
    SPECIALS,
    State,
    expected_text,
    expected_tokens,
)
from engine_worker.backend.port import (
    SPARE_OUTPUTS,
    Batch,
    LoadProgress,
    Logits,
    SpecialTokens,
    step_tokens,
)
from gpufc.adapters import adapter_files
from gpufc.config import KvUnified, ModelConfig
from gpufc.errors import DecodeFailed, OutOfCells
from gpufc.facts import ModelFacts, Pooling

__all__ = ["FakeBackend", "expected_text", "expected_tokens"]

BATCH_TOKENS = 256
LOGIT = 60.0
"""The logit of the next token. All others have at most 0, so that every sampling setting chooses
it."""
OTHERS: Logits = np.linspace(0, -0.5, N_VOCAB, dtype=np.float32)
"""The logits of the other tokens. They differ, as a real model's do: a sampler must look through
all equal ones."""

CHATML = (
    "{% for message in messages %}"
    "<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n"
    "{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
"""The chat template that this model brings."""

_START = State()


class _Cell:
    """One KV cell. Slots of a unified cache share it after `copy_prefix`."""

    __slots__ = ("n_users", "salt", "state", "token")

    def __init__(self, token: int, state: State, salt: int = 0) -> None:
        self.token = token
        self.salt = salt
        self.state = state
        self.n_users = 1


class FakeBackend:
    """Implements `Backend`.

    A unified cache has `kv_cells`, and a cell that slots share counts once. Otherwise each slot has
    `kv_cells // n_sequences`. Positions must follow each other, as in llama.cpp.
    """

    end_tokens = ENDS

    def __init__(self, config: ModelConfig, n_sequences: int, link: Link = NO_LINK) -> None:
        self._script = faults.script_of(config)
        self._held = b"\1" * (self._script.hold_mb << 20)
        self._leaked: list[bytes] = []
        cells = config.kv_cells or config.n_ctx * n_sequences
        self._room = cells if _is_unified(config) else cells // n_sequences
        self._n_batch = step_tokens(BATCH_TOKENS, n_sequences, config.batch_tokens)
        self._slots: list[list[_Cell]] = [[] for _ in range(n_sequences)]
        self._lost = [0] * n_sequences  # by slot, positions whose cells other slots have taken
        self._n_used = 0
        self._own_s = 0.0  # of one token, the least that a step took
        self._commit = faults.committer(link)
        self._rows: Logits = np.empty((0, N_VOCAB), np.float32)
        self.facts = _facts(config, n_sequences, cells, self._n_batch, self._script)

    @classmethod
    def load(
        cls,
        config: ModelConfig,
        n_sequences: int,
        on_progress: LoadProgress,
        link: Link = NO_LINK,
    ) -> Self:
        """Play the script's loading. Raises `ConfigError` or, as scripted, `ModelLoadError`."""
        backend = cls(config, n_sequences, link)
        faults.play_load(backend._script, on_progress, backend._commit)
        return backend

    @property
    def n_cells_used(self) -> int:
        """The cells in use in all slots, to check the engine's own account."""
        return self._n_used

    def history(self, slot: int) -> list[int]:
        """The tokens in a slot, for tests."""
        return [cell.token for cell in self._slots[slot]]

    def begin(self, batch: Batch) -> None:
        self._check(batch)
        self._take_time(batch)
        started = time.thread_time()
        self._compute(batch)
        own_s = (time.thread_time() - started) / len(batch.tokens)
        # a step of one token says more of what all steps take than of a token
        self._own_s = min(self._own_s, own_s) if self._own_s else own_s

    def _compute(self, batch: Batch) -> None:
        if self._script.window and self.facts.unified:
            for slot in batch.sequences:
                self._take_passed_cell(slot)
        rows: list[Logits] = []
        salt = vocabulary.salt(batch.adapters)
        entries = zip(batch.tokens, batch.sequences, batch.outputs, strict=True)
        for token, slot, wanted in entries:
            state = self._append(slot, token, salt)
            if wanted:
                is_nan = self._meets_nan(state) or bool(self._script.nan)
                rows.append(_row(state, is_nan=is_nan))
        self._rows = np.array(rows, np.float32).reshape(len(rows), N_VOCAB)

    def logits(self) -> Logits:
        return self._rows

    def remove(self, slot: int, start: int = 0) -> None:
        cells = self._slots[slot]
        if 0 < start < len(cells):
            self._require_prefix(slot, start)
        if not start:
            self._lost[slot] = 0
        for cell in cells[start:]:
            cell.n_users -= 1
            self._n_used -= cell.n_users == 0 or not self.facts.unified
        del cells[start:]

    def copy_prefix(self, source: int, target: int, n_tokens: int) -> None:
        if self._slots[target] or source == target:
            raise DecodeFailed(f"copy to slot {target}, which is not empty")
        if n_tokens > len(self._slots[source]):
            raise DecodeFailed(f"copy of {n_tokens} tokens from a shorter slot {source}")
        self._require_prefix(source, n_tokens)
        self._lost[target] = self._lost[source]
        prefix = self._slots[source][:n_tokens]
        if self.facts.unified:
            for cell in prefix:
                cell.n_users += 1
            self._slots[target] = prefix
        else:
            self._slots[target] = [_Cell(c.token, c.state, c.salt) for c in prefix]
            self._n_used += n_tokens

    @property
    def n_threads(self) -> int:
        """See `Backend`."""
        return 1

    def keeps_prefix(self, slot: int, n_tokens: int) -> bool:
        return self._lost[slot] <= max(0, n_tokens - self._script.window)

    def _require_prefix(self, slot: int, n_tokens: int) -> None:
        n_held = len(self._slots[slot])
        if self._script.uncut and n_tokens < n_held:
            raise DecodeFailed(f"slot {slot} of {n_held} tokens cannot be cut at {n_tokens}")
        if not self.keeps_prefix(slot, n_tokens):
            raise DecodeFailed(
                f"slot {slot} has lost {self._lost[slot]} cells, and the window of token"
                f" {n_tokens} begins earlier"
            )

    def state_bytes(self, slot: int) -> int:
        """See `Backend`. A state is the slot's tokens and salts, four bytes each."""
        return 8 * len(self._slots[slot])

    def export_state(self, slot: int, memory: memoryview) -> int:
        cells = [(cell.token, cell.salt) for cell in self._slots[slot]]
        memory[:] = np.array(cells, np.uint32).tobytes()
        return len(memory)

    def import_state(self, slot: int, memory: memoryview) -> bool:
        cells = np.frombuffer(bytes(memory), np.uint32).reshape(-1, 2).tolist()
        if self._n_used + len(cells) > self._room:
            return False
        for token, salt in cells:
            self._append(slot, token, salt)
        return True

    def embedder(self) -> FakeEmbedder:
        """See `Backend`."""
        return FakeEmbedder(self._script, self._commit, ranks=bool(self._script.ranks))

    def finders(self, n_threads: int) -> tuple[CandidateFinder, ...]:
        return ()

    def tokenize(self, text: str, *, add_special: bool, parse_special: bool) -> list[int]:
        faults.tokenizing(text)
        return vocabulary.tokenize(text, add_special=add_special, parse_special=parse_special)

    def piece(self, token: int) -> bytes:
        return vocabulary.piece(token)

    def written(self, text: str) -> list[int]:
        return [GENERATED + byte for byte in text.encode("utf-8", "replace")]

    def writable(self, token: int) -> bytes:
        return vocabulary.piece(token) if token >= GENERATED else b""

    def spelling(self, token: int) -> bytes:
        return SPECIALS[token].encode() if token in SPECIALS else vocabulary.piece(token)

    def is_end(self, token: int) -> bool:
        return token in ENDS

    def special_tokens(self) -> SpecialTokens:
        """See `Backend`."""
        return vocabulary.SPECIAL_TOKENS

    def template(self, name: str) -> str | None:
        """See `Backend`. This model brings one template, which has no name."""
        return None

    @property
    def tokenizer_module(self) -> None:
        """See `Backend`. Here no text is too long for the process."""

    def close(self) -> None:
        self._slots.clear()

    def _check(self, batch: Batch) -> None:
        """Refuse a batch as llama.cpp does, before any of it is computed."""
        n_tokens = len(batch.tokens)
        lengths = {len(batch.positions), len(batch.sequences), len(batch.outputs), n_tokens}
        if not 0 < n_tokens <= self._n_batch or len(lengths) > 1:
            raise DecodeFailed(f"a batch of {n_tokens} tokens, of at most {self._n_batch}")
        if sum(batch.outputs) > self.facts.max_outputs:
            raise DecodeFailed(f"{sum(batch.outputs)} outputs of {self.facts.max_outputs}")
        ends: dict[int, int] = {}
        entries = zip(batch.tokens, batch.positions, batch.sequences, strict=True)
        for token, position, slot in entries:
            if not 0 <= token < N_VOCAB or not 0 <= slot < len(self._slots):
                raise DecodeFailed(f"token {token} of slot {slot} does not exist")
            end = ends.get(slot, len(self._slots[slot]))
            if position != end:
                raise DecodeFailed(f"position {position} of slot {slot}, expected {end}")
            ends[slot] = end + 1
        needed = self._n_used + n_tokens if self.facts.unified else max(ends.values())
        if needed > self._room:
            raise OutOfCells(f"{needed} cells are needed, and there are {self._room}")

    def _take_time(self, batch: Batch) -> None:
        """Sleep before the tokens are computed, so that all of `begin` takes as long as the script
        says. Tokens of the step before leave the process meanwhile: a fault would keep them."""
        n_tokens = len(batch.tokens)
        n_prefilled = n_tokens - sum(batch.outputs)
        seconds = self._script.step_ms / 1e3 + n_prefilled * self._script.prefill_us / 1e6
        seconds -= n_tokens * self._own_s
        if seconds > 0:
            time.sleep(seconds)
        if self._script.leak_kb:
            self._leaked.append(b"\1" * (self._script.leak_kb << 10))

    def _append(self, slot: int, token: int, salt: int) -> State:
        """Add a cell, computed with adapters of this salt. Commits the faults of a directive that
        this token completes."""
        cells = self._slots[slot]
        before = cells[-1].state if cells else _START
        state = vocabulary.advance(
            before, token, lambda: [cell.token for cell in cells[-MAX_DIRECTIVE:]], salt
        )
        for entry in state.directives[len(before.directives) :]:
            if entry.kind in FAULTS and entry.at == IN_PROMPT and first_time(entry.once):
                self._commit(entry.kind, entry.code)
        cells.append(_Cell(token, state, salt))
        self._n_used += 1
        return state

    def _take_passed_cell(self, taker: int) -> None:
        """Some other slot loses its oldest cell that its window has passed."""
        for slot, cells in enumerate(self._slots):
            if slot != taker and self._lost[slot] < len(cells) - self._script.window:
                self._lost[slot] += 1
                return

    def _meets_nan(self, state: State) -> bool:
        """Commit the faults that are due now. True if one is `NAN`, a fault of the logits."""
        due = (entry for entry in state.directives if entry.at == state.n_generated)
        for entry in due:
            if entry.kind in FAULTS and first_time(entry.once):
                if entry.kind == NAN:
                    return True
                self._commit(entry.kind, entry.code)
        return False


def _row(state: State, *, is_nan: bool) -> Logits:
    if is_nan:
        return np.full(N_VOCAB, np.nan, np.float32)
    row = OTHERS.copy()
    row[vocabulary.next_token(state)] = LOGIT
    return row


def _is_unified(config: ModelConfig) -> bool:
    """`auto` is unified here: its account is harder to keep, and cells cost nothing."""
    return config.kv_unified is not KvUnified.FALSE


def _facts(
    config: ModelConfig, n_sequences: int, cells: int, n_batch: int, script: Script
) -> ModelFacts:
    name = f"fake/{N_VOCAB}/{config.model_path or ''}"
    room = cells if _is_unified(config) else cells // n_sequences
    return ModelFacts(
        fingerprint=hashlib.sha256(name.encode()).hexdigest(),
        architecture="fake",
        n_ctx=min(config.n_ctx, room),
        n_ctx_train=1 << 24,
        kv_cells=cells,
        n_sequences=n_sequences,
        batch_tokens=n_batch,
        max_outputs=min(n_batch, n_sequences + SPARE_OUTPUTS),
        n_vocab=N_VOCAB,
        n_layers=1,
        n_gpu_layers=0,
        n_params=0,
        model_bytes=0,
        unified=_is_unified(config),
        can_cut=not script.uncut,
        chat_template=CHATML,
        bos_text=SPECIALS[BOS],
        eos_text=SPECIALS[EOS],
        system_info="fake",
        generates=not (script.embeds or script.ranks),
        embedding_size=0 if script.ranks else EMBEDDING_SIZE,
        embedding_tokens=min(config.n_ctx, EMBEDDING_TOKENS),
        pooling=Pooling.RANK if script.ranks else Pooling.MEAN,
        adapters=tuple(file.name for file in adapter_files(config.adapters)),
        can_infill=True,
        metadata={"general.architecture": "fake", "general.file_type": 0},
    )
