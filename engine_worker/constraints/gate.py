"""Holds sequences back until all is made ready that takes long: the engine never waits for it.

That is a constraint's compilation, and whatever else a `Preparation` makes. A replay may reach a
worker that has not compiled its constraint yet.
"""

import logging
import threading
from collections import deque
from collections.abc import Callable, Sequence
from typing import Protocol

from engine_worker.constraints.compiler import Compiler
from gpufc.errors import RequestError
from gpufc.ids import Epoch, RequestNo
from gpufc.protocol import Finished, FinishReason, FromWorker, Generate, Refused

logger = logging.getLogger(__name__)

WARM_UP_S = 5.0
"""How often a worker without a vocabulary and a constraint to compile looks whether it is idle, and
then reads the vocabulary. That holds the interpreter's lock, so that running streams would wait for
it. A worker that no request waits for has read it before it is ready."""


class Preparation(Protocol):
    """Something that a sequence needs before the engine takes it."""

    def is_ready(self, spec: Generate) -> bool: ...
    def make_ready(self, spec: Generate) -> None:
        """Make it, however long it takes. Raises `RequestError` if the sequence is refused."""
        ...


class Gate:
    """One thread runs `run`; the channel's thread calls the other methods.

    A held sequence is passed on, refused or cancelled, exactly once; after `drop_all` it is not.
    """

    def __init__(
        self,
        compiler: Compiler,
        pass_on: Callable[[Generate], None],
        send: Callable[[FromWorker], None],
        is_idle: Callable[[], bool] = lambda: True,
        further: Sequence[Preparation] = (),
    ) -> None:
        self._compiler, self._is_idle = compiler, is_idle
        self._pass_on, self._send = pass_on, send
        self._further = further
        self._changed = threading.Condition()
        self._held: deque[Generate] = deque()

    def run(self) -> None:
        """Compile for ever. Reads the vocabulary for the first constraint, or ahead of it as soon
        as the engine is idle."""
        if not self._compiler.has_vocabulary:
            self._await_need()
        try:
            self._compiler.warm_up()
        except RequestError as err:
            logger.warning("constraints_not_warmed_up reason=%s", err)
        while True:
            with self._changed:
                while not self._held:
                    self._changed.wait()
                spec = self._held[0]
            refusal = self._made_ready(spec)
            with self._changed:
                if not self._held or self._held[0] is not spec:
                    continue  # cancelled meanwhile
                self._held.popleft()
                if refusal is None:
                    self._pass_on(spec)
                else:
                    self._send(refusal)

    def _await_need(self) -> None:
        """Wait for a held sequence, or until the engine is idle."""
        with self._changed:
            while not self._changed.wait_for(lambda: bool(self._held), WARM_UP_S):
                if self._is_idle():
                    return

    def admit(self, spec: Generate) -> None:
        """Pass a sequence on, now or once it is ready."""
        if self._is_compiled(spec) and all(one.is_ready(spec) for one in self._further):
            self._pass_on(spec)
            return
        with self._changed:
            self._held.append(spec)
            self._changed.notify()

    def cancel(self, epoch: Epoch, request: RequestNo) -> bool:
        """Cancel a held sequence. False if it is not held."""
        with self._changed:
            found = [s for s in self._held if s.request == request and s.epoch == epoch]
            for spec in found:
                self._held.remove(spec)
        if found:
            self._send(Finished(epoch, request, FinishReason.CANCELLED))
        return bool(found)

    def drop_all(self) -> None:
        """Another front has taken over: it does not know the held sequences."""
        with self._changed:
            self._held.clear()

    def _is_compiled(self, spec: Generate) -> bool:
        return spec.constraint is None or self._compiler.is_compiled(spec.constraint)

    def _made_ready(self, spec: Generate) -> Refused | None:
        try:
            if spec.constraint is not None:
                self._compiler.compile(spec.constraint)
            for preparation in self._further:
                preparation.make_ready(spec)
        except RequestError as err:
            return Refused(spec.epoch, spec.request, err.code, err.message, err.param)
        return None
