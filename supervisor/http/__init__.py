"""The front over HTTP: from a client's body to a request, and from a stream to an answer.

One module of handlers for each resource. Every route passes the middleware. Every error becomes an
answer in `errors.py`. `API.md` is the reference for clients.
"""
