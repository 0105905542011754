"""How many threads compute a pass while other processes use the cores. Pure.

llama.cpp's threads wait for each other some hundred times in a pass. While one of them has no core,
all wait: on two cores with one other busy process, two threads take several times as long as one
(NOTES.md). So while others use the cores, passes are computed with several numbers of threads in
turn, and the fastest number stays until it is time to look again.
"""

from bisect import bisect_left

from msgspec import Struct, field

CROWDED_FROM = 0.5
"""Cores that other processes use, beyond those that this one leaves free, from which on they
compete with its threads."""

CROWDED_UNTIL = 0.35

AGREEING_S = 0.5
"""Seconds in which all windows have to agree: a short burst is over before anything is tried."""

TRIES = 4
"""Passes with each number of threads before one is chosen."""

FIRST_STAY, LONGEST_STAY = 64, 1024
"""Passes with the chosen number before all are tried again; twice as many each time that the choice
is the same."""

FEW_TOKENS = 64
"""Passes of at most so many tokens count as those of decoding; larger ones have prompts."""

_SIZES = (1, 4, 16, FEW_TOKENS, 256)
"""Passes of at most so many tokens are compared with each other."""


class _Trial(Struct):
    """Passes of one size: their seconds by number of threads, while `chosen` is None; then how many
    are `left` until the next trial. `stay` is how many there were at first."""

    seconds: dict[int, list[float]] = field(default_factory=dict)
    chosen: int | None = None
    chosen_before: int | None = None
    stay: int = FIRST_STAY
    left: int = 0


class _Crowd:
    """Whether others use cores that passes of one kind want: all but `n_spare`. While they do,
    `trials` has those of each size."""

    def __init__(self, n_spare: int) -> None:
        self._n_spare = max(0, n_spare)
        self._agreeing_s = 0.0
        self.is_there = False
        self.trials: dict[int, _Trial] = {}

    def used(self, others: float, window_s: float) -> None:
        """Others used so many cores in the last window."""
        limit = CROWDED_UNTIL if self.is_there else CROWDED_FROM
        agrees = (others - self._n_spare >= limit) is self.is_there
        self._agreeing_s = 0.0 if agrees else self._agreeing_s + window_s
        if self._agreeing_s >= AGREEING_S:
            self.is_there, self._agreeing_s = not self.is_there, 0.0
            self.trials.clear()


class SharedCores:
    """Chooses a number of threads on a machine of `n_cores`: while no other process uses them
    `n_threads` for decoding and `n_threads_batch` for prompts, else from 1 to these."""

    def __init__(self, n_threads: int, n_threads_batch: int, n_cores: int) -> None:
        self._n_threads, self._n_threads_batch = n_threads, n_threads_batch
        self._n_cores = n_cores
        self._others = 0.0
        self._decoding = _Crowd(n_cores - n_threads)
        self._prompts = _Crowd(n_cores - n_threads_batch)

    @property
    def is_crowded(self) -> bool:
        """Whether other processes use cores that decoding wants."""
        return self._decoding.is_there

    def used(self, others: float, window_s: float) -> None:
        """Other processes used so many cores in the last window."""
        self._others = others
        self._decoding.used(others, window_s)
        self._prompts.used(others, window_s)

    def threads(self, n_tokens: int) -> int:
        """For the next pass, of so many tokens."""
        trial = self._trial_of(n_tokens)
        most = self._most(n_tokens)
        if trial is None:
            return most
        return trial.chosen or next(iter(self._untried(trial, most)), most)

    def computed(self, n_tokens: int, n_threads: int, seconds: float) -> None:
        """A pass of so many tokens took so long with so many threads."""
        trial = self._trial_of(n_tokens)
        if trial is None:
            return
        if trial.chosen is None:
            trial.seconds.setdefault(n_threads, []).append(seconds)
            if not self._untried(trial, self._most(n_tokens)):
                _choose(trial)
        else:
            trial.left -= 1
            if trial.left == 0:
                trial.chosen, trial.seconds = None, {}

    def _trial_of(self, n_tokens: int) -> _Trial | None:
        """None if all threads compute."""
        crowd = self._decoding if n_tokens <= FEW_TOKENS else self._prompts
        if not crowd.is_there:
            return None
        return crowd.trials.setdefault(bisect_left(_SIZES, n_tokens), _Trial())

    def _most(self, n_tokens: int) -> int:
        return self._n_threads if n_tokens <= FEW_TOKENS else self._n_threads_batch

    def _untried(self, trial: _Trial, most: int) -> list[int]:
        """Of `most` threads, as many as cores are free, and half: the numbers not tried enough."""
        free, half = min(most, self._n_cores - round(self._others)), most // 2
        numbers = {most, max(1, free), max(1, half)}
        return sorted(n for n in numbers if len(trial.seconds.get(n, ())) < TRIES)


def _choose(trial: _Trial) -> None:
    means = {n: sum(times) / len(times) for n, times in trial.seconds.items()}
    trial.chosen = min(means, key=means.__getitem__)
    is_same = trial.chosen == trial.chosen_before
    trial.stay = min(2 * trial.stay, LONGEST_STAY) if is_same else FIRST_STAY
    trial.left, trial.chosen_before = trial.stay, trial.chosen
