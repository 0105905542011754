"""The faults of a fake engine, and the script of its loading and timing.

The script (`ModelConfig.fake_script`) is a comma separated list:

    step_ms=5            each decode takes that long, and
    prefill_us=10        that much longer for each token without logits
    load_s=1.5           loading takes that long, with progress
    load_fail=1          loading raises `ModelLoadError`
    load_fault=segv      loading has that fault, see `FAULTS`; exit3 is exit with the code 3
    load_short=1000      loading lacks that many bytes of memory
    fail_once_file=PATH  the three above happen only if PATH does not exist, and create it
    nan=1                all logits are NaN
    hold_mb=64           the loaded model takes so much memory
    leak_kb=64           each decode keeps that much more memory
    window=32            tokens attend to so many before them, and each token that is computed in
                         one cache for all takes the cell of another slot that its window has passed
    embeds=1             the model only embeds texts, or
    ranks=1              it only ranks documents
    uncut=1              a slot is copied whole or not at all, as the state of a recurrent model

A file `MODEL.script` next to the model's file adds to it, for that model only. The model's file
need not exist.
"""

import ctypes
import os
import re
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import msgspec
from msgspec import Struct

from engine_worker.backend.fake.vocabulary import FAULTS, FREEZE, MISSPEAKS, NAN
from engine_worker.backend.port import LoadProgress
from gpufc.config import ModelConfig
from gpufc.errors import ConfigError, DecodeFailed, LinkError, MemoryShort, ModelLoadError

Commit = Callable[[str, int], None]
"""Commits a fault, given its exit code: dies, hangs, raises, or misspeaks and returns. `NAN` is not
among these faults: it is in the logits."""

SENT_S = 60.0
"""How long a process that is about to freeze waits for its messages to leave."""

HOG_BLOCK_BYTES = 16 << 20
HOG_LIMIT_BYTES = 2 << 30


class Link(Protocol):
    """The scripted engine's way to its front."""

    def misspeak(self, fault: str) -> None:
        """Send one of `MISSPEAKS`. Raises `LinkError` without a link."""
        ...

    def wait_sent(self, timeout_s: float) -> None:
        """Wait until all messages so far have left, at most for `timeout_s`."""
        ...


class _NoLink:
    """Implements `Link` for an engine outside a worker."""

    def misspeak(self, fault: str) -> None:
        raise LinkError(f"no link on which to send {fault}")

    def wait_sent(self, timeout_s: float) -> None:
        pass


NO_LINK = _NoLink()


class Script(Struct, frozen=True, forbid_unknown_fields=True):
    """`ModelConfig.fake_script`, parsed. See the module."""

    step_ms: float = 0.0
    prefill_us: float = 0.0
    load_s: float = 0.0
    load_fail: int = 0
    load_fault: str = ""
    load_short: int = 0
    fail_once_file: str = ""
    nan: int = 0
    hold_mb: int = 0
    leak_kb: int = 0
    window: int = 0
    uncut: int = 0
    embeds: int = 0
    ranks: int = 0


def script_of(config: ModelConfig) -> Script:
    """The configured script together with the model's own. Raises `ConfigError`."""
    own = Path(f"{config.model_path}.script")
    text = own.read_text() if config.model_path and own.is_file() else ""
    return parse_script(f"{config.fake_script},{text}")


def parse_script(text: str) -> Script:
    """Raises `ConfigError` for an unknown key or a bad value."""
    pairs: dict[str, Any] = {}
    for entry in filter(None, (part.strip() for part in text.split(","))):
        name, equals, value = entry.partition("=")
        if not equals:
            raise ConfigError(f"bad entry {entry!r} in fake_script: it must be key=value")
        pairs[name.strip()] = value.strip()
    try:
        script = msgspec.convert(pairs, Script, strict=False)
    except msgspec.ValidationError as err:
        raise ConfigError(f"bad fake_script: {err}") from None
    if min(script.step_ms, script.prefill_us, script.load_s) < 0:
        raise ConfigError("bad fake_script: times must not be negative")
    fault, _ = _with_code(script.load_fault)
    if script.load_fault and (fault not in FAULTS or fault == NAN):
        raise ConfigError(f"bad fake_script: load_fault={script.load_fault} is no fault")
    return script


