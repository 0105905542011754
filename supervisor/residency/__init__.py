"""Which models are in memory: what is loaded, and what is unloaded for it, waits, or is refused.

Owns the account of every byte that a worker of this front holds or is about to take, the learnt
needs and load times of models, and the rules of eviction. Starts and ends no process, reads no
device: `supervisor.fleet` reports facts and carries out the actions. Pure, but for `store`.
"""
