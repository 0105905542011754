"""Starts, watches, replaces and stops workers. The rest of the front may import `port.py`."""
