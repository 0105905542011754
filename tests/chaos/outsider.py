"""A peer without a key at the port for hosts: `python -m tests.chaos.outsider PORT FRONT_KEY SEED`.

Until its input is closed it keeps `N_HALF_OPEN` connections that have sent ZMTP's greeting and say
nothing more, sends garbage, and tries handshakes with keys that the front does not know. Then it
prints how often as JSON.
"""

import json
import random
import socket
import sys
import threading
import time
from collections import Counter

import zmq
from zmq.utils import z85

N_HALF_OPEN = 1000
PAUSE_S = 1.0
"""Between two looks at its connections: those that were cut are opened again."""

GARBAGE_S = 0.02
STRANGER_S = 0.2
GREETING = bytes.fromhex("ff00000000000000017f") + b"\x03\x01" + b"CURVE".ljust(20, b"\0")
GREETING = GREETING.ljust(64, b"\0")
"""ZMTP 3.1, https://rfc.zeromq.org/spec/37/: a client that will speak CURVE."""


def half_open(port: int, ended: threading.Event, counts: Counter[str]) -> None:
    held: list[socket.socket] = []
    while not ended.is_set():
        held = [one for one in held if _is_open(one)]
        for _ in range(N_HALF_OPEN - len(held)):
            if (one := _connected(port, GREETING)) is not None:
                held.append(one)
                counts["half-open handshakes"] += 1
        ended.wait(PAUSE_S)
    for one in held:
        one.close()


def garbage(port: int, ended: threading.Event, counts: Counter[str], dice: random.Random) -> None:
    while not ended.wait(GARBAGE_S):
        data = dice.randbytes(dice.randint(1, 4000))
        prefix = GREETING[: dice.choice((0, 10, 64))]
        if (one := _connected(port, prefix + data)) is not None:
            counts["connections with garbage"] += 1
            one.close()


def stranger(port: int, front_key: str, ended: threading.Event, counts: Counter[str]) -> None:
    context = zmq.Context()
    while not ended.is_set():
        public, secret = zmq.curve_keypair()
        peer = context.socket(zmq.DEALER)
        peer.setsockopt(zmq.LINGER, 0)
        peer.setsockopt(zmq.RECONNECT_IVL, -1)
        peer.setsockopt(zmq.CURVE_SERVERKEY, z85.encode(bytes.fromhex(front_key)))
        peer.setsockopt(zmq.CURVE_PUBLICKEY, public)
        peer.setsockopt(zmq.CURVE_SECRETKEY, secret)
        peer.connect(f"tcp://127.0.0.1:{port}")
        peer.send(b"\0" * 8 + b"let me in")
        if peer.poll(int(1000 * STRANGER_S)):
            counts["strangers that were answered"] += 1
        counts["handshakes with unknown keys"] += 1
        peer.close()
    context.destroy(linger=0)


def _connected(port: int, data: bytes) -> socket.socket | None:
    try:
        one = socket.create_connection(("127.0.0.1", port), 1.0)
    except OSError:
        return None
    try:
        one.sendall(data)
    except OSError:
        one.close()
        return None
    return one


def _is_open(one: socket.socket) -> bool:
    """Whether the front has not closed it. Its own greeting is read and dropped."""
    one.setblocking(False)
    try:
        while one.recv(4096):
            pass
    except BlockingIOError:
        return True
    except OSError:
        pass
    one.close()
    return False


def main() -> None:
    port, front_key, dice = int(sys.argv[1]), sys.argv[2], random.Random(int(sys.argv[3]))
    ended, counts = threading.Event(), Counter[str]()
    threads = [
        threading.Thread(target=half_open, args=(port, ended, counts)),
        threading.Thread(target=garbage, args=(port, ended, counts, dice)),
        threading.Thread(target=stranger, args=(port, front_key, ended, counts)),
    ]
    began = time.monotonic()
    for thread in threads:
        thread.start()
    print("begun", flush=True)
    sys.stdin.read()
    ended.set()
    for thread in threads:
        thread.join()
    print(json.dumps({**counts, "seconds": round(time.monotonic() - began, 1)}))


if __name__ == "__main__":
    main()
