"""The clients that `connect` knows, each with its own form of configuration. Pure.

One function in `forms.py` for each client; `CLIENTS` is the table.
"""
