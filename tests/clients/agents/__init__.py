"""Coding agents of npm and PyPI against a service: one task with a tool, as a newcomer starts them.

`relay` records what an agent and the service say to each other, `every` has the agents, `__main__`
runs them and writes the table.
"""
