"""The worker host: runs engine workers on a machine for a front on another one.

It decides nothing: it starts, signals and ends processes when the front says so, passes their
messages on unread, and ends them all when the front's lease is over.
"""
