"""Faults at chosen and at random moments, and a judge of every stream. `scripts/chaos` runs it.

`history` is the judge, `load` the clients, `faults` and `moments` the catalogue. `report` and
`headline` hold the figures. The other modules are the runs.
"""
