"""The front over HTTP: what clients send becomes a request to dispatch, what comes back an answer.

One module for each resource, handlers only. Every route passes the middleware; every error becomes
an answer in `errors.py`.
"""
