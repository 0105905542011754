"""Plugins: an operator's own filters, policies and listeners. `PLUGINS.md` is for their authors.

Each plugin runs in a process of its own (`host`). The front imports none of its code, waits for it
with a time limit, and ends it when it hangs or floods. Nothing here is imported without a plugin.
"""
