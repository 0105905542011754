"""Which models are served, and which of them are in memory: `supervisor.residency` carried out.

Reads what dispatch's requests want and what the fleet's workers do, tells it to a `Residency`, and
loads and unloads workers as that decides. Knows no request and no process.
"""
