"""Identifiers. Each has one meaning and one maker; a type for each keeps them apart."""

import secrets
from typing import NewType

Epoch = NewType("Epoch", int)
"""One start of one worker process. Counted up by the front over all workers, never reused."""

RequestNo = NewType("RequestNo", int)
"""One sequence on the link: a prompt and one choice for it. Counted up by the front, never reused.

An HTTP request with two prompts and `n` = 3 becomes six sequences.
"""

RequestId = NewType("RequestId", str)
"""The id in a response's `X-Request-Id` and in log lines. Random, made by the front."""

WorkerName = NewType("WorkerName", str)
"""A worker's place in the fleet, such as `default-0`. Its processes come and go."""


def new_request_id() -> RequestId:
    """A random id of 96 bits, independent of the client's input."""
    return RequestId(secrets.token_hex(12))


def new_seed() -> int:
    """A random seed for a request without one, drawn when the request is accepted."""
    return secrets.randbits(63)
