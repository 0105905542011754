"""Records: whole after any cut into messages, and a request's life from them."""

import random

import msgspec
import pytest

from gpufc.errors import LinkError
from gpufc.protocol import TextPrompt, TokenPrompt
from supervisor.cells import records
from supervisor.cells.records import (
    VERSION,
    Accepted,
    Batch,
    Claimed,
    Finished,
    Gain,
    Opened,
    decode_of_log,
    decode_of_request,
    encode,
    joined,
    life_of,
    name_of,
    split,
)
from supervisor.dispatch.durable import DurableKey
from supervisor.dispatch.request import GenerationRequest, plain
from tests.supervisor.dispatch.fakes import request


def opened(run: str = "a", version: int = VERSION) -> Opened:
    accepted = Accepted.of(request())
    return Opened(version, run, "me", "key", b"digest", 10, "scope", True, accepted)


def test_a_request_s_record_has_all_of_its_fields_but_its_reading() -> None:
    fields = set(GenerationRequest.__struct_fields__)
    assert set(Accepted.__struct_fields__) == fields - {"reading"}
    made = msgspec.structs.replace(request(n=3, max_tokens=7), reading=plain)
    assert Accepted.of(made).request(plain) == made


@pytest.mark.parametrize("prompt", [TextPrompt("a"), TokenPrompt((1, 2))])
def test_every_kind_of_prompt_comes_back(prompt: object) -> None:
    made = msgspec.structs.replace(request(), prompts=(prompt,))
    record = msgspec.structs.replace(opened(), accepted=Accepted.of(made))
    assert decode_of_request(encode(record)) == record


def test_names_tell_principals_and_keys_apart_and_not_what_they_are() -> None:
    names = {name_of(DurableKey(*pair)) for pair in [("a", "bc"), ("ab", "c"), ("a:b", "c")]}
    assert len(names) == 3
    assert name_of(DurableKey("a", "b")) == name_of(DurableKey("a", "b"))


@pytest.mark.parametrize("seed", range(20))
def test_records_come_back_from_messages_of_any_size(seed: int) -> None:
    chance = random.Random(seed)
    written = [chance.randbytes(chance.randrange(0, 300)) for _ in range(20)]
    messages = []
    for data in written:
        most = chance.randrange(2, 200)
        parts = split(data, most)
        assert all(len(part) <= most for part in parts)
        messages += parts
    assert list(joined(messages)) == written


def test_a_record_that_was_broken_off_is_left_out() -> None:
    broken = split(b"x" * 100, 30)[:-1]
    assert list(joined([*split(b"one", 30), *broken, *split(b"two", 30)])) == [b"one", b"two"]
    assert list(joined(broken)) == []


def test_a_record_whose_first_messages_are_forgotten_is_left_out() -> None:
    parts = split(b"x" * 100, 30)
    for n_left in range(1, len(parts)):
        assert list(joined([*parts[-n_left:], *split(b"two", 30)])) == [b"two"]


def test_a_record_of_any_size_is_not_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(records, "MAX_RECORD_BYTES", 50)
    with pytest.raises(LinkError):
        list(joined(split(b"x" * 100, 30)))


def test_garbage_is_a_link_error() -> None:
    for decode in (decode_of_log, decode_of_request):
        for data in (b"", b"\xff", encode(Batch(1, ()))[:-1] + b"\xc1"):
            with pytest.raises(LinkError):
                decode(data)


def test_a_life_belongs_to_the_last_claim() -> None:
    end = Finished(5.0, Gain("n", 0))
    assert life_of([]) is None
    assert life_of([Claimed("b")]) is None
    assert life_of([opened(version=VERSION + 1)]) is None
    life = life_of([opened(), Claimed("b"), Claimed("c")])
    assert life is not None
    assert (life.runs, life.finished) == (("a", "b", "c"), None)
    life = life_of([opened(), end])
    assert life is not None
    assert life.finished == end
