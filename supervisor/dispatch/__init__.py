"""From a request to its tokens, whatever carries it in and whichever worker computes it.

Requests enter by one port, `Dispatcher.submit(request, principal) -> ResponseStream`. Knows no
HTTP and no client's dialect; knows workers only as handles that take and bring messages.
"""
