"""Marks of keys, given as `Meta(extra=…)`; `|` joins them."""

from enum import StrEnum

FLAG = {"flag": True}
"""The key is an option of the command line, too."""

PATH = {"path": True}
"""The value is a path: `~` and relative paths are resolved where the value was given."""


class Reload(StrEnum):
    """What lets a new value of a key take effect while the service runs."""

    NOW = "now"
    """`reload`, at once. Its readers read it where they need it and keep no copy."""
    SWAP = "swap"
    """`reload`, which replaces the workers as `swap` does."""
    UPGRADE = "upgrade"
    """`upgrade`: a new front takes over the workers and the streams."""
    START = "start"
    """Only `stop` and `start`."""


NOW = {"reload": Reload.NOW}
SWAP = {"reload": Reload.SWAP}
UPGRADE = {"reload": Reload.UPGRADE}
START = {"reload": Reload.START}
"""The mark of a key without one of these, too."""
