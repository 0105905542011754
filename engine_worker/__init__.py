"""The engine worker: one process that holds one model and generates tokens for many sequences.

Start at `process.py` (what runs in which thread), then `engine.py` (one step). DESIGN.md has the
reasons. Nothing here opens a network socket or imports from the front.
"""
