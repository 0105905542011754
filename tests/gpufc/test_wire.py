"""Messages survive the wire; whatever else arrives is a `LinkError` and nothing worse."""

import os
import threading

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpufc import wire
from gpufc.chat import ChatMessage, ChatPrompt, ToolCall
from gpufc.config import ModelConfig
from gpufc.errors import LinkError
from gpufc.ids import Epoch, RequestId, RequestNo, WorkerName
from gpufc.protocol import (
    Boot,
    Delta,
    FinishReason,
    Generate,
    Prepare,
    Started,
    Step,
    TextPrompt,
    TokenPrompt,
)
from gpufc.sampling import SamplingParams

GENERATE = Generate(
    Epoch(1),
    RequestNo(2),
    RequestId("a"),
    choice=3,
    prompt_tokens=(1, 2),
    sampling=SamplingParams(seed=4, logit_bias=((5, -100.0),)),
    tokens=(6,),
    stop=("x",),
)
CHAT = ChatPrompt(
    (
        ChatMessage("user", "hi"),
        ChatMessage("assistant", "", tool_calls=(ToolCall("c", "f", "{}"),)),
        ChatMessage("tool", "x", tool_call_id="c"),
    ),
    tools="[]",
)


@pytest.mark.parametrize(
    "message",
    [
        GENERATE,
        Prepare(Epoch(1), RequestNo(2), TextPrompt("héllo")),
        Prepare(Epoch(1), RequestNo(2), TokenPrompt((1, 2))),
        Prepare(Epoch(1), RequestNo(2), CHAT, reserve=5),
    ],
)
def test_a_message_to_the_worker_survives_the_wire(message: Generate | Prepare) -> None:
    assert wire.decode_to_worker(wire.encode(message)) == message


def test_a_step_survives_the_wire() -> None:
    step = Step(
        Epoch(1),
        7,
        (
            Delta(RequestNo(2), 0, (1,), "a"),
            Delta(RequestNo(3), 9, (), "", FinishReason.STOP),
        ),
        (Started(RequestNo(2), 16),),
        n_recomputed=3,
    )
    assert wire.decode_from_worker(wire.encode(step)) == step


def test_each_direction_refuses_the_other_directions_messages() -> None:
    with pytest.raises(LinkError):
        wire.decode_from_worker(wire.encode(GENERATE))


@pytest.mark.parametrize(
    "broken",
    [
        {"prompt_tokens": ()},
        {"choice": -1},
        {"max_tokens": -1},
        {"sampling": SamplingParams(seed=-1)},
        {"sampling": SamplingParams(seed=1, temperature=float("nan"))},
        {"sampling": SamplingParams(seed=1, repeat_penalty=0.0)},
        {"sampling": SamplingParams(seed=1, top_n_sigma=-1.0)},
        {"stop": ("x",) * 257},
    ],
)
def test_values_out_of_bounds_do_not_pass_the_decoder(broken: dict[str, object]) -> None:
    data = wire.encode(msgspec.structs.replace(GENERATE, **broken))
    with pytest.raises(LinkError):
        wire.decode_to_worker(data)


@given(st.binary(max_size=200))
def test_garbage_is_a_link_error(data: bytes) -> None:
    for decode in (wire.decode_from_worker, wire.decode_to_worker):
        try:
            decode(data)
        except LinkError:
            continue


@given(st.integers(0, 60), st.integers(0, 255))
def test_a_flipped_byte_is_another_valid_message_or_a_link_error(at: int, byte: int) -> None:
    data = bytearray(wire.encode(GENERATE))
    data[at % len(data)] = byte
    try:
        wire.decode_to_worker(bytes(data))
    except LinkError:
        return


def test_deep_nesting_is_a_link_error() -> None:
    with pytest.raises(LinkError):
        wire.decode_to_worker(b"\x91" * 200_000)


def test_an_oversize_message_is_refused_on_both_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    data = wire.encode(GENERATE)
    monkeypatch.setattr(wire, "MAX_MESSAGE_BYTES", len(data) - 1)
    with pytest.raises(LinkError, match="over the limit"):
        wire.encode(GENERATE)
    with pytest.raises(LinkError, match="over the limit"):
        wire.decode_to_worker(data)


BOOT = Boot(
    *(Epoch(1), WorkerName("default-0"), "ipc:///x", "secret", ModelConfig(), 10),
    within=("/models",),
    device_limit_bytes=4 << 30,
)


def test_the_boot_message_arrives_also_in_pieces() -> None:
    read, write = os.pipe()
    whole, inner = os.pipe()
    wire.write_boot(inner, BOOT)
    data = os.read(whole, 65536)

    def trickle() -> None:
        for byte in data:
            os.write(write, bytes([byte]))

    thread = threading.Thread(target=trickle)
    thread.start()
    assert wire.read_boot(read) == BOOT
    thread.join()
    for fd in (read, write, whole, inner):
        os.close(fd)


def test_a_pipe_that_ends_before_the_boot_message_is_no_boot() -> None:
    read, write = os.pipe()
    os.write(write, b"\0\0")
    os.close(write)
    assert wire.read_boot(read) is None
    os.close(read)


def test_a_path_that_is_not_utf8_is_a_link_error() -> None:
    bad = msgspec.structs.replace(BOOT, model=ModelConfig(model_path="bad\udcff.gguf"))
    with pytest.raises(LinkError, match="cannot be encoded"):
        wire.write_boot(-1, bad)


def test_the_token_is_not_in_what_a_log_would_print() -> None:
    assert "secret" not in repr(BOOT)
