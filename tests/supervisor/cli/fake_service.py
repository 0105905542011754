"""A tiny HTTP server that answers chat requests as the front does."""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class FakeService:
    """`seen` holds the bodies that came. An answer that is an exception's text is an error."""

    def __init__(self) -> None:
        self.seen: list[dict[str, Any]] = []
        self.pieces = ["Hel", "lo ", "wörld"]
        self.refusal: tuple[int, str] | None = None
        self.break_with: str | None = None
        self.headers: list[str | None] = []
        self.models: list[str] = []

    def frames(self) -> Iterator[bytes]:
        yield b": keep-alive\n\n"
        yield _frame({"choices": [{"delta": {"role": "assistant"}}]})
        for piece in self.pieces:
            yield _frame({"choices": [{"delta": {"content": piece}}]})
        if self.break_with is not None:
            yield _frame({"error": {"message": self.break_with}})
        else:
            usage = {"prompt_tokens": 7, "completion_tokens": len(self.pieces)}
            yield _frame({"choices": [], "usage": usage})
        yield b"data: [DONE]\n\n"


@contextmanager
def fake_service() -> Iterator[tuple[FakeService, str]]:
    """The service and its base URL."""
    service = FakeService()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            length = int(self.headers["Content-Length"])
            service.seen.append(json.loads(self.rfile.read(length)))
            service.headers.append(self.headers["Authorization"])
            if service.refusal:
                status, message = service.refusal
                self.send_response(status)
                self.end_headers()
                self.wfile.write(json.dumps({"error": {"message": message}}).encode())
                return
            self.send_response(200)
            self.send_header("Content-Type", "text/event-stream")
            self.end_headers()
            for frame in service.frames():
                self.wfile.write(frame)
                self.wfile.flush()

        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            listed = [{"id": name} for name in service.models]
            self.wfile.write(json.dumps({"data": listed}).encode())

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield service, f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def _frame(event: dict[str, Any]) -> bytes:
    return f"data: {json.dumps(event)}\n\n".encode()
