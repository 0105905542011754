"""The engine worker: one process that holds one model and generates tokens for many sequences.

Start at `worker.py` (which threads there are), then `engine/loop.py` (one step). DESIGN.md has the
picture and the reasons. Each package's docstring says what it owns and what it never imports;
`tests/structure.py` holds them to it. Nothing here opens a network socket or imports from the
front.
"""
