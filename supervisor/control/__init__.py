"""The control socket: how commands on the same machine reach a running front, without a key.

`server` is the front's side, `client` (standard library only) the commands'. HTTP over a unix
socket of mode 0600; answers are JSON, long work answers with one JSON object a line.

    GET  /status    the /stats document, and `front`: pid, addresses, condition
    GET  /config    effective values and where each came from
    POST /stop      {"now": bool}                       lines until the front is gone
    POST /restart   {"worker": str | null, "now": bool} lines until the workers are ready
"""
