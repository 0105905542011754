"""The HTTP front. `routes.py` is the table of all routes.

Each client API is a package that translates to and from one internal request (`generation`).
"""
