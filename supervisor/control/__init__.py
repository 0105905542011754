"""The control socket, by which commands on this machine reach a running front without a key.

`server` is the front's side, `client` (standard library only) the commands'. HTTP over a unix
socket of mode 0600. Answers are JSON; long work answers with one JSON object a line.

    GET  /status    the /stats document, and `front`: pid, addresses, condition
    GET  /config    effective values and their sources
    POST /stop      {"now": bool}                       lines until the front has ended
    POST /restart   {"worker": str | null, "now": bool} lines until the workers are ready
"""
