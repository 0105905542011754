"""A llama.cpp model's vocabulary: text to tokens and back. Thread-safe, as llama.cpp's own is."""

import ctypes
import threading

from engine_worker.backend.llama.bindings import VocabularyBindings, VocabularyPointer
from engine_worker.backend.port import InfillTokens, SpecialToken, SpecialTokens

_FIRST_BUFFER = 256
_MAX_PIECE_BYTES = 1 << 20


class _Buffer(threading.local):
    """Memory for a token's text, of each thread its own. To make it anew for each of all tokens
    takes as long as to fetch them."""

    def __init__(self) -> None:
        self.memory = ctypes.create_string_buffer(_FIRST_BUFFER)


class Vocabulary:
    """Pieces are fetched when they are first needed and then kept; a race fetches one twice.

    `pointer` is valid until the model is freed. Making one asks llama.cpp for each token whether it
    ends a generation, which takes tens of milliseconds.
    """

    def __init__(self, bindings: VocabularyBindings, pointer: VocabularyPointer) -> None:
        self._lc = bindings
        self.pointer = pointer
        self.n_tokens: int = bindings.llama_vocab_n_tokens(pointer)
        self._pieces: list[bytes | None] = [None] * self.n_tokens
        self._buffer = _Buffer()
        self._special_tokens: SpecialTokens | None = None
        is_end = bindings.llama_vocab_is_eog
        self.end_tokens = frozenset(
            token for token in range(self.n_tokens) if is_end(pointer, token)
        )

    def tokenize(self, text: str, *, add_special: bool, parse_special: bool) -> list[int]:
        """The token ids of `text`. Half surrogate pairs become question marks."""
        data = text.encode("utf-8", "replace")
        capacity = len(data) + 16 if len(data) < 65_536 else len(data) // 2
        while True:
            tokens = (ctypes.c_int32 * capacity)()
            count = self._lc.llama_tokenize(
                self.pointer, data, len(data), tokens, capacity, add_special, parse_special
            )
            if count >= 0:
                return tokens[:count]
            capacity = -count

    def written(self, text: str) -> list[int]:
        """The token ids in which an answer goes on with `text`. No space is put before it, as
        SentencePiece vocabularies do at the start of a text."""
        data = text.encode("utf-8", "replace")
        tokens = self.tokenize(text, add_special=False, parse_special=False)
        if b"".join(map(self.piece, tokens)) == data:
            return tokens
        after_line = self.tokenize("\n" + text, add_special=False, parse_special=False)
        for n_before in (1, 2):
            found = after_line[n_before:]
            if b"".join(map(self.piece, found)) == data:
                return found
        return tokens

    def piece(self, token: int) -> bytes:
        """A token's bytes; empty for control tokens and tokens that end a generation."""
        piece = self._pieces[token]
        if piece is None:
            piece = b"" if self.is_end(token) else self._fetch(token, special=False)
            self._pieces[token] = piece
        return piece

    def spelling(self, token: int) -> bytes:
        """A token's bytes, with control tokens spelt out."""
        return self._fetch(token, special=True)

    def spelt(self, token: int) -> str:
        """`spelling` as text; empty for -1, which is llama.cpp's "no such token"."""
        return self.spelling(token).decode("utf-8", "replace") if token >= 0 else ""

    def is_end(self, token: int) -> bool:
        """Whether the token ends a generation."""
        return token in self.end_tokens

    def special_tokens(self) -> SpecialTokens:
        """See `Backend`."""
        if self._special_tokens is None:
            self._special_tokens = self._read_special_tokens()
        return self._special_tokens

    def _read_special_tokens(self) -> SpecialTokens:
        lc, pointer = self._lc, self.pointer
        control = lc.LLAMA_TOKEN_ATTR_CONTROL | lc.LLAMA_TOKEN_ATTR_UNKNOWN
        wanted = control | lc.LLAMA_TOKEN_ATTR_USER_DEFINED
        attributes = lc.llama_vocab_get_attr
        tokens: list[SpecialToken] = []
        names: dict[str, str] = {}
        for token in range(self.n_tokens):
            attribute = attributes(pointer, token)
            if not attribute & wanted:
                continue
            text = lc.llama_vocab_get_text(pointer, token).decode("utf-8", "replace")
            if attribute & lc.LLAMA_TOKEN_ATTR_UNKNOWN:
                names.setdefault("unk_token", text)
            tokens.append(
                SpecialToken(
                    token,
                    text,
                    is_control=bool(attribute & control),
                    strips_left=bool(attribute & lc.LLAMA_TOKEN_ATTR_LSTRIP),
                    strips_right=bool(attribute & lc.LLAMA_TOKEN_ATTR_RSTRIP),
                )
            )
        for name in ("bos", "eos", "pad", "sep", "mask"):
            token = getattr(lc, f"llama_vocab_{name}")(pointer)
            if token >= 0:
                names[f"{name}_token"] = self.spelt(token)
        # what llama.cpp puts around nothing is what it puts around every text
        around = self.tokenize("", add_special=True, parse_special=False)
        n_first = int(bool(around) and around[0] == lc.llama_vocab_bos(pointer))
        return SpecialTokens(
            tokens=tuple(token for token in tokens if token.text),
            names=names,
            first=tuple(around[:n_first]),
            last=tuple(around[n_first:]),
            between=self._between(tuple(around[n_first:])),
            infill=self.infill_tokens(),
        )

    def infill_tokens(self) -> InfillTokens | None:
        """The fill-in-the-middle tokens; None for a model without."""
        prefix, suffix, middle, repository, file = (
            getattr(self._lc, f"llama_vocab_fim_{name}")(self.pointer)
            for name in ("pre", "suf", "mid", "rep", "sep")
        )
        if min(prefix, suffix, middle) < 0:
            return None
        return InfillTokens(
            prefix,
            suffix,
            middle,
            repository if repository >= 0 else None,
            file if file >= 0 else None,
        )

    def _between(self, last: tuple[int, ...]) -> tuple[int, ...]:
        """BERT has one separator between the texts of a pair. RoBERTa and its kin have two."""
        is_bert = self._lc.llama_vocab_type(self.pointer) == self._lc.LLAMA_VOCAB_TYPE_WPM
        return last if is_bert else last + last[-1:]

    def _fetch(self, token: int, *, special: bool) -> bytes:
        length, buffer = _FIRST_BUFFER, self._buffer.memory
        while True:
            count = self._lc.llama_token_to_piece(self.pointer, token, buffer, length, 0, special)
            if count >= 0:
                return buffer.raw[:count]
            length = max(-count, length + 1)
            if length > _MAX_PIECE_BYTES:
                return b""
            buffer = ctypes.create_string_buffer(length)
