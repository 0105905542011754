"""Drafts of one length, for a device. Pure.

A GPU's launch is prepared for one shape of a pass. In the two steps after the number of tokens has
changed the same pass takes some 10 ms longer, the time of several tokens. So all drafts of a step
are filled up to one length, a change waits until it is wanted in some steps in succession, and then
it stays for some: such a step takes little longer than one without drafts.
"""

LENGTH = 7
"""With the token before them 8, the most that llama.cpp's kernels for few tokens take."""

WANTED = 3
"""Steps in which drafts must be worth verifying before they are."""

PATIENCE = 12
"""Steps without such a draft, after which none are verified: that many cost as much as to change
the shape twice."""


class DraftShape:
    """Whether steps have drafts. The engine thread's own."""

    def __init__(self) -> None:
        self.has_drafts = False
        """Whether the next step's are to have any, unless something changes."""
        self._n_otherwise = 0

    def length(self, is_worthwhile: bool) -> int:
        """Tokens of each draft in the next step, given whether any is worth verifying."""
        if is_worthwhile == self.has_drafts:
            self._n_otherwise = 0
        else:
            self._n_otherwise += 1
            if self._n_otherwise >= (PATIENCE if self.has_drafts else WANTED):
                self.reset(has_drafts=is_worthwhile)
        return LENGTH if self.has_drafts else 0

    def reset(self, *, has_drafts: bool = False) -> None:
        """The next step has drafts, or none, whatever was before."""
        self.has_drafts, self._n_otherwise = has_drafts, 0
