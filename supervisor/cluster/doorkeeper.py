"""Says which keys may finish a CURVE handshake (ZAP, https://rfc.zeromq.org/spec/27/).

libzmq asks over a socket inside the process, once for each handshake, after the peer has proven
that it owns the key and knows the front's. The answer's user id is the key in hex; every message of
that connection carries it.
"""

from collections.abc import Callable

import zmq

from supervisor.socket_reader import SocketReader

DOMAIN = b"gpufc-hosts"
ENDPOINT = "inproc://zeromq.zap.01"

_KEY_AT = 6
_N_FRAMES = 7


class Doorkeeper:
    """Answers for all sockets of one context. Bind it before they are bound."""

    def __init__(
        self, context: "zmq.Context[zmq.Socket[bytes]]", admits: Callable[[str], bool]
    ) -> None:
        self.n_refused = 0
        self._admits = admits
        self._socket = context.socket(zmq.REP)
        self._socket.setsockopt(zmq.LINGER, 0)
        self._socket.bind(ENDPOINT)
        self._reader = SocketReader(self._socket, self._take)

    def close(self) -> None:
        """Later handshakes fail. May be called again."""
        self._reader.close()
        self._socket.close(linger=0)

    def _take(self) -> None:
        request = self._socket.recv_multipart(zmq.NOBLOCK)
        key = request[_KEY_AT].hex() if len(request) == _N_FRAMES else ""
        admitted = bool(key) and self._admits(key)
        self.n_refused += not admitted
        status, user = (b"200", key.encode()) if admitted else (b"400", b"")
        self._socket.send_multipart([*request[:2], status, b"", user, b""], zmq.NOBLOCK)
        self._reader.look_soon()
