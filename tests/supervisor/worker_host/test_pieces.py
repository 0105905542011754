"""Pieces of files between front and host: only what was asked for, and only so many."""

import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from supervisor.cluster.messages import (
    AskPiece,
    Piece,
)
from supervisor.downloads.checksums import Over
from supervisor.remote import supply
from tests.supervisor.worker_host.supplied import (
    BYTES,
    Bench,
    content,
    model,
    until,
)


async def test_no_file_but_those_of_the_job_is_sent(bench: Bench) -> None:
    host, config = bench.host(), model(bench)
    bench.file("secret", b"secret")
    host.passes = lambda message: not isinstance(message, Piece)
    epoch, _ = bench.begin(host, config)
    await until(host.pieces)
    n_sent = len(host.sent)
    for epoch_no, number in ((epoch, 2), (epoch, 0), (epoch, -1), (epoch + 1, 1)):
        bench.supply.message(host.channel, AskPiece(epoch_no, number, 0))
    stranger = bench.host("b")
    bench.supply.message(stranger.channel, AskPiece(epoch, 1, 0))
    await until(lambda: bench.supply._server is not None and bench.supply._server.done())
    sent = [message for message in host.sent[n_sent:] if isinstance(message, Piece)]
    assert {message.number for message in sent} <= {1}
    assert stranger.sent == []


async def test_no_piece_beyond_a_files_end_is_read(bench: Bench) -> None:
    host, config = bench.host(), model(bench)
    host.passes = lambda message: not isinstance(message, Piece)
    epoch, _ = bench.begin(host, config)
    await until(host.pieces)
    for offset in (len(BYTES), 1 << 63):
        n_asked = len(bench.supply._asks)
        bench.supply.message(host.channel, AskPiece(epoch, 1, offset))
        assert len(bench.supply._asks) == n_asked


async def test_a_host_that_reads_nothing_is_sent_only_so_much(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(supply, "MOST_UNRECEIVED", 4)
    host, config = bench.host(), model(bench)
    host.passes = lambda message: not isinstance(message, Piece)

    def sent() -> list[Piece]:
        return [one for one in host.sent if isinstance(one, Piece)]

    async def ask(receipt: int) -> None:
        for _ in range(20):
            bench.supply.message(host.channel, AskPiece(epoch, 1, 0, receipt))
        await until(lambda: bench.supply._server is None or bench.supply._server.done())

    epoch, _ = bench.begin(host, config)
    await until(sent)
    await ask(0)
    await ask(1)
    assert len(sent()) == 4
    await ask(sent()[1].receipt)
    assert len(sent()) == 6


async def test_the_front_reads_no_further_for_a_job_that_is_over(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, over, ends = threading.Event(), threading.Event(), list[BaseException]()
    read = bench.checksums.sha256

    def slow(path: Path, told: Callable[[int], None], via: Path) -> str:
        if begun.is_set():
            return read(path, told, via)
        begun.set()
        assert over.wait(60)
        try:
            return read(path, told, via)
        except BaseException as err:
            ends.append(err)
            raise

    monkeypatch.setattr(bench.checksums, "sha256", slow)
    host, config = bench.host(), model(bench)
    epoch, _ = bench.begin(host, config)
    await until(begun.is_set)
    bench.supply.end(epoch)
    over.set()
    assert content((await bench.obtained(host, config)).model_path) == BYTES
    assert [type(err) for err in ends] == [Over]


async def test_a_host_reads_no_further_for_a_job_that_is_over(bench: Bench) -> None:
    host, config = bench.host(), model(bench)
    host.passes = lambda message: not isinstance(message, Piece)
    epoch, _ = bench.begin(host, config)
    await until(host.pieces)
    job = host.provision._jobs[epoch]
    host.provision.forgo(epoch)
    with pytest.raises(Over):
        job.told(job.wanted.models[0].parts[0], 1)


async def test_other_pieces_come_after_one_that_fails(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    read, faults = supply._read, [OverflowError("odd")]

    def odd(source: supply.Source, offset: int) -> tuple[bytes, str]:
        if faults:
            raise faults.pop()
        return read(source, offset)

    monkeypatch.setattr(supply, "_read", odd)
    host, config = bench.host(), model(bench)
    assert await bench.failed(host, config) == "failed: OverflowError: odd"
    assert content((await bench.obtained(host, config)).model_path) == BYTES


async def test_no_piece_is_sent_before_its_turn(bench: Bench) -> None:
    host = bench.host()
    host.passes = lambda message: False
    epoch, _ = bench.begin(host, model(bench))
    await until(lambda: host.sent)
    bench.supply.message(host.channel, AskPiece(epoch, 1, 0))
    assert not bench.supply._asks
