"""Faults at chosen and at random moments, and what clients got meanwhile. `scripts/chaos` runs it.

`history` is the judge, `load` the clients, `faults` and `moments` the catalogue, the rest the runs.
"""
