"""The private socket between the two fronts: packets that may carry descriptors.

A socket pair has no name: no other process can connect, and the end of one front is the end of file
for the other. `SOCK_SEQPACKET` keeps messages apart.
"""

import asyncio
import os
import socket
from collections.abc import Sequence

from gpufc.errors import LinkError
from supervisor.handover.messages import MAX_PACKET_BYTES

MAX_DESCRIPTORS = 200
"""The kernel passes at most 253 descriptors at once (SCM_MAX_FD)."""


class PacketSocket:
    """One end. Owns its socket. Received descriptors belong to the caller."""

    def __init__(self, sock: socket.socket) -> None:
        self._socket = sock
        sock.setblocking(False)

    @classmethod
    def pair(cls) -> tuple["PacketSocket", socket.socket]:
        """This end, and the end to be passed on."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        return cls(ours), theirs

    def send(self, data: bytes, descriptors: Sequence[int] = ()) -> None:
        """Send one packet with copies of these descriptors. Raises `OSError` after the other end
        has closed, `LinkError` for too many descriptors."""
        if len(descriptors) > MAX_DESCRIPTORS:
            raise LinkError(f"{len(descriptors)} descriptors are more than can be handed over")
        socket.send_fds(self._socket, [data], list(descriptors), socket.MSG_NOSIGNAL)

    async def receive(self) -> bytes:
        """The next packet; empty at the end. Raises `OSError`."""
        return await asyncio.get_running_loop().sock_recv(self._socket, MAX_PACKET_BYTES)

    def receive_now(self, timeout_s: float) -> tuple[bytes, list[int]]:
        """The next packet with its descriptors, without a loop. Raises `OSError`, `LinkError`."""
        self._socket.settimeout(timeout_s)
        try:
            data, descriptors, flags, _ = socket.recv_fds(
                self._socket, MAX_PACKET_BYTES, MAX_DESCRIPTORS
            )
        finally:
            self._socket.setblocking(False)
        for descriptor in descriptors:
            os.set_inheritable(descriptor, False)  # `recv_fds` takes no MSG_CMSG_CLOEXEC
        if flags & (socket.MSG_TRUNC | socket.MSG_CTRUNC):
            for descriptor in descriptors:
                os.close(descriptor)
            raise LinkError("a handover message was cut off")
        return data, descriptors

    def close(self) -> None:
        """Close this end, which the other end sees. May be called again."""
        self._socket.close()
