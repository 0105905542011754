"""How one reader reads a log's log probabilities: beside the text that their tokens end. Pure.

A log has a token's entry as soon as the token; its text may follow later. A reader gets an entry
with the text that the token ends, or with the next text after a token that ends none. So the
entries that belong to a text depend on the text alone, and every reader gets the same ones.
"""

from supervisor.answers.parts import Logprobs
from supervisor.dispatch.stream_log import StreamLog


class LogprobsReader:
    """One reader's place among the entries of one log."""

    __slots__ = ("_log", "_n_covered", "_n_given", "_n_read", "_prompt_is_given")

    def __init__(self, log: StreamLog) -> None:
        self._log = log
        self._n_read = 0  # characters of the text
        self._n_given = 0  # entries
        self._n_covered = 0  # characters that the given entries end
        self._prompt_is_given = False

    def read(self, n_chars: int) -> Logprobs | None:
        """The entries that belong to the next `n_chars` characters of the text."""
        self._n_read += n_chars
        entries = self._log.logprobs
        end, covered = self._n_given, self._n_covered
        while end < len(entries) and covered < self._n_read:
            if covered + entries[end].n_chars > self._n_read:
                break
            covered += entries[end].n_chars
            end += 1
        self._n_covered = covered
        return self._give(end)

    def end(self) -> Logprobs | None:
        """The entries after the last text. Tokens that are wholly in a stop string are left out."""
        entries = self._log.logprobs
        end = len(entries)
        if self._log.stopped_by is not None:
            end, covered = self._n_given, self._n_covered
            while end < len(entries) and covered < self._n_read:
                covered += entries[end].n_chars
                end += 1
        return self._give(end)

    def _give(self, end: int) -> Logprobs | None:
        start, self._n_given = self._n_given, end
        prompt = () if self._prompt_is_given else self._log.prompt_logprobs
        self._prompt_is_given = True
        if start == end and not prompt:
            return None
        return Logprobs(tuple(self._log.logprobs[start:end]), prompt)
