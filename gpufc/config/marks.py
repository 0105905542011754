"""Marks of keys, given as `Meta(extra=…)`; `|` joins them."""

FLAG = {"flag": True}
"""The key is an option of the command line, too."""

PATH = {"path": True}
"""The value is a path: `~` and relative paths are resolved where the value was given."""
