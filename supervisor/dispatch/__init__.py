"""From a request to its tokens, over any number of workers and their deaths.

Requests enter by one port, `Dispatcher.submit(request, principal) -> ResponseStream`. Imports no
HTTP and no client's dialect. A worker is a handle that takes and brings messages.
"""
