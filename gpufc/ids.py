"""Identifiers. Each has one meaning and one maker; the types keep them from being mixed up."""

import secrets
from typing import NewType

Epoch = NewType("Epoch", int)
"""One start of one worker process. Counted up by the front over all workers, never reused."""

RequestNo = NewType("RequestNo", int)
"""One sequence on the link: a prompt and one choice for it. Counted up by the front, never reused.

An HTTP request with two prompts and `n` = 3 becomes six of them.
"""

RequestId = NewType("RequestId", str)
"""What a client sees in `X-Request-Id` and what every log line carries. Random, ours."""

WorkerName = NewType("WorkerName", str)
"""A worker's place in the fleet, such as `default-0`. It stays while processes come and go."""


def new_request_id() -> RequestId:
    """A random id of 96 bits. Never derived from anything that a client sent."""
    return RequestId(secrets.token_hex(12))


def new_seed() -> int:
    """A random seed for a request that brought none; fixed when the request is accepted."""
    return secrets.randbits(63)
