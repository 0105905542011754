"""A coverage-guided fuzzer (atheris) over what reads bytes from outside.

    pip install atheris
    python -m tests.fuzz.guided TARGET -runs=1000000 -max_len=4096 [FOLDER OF EXAMPLES]

Ends with the input that made a target raise anything but its own errors. libFuzzer's options follow
the target. Not a part of the suite: atheris has to be installed by hand.
"""

import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import atheris

with atheris.instrument_imports(include=["gpufc", "engine_worker", "supervisor"]):
    import msgspec

    from engine_worker.model_file.gguf_reader import HeaderReader
    from gpufc import wire
    from gpufc.errors import LinkError, ModelLoadError
    from gpufc.protocol import FinishReason
    from supervisor.access.hosts import Hosts
    from supervisor.access.networks import Networks
    from supervisor.access.origin import is_own
    from supervisor.access.sessions import Sessions
    from supervisor.answers import parsers
    from supervisor.answers.parsers.family import Setup
    from supervisor.cluster import wire as cluster_wire
    from supervisor.fabric.codec import ProtocolError, decode_frame
    from supervisor.http.anthropic.fields import MessagesBody
    from supervisor.http.edge.values import decode
    from supervisor.http.generation.chat import ChatFields
    from supervisor.http.ollama.chat import ChatBody
    from supervisor.http.openai.completions import CompletionBody
    from supervisor.http.responses.fields import ResponsesFields

BODIES: tuple[Any, ...] = (ChatFields, CompletionBody, MessagesBody, ChatBody, ResponsesFields)
REFUSALS = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)
"""What the reading of a body turns into a 400."""

HOSTS = Hosts(("box",), ("*.example.org",))
NETWORKS = Networks(("10.0.0.0/8",), ("192.168.0.0/16",))
SESSIONS = Sessions(b"secret", lambda: 0.0)


def messages(data: bytes) -> None:
    """The link between front and worker."""
    for read in (wire.decode_to_worker, wire.decode_from_worker):
        with suppress(LinkError):
            read(data)


def hosts(data: bytes) -> None:
    """The connection between front and worker hosts."""
    with suppress(LinkError):
        _, payload = cluster_wire.split(data)
        for read in (cluster_wire.decode_from_host, cluster_wire.decode_to_host):
            with suppress(LinkError):
                read(payload)


def headers(data: bytes) -> None:
    """The header of a model file."""
    with suppress(ModelLoadError):
        HeaderReader(data, Path("fuzzed")).contents()  # type: ignore[arg-type]


def bodies(data: bytes) -> None:
    """The bodies of requests, in all dialects."""
    for kind in BODIES:
        with suppress(*REFUSALS):
            decode(data, kind)


def frames(data: bytes) -> None:
    """The frames of a network's control server."""
    with suppress(ProtocolError):
        decode_frame(data)


def access(data: bytes) -> None:
    """What decides access: cookies, hosts, forwarded addresses, origins."""
    text = data.decode("latin-1")
    if SESSIONS.read(text) is not None:
        raise AssertionError("a forged session")
    HOSTS.allows(text)
    NETWORKS.allows(NETWORKS.client("192.168.1.1", [text]))
    is_own({"Origin": text, "Host": "box"})


def answers(data: bytes) -> None:
    """The parsers of models' answers: all families, cut at every place that the input names."""
    if len(data) < 2:
        return
    family = parsers.FAMILIES[data[0] % len(parsers.FAMILIES)]
    text, step = data[2:].decode("utf-8", "replace"), 1 + data[1] % 16
    parser = family.new_parser(Setup(True, {}, False))()
    for at in range(0, len(text), step):
        parser.feed(text[at : at + step])
    parser.end(FinishReason.STOP)


TARGETS: dict[str, Callable[[bytes], None]] = {
    one.__name__: one for one in (messages, hosts, headers, bodies, frames, access, answers)
}


def main() -> None:
    target = TARGETS[sys.argv.pop(1)]
    atheris.Setup(sys.argv, target)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