def play_load(script: Script, on_progress: LoadProgress, commit: Commit) -> None:
    """Play the script's loading: return, raise `ModelLoadError`, never return, or die."""
    n_steps = max(1, min(20, int(script.load_s / 0.05)))
    for step in range(n_steps):
        on_progress(step / n_steps)
        time.sleep(script.load_s / n_steps)
    misbehaves = bool(script.load_fail or script.load_fault or script.load_short)
    if misbehaves and first_time(script.fail_once_file):
        if script.load_fail:
            raise ModelLoadError("the fake model does not load, as its script says")
        if script.load_short:
            raise MemoryShort(
                "not enough memory, as its script says", needed_bytes=script.load_short
            )
        commit(*_with_code(script.load_fault))
    on_progress(1.0)


_TOKENIZING = re.compile(r"\[\[tokenize:(?P<fault>[a-z]+)(?: once=(?P<once>[^\]\s]+))?\]\]")


def tokenizing(text: str) -> None:
    """Have the fault of `[[tokenize:FAULT]]` or `[[tokenize:FAULT once=PATH]]` in the text."""
    match = _TOKENIZING.search(text)
    if match is not None and match["fault"] in _DEEDS and first_time(match["once"] or ""):
        _DEEDS[match["fault"]](1)


def first_time(marker: str) -> bool:
    """Whether this is the first call with `marker` by any process; always, with no marker."""
    if not marker:
        return True
    try:
        os.close(os.open(marker, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o600))
    except FileExistsError:
        return False
    return True


def committer(link: Link) -> Commit:
    """The function that commits faults, given the link."""

    def commit(fault: str, code: int) -> None:
        if fault in MISSPEAKS:
            link.misspeak(fault)  # the engine goes on, unaware of it
            return
        if fault == FREEZE:  # the thread that sends stands still as well
            link.wait_sent(SENT_S)
        _DEEDS[fault](code)
        raise AssertionError(f"the fault {fault} returned")

    return commit


def _with_code(text: str) -> tuple[str, int]:
    """`exit3` is the fault `exit` with the code 3. No other fault has a code."""
    name = text.rstrip("0123456789")
    return name, int(text[len(name) :] or 1)


def _die_of(signum: int) -> Callable[[int], None]:
    def die(_: int) -> None:
        # in this thread, like a fault of the C library; faulthandler writes its stack
        signal.raise_signal(signum)
        time.sleep(60)

    return die


def _hang(_: int) -> None:
    """Never return, without the GIL: heartbeats go on."""
    while True:
        time.sleep(0.05)


def _freeze(_: int) -> None:
    """Never return, with the GIL: no thread of this process runs any more."""
    sleep = ctypes.PyDLL(None).sleep
    while True:
        sleep(3600)


def _hog(_: int) -> None:
    """Take memory until the kernel kills the process. Without a memory limit, stop at
    `HOG_LIMIT_BYTES`, so that a test does not take the machine's memory."""
    held = []
    for _block in range(HOG_LIMIT_BYTES // HOG_BLOCK_BYTES):
        held.append(b"x" * HOG_BLOCK_BYTES)
    raise MemoryError(f"took {len(held)} blocks, and the process was not killed")


def _raise(_: int) -> None:
    raise RuntimeError("an unexpected exception, as the prompt says")


def _decode_error(_: int) -> None:
    raise DecodeFailed("llama_decode returned -3, as the prompt says")


_DEEDS: dict[str, Callable[[int], None]] = {
    "segv": _die_of(signal.SIGSEGV),
    "abort": _die_of(signal.SIGABRT),
    "kill": _die_of(signal.SIGKILL),
    "exit": os._exit,
    "hang": _hang,
    FREEZE: _freeze,
    "hog": _hog,
    "raise": _raise,
    "decode_error": _decode_error,
}
