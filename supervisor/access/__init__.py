"""Access keys: what a key may do, how much it may use, and the file that holds them.

A key's text exists once, in the output of `keys add`. Everything here knows its SHA-256 only: a key
is random and long, so a fast hash of it cannot be searched. A lookup by hash takes the same time
for every wrong key, whatever it shares with a right one.
"""
