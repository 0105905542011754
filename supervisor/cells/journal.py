"""Records in a store: whole, in order, and each one once, even if its answer was lost."""

from collections.abc import Iterator

from msgspec import Struct

from supervisor.cells.port import Behind, Refused, Store, log_subject, request_subject
from supervisor.cells.records import (
    Life,
    OfLog,
    OfRequest,
    decode_of_log,
    decode_of_request,
    encode,
    joined,
    life_of,
    split,
)


class Found(Struct, frozen=True):
    """A request's life and the number of its last message. None: another version's, or garbage."""

    last: int
    life: Life | None


async def append(store: Store, subject: str, record: OfRequest | OfLog, expected: int) -> int:
    """Store a record behind the message `expected`, and return its last message's number.

    Raises `Refused`, and `Away`, which may be `Behind`. After `Away` it may be called again with
    the same arguments: a record that was stored then is found.
    """
    parts = split(encode(record), store.most_bytes)
    n_stored, last = 0, expected
    while n_stored < len(parts):
        try:
            last = await store.append(subject, parts[n_stored], last)
            n_stored += 1
        except Refused as err:
            there = await store.read(subject, expected)
            if not there:
                raise Behind(str(err)) from err
            texts = [data for _, data in there]
            # an attempt before this one has stored these; no two fronts write equal records
            if len(texts) <= n_stored or texts != parts[: len(texts)]:
                raise
            n_stored, last = len(texts), there[-1][0]
    return last


async def read_request(store: Store, name: str) -> Found | None:
    """None if there is no record of the request. Raises `Away`, and `LinkError`."""
    messages = await store.read(request_subject(name))
    if not messages:
        return None
    records = [decode_of_request(data) for data in joined(data for _, data in messages)]
    return Found(messages[-1][0], life_of(records))


async def read_log(store: Store, run: str) -> tuple[int, Iterator[OfLog]]:
    """The number of the last message of a run's log, 0 if there are none, and its records, which
    are decoded one by one: there may be many. Raises `Away`; the records raise `LinkError`."""
    messages = await store.read(log_subject(run))
    last = messages[-1][0] if messages else 0
    return last, map(decode_of_log, joined(data for _, data in messages))
