"""A plugin that opens a connection when a worker is ready."""

import socket

from supervisor.plugins.api import Event, hook


@hook
def on_event(event: Event) -> None:
    with socket.socket() as sock:
        sock.connect_ex(("127.0.0.1", 9))
