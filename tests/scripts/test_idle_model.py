"""The readiness check of an idle model: each failed request counts, and none ends the check."""

import socket
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

from scripts.lab.idle_model import Readiness
from tests.service import wait_for


class _Unready(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(503)
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None: ...


def test_a_refused_connection_counts_and_the_check_goes_on() -> None:
    with socket.socket() as held:  # bound and not listening: connections are refused
        held.bind(("127.0.0.1", 0))
        asked = Readiness(f"http://127.0.0.1:{held.getsockname()[1]}")
        wait_for(lambda: len(asked.refused) >= 2, 30.0, "two requests are refused")
        asked.end()
    assert set(asked.refused) == {0}
    assert len(asked.refused) == asked.n_asked


def test_an_answer_that_is_not_200_counts_with_its_code() -> None:
    with HTTPServer(("127.0.0.1", 0), _Unready) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        asked = Readiness(f"http://127.0.0.1:{server.server_port}")
        wait_for(lambda: len(asked.refused) >= 2, 30.0, "two answers of 503")
        asked.end()
        server.shutdown()
        thread.join()
    assert set(asked.refused) == {503}
