"""The samplers by name, and the order in which a request's parameters take them. Pure."""

from collections.abc import Callable, Iterable, Sequence
from itertools import pairwise, takewhile

import numpy as np
from msgspec import Struct

from engine_worker.sampling.bias import LogitBias
from engine_worker.sampling.chain import GREEDY, LEAST_TEMPERATURE, OFF, Steps
from engine_worker.sampling.samplers import standard
from engine_worker.sampling.samplers.dry import Dry
from engine_worker.sampling.samplers.mirostat import mirostat
from engine_worker.sampling.samplers.penalties import penalties
from engine_worker.sampling.samplers.port import Edit, Model, Moment, Remembering, Row, Stage
from engine_worker.sampling.samplers.standard import Shared, Steady
from engine_worker.sampling.samplers.temperature import temperature
from engine_worker.sampling.samplers.xtc import Xtc
from gpufc.sampling import SamplerName, SamplingParams

Part = Shared | Edit | Stage

MAKERS: dict[SamplerName, Callable[[SamplingParams, Model], Part | None]] = {
    SamplerName.PENALTIES: penalties,
    SamplerName.DRY: Dry.of,
    SamplerName.TOP_N_SIGMA: standard.top_n_sigma,
    SamplerName.TOP_K: standard.top_k,
    SamplerName.TYPICAL_P: standard.typical_p,
    SamplerName.TOP_P: standard.top_p,
    SamplerName.MIN_P: standard.min_p,
    SamplerName.XTC: Xtc.of,
    SamplerName.TEMPERATURE: temperature,
}
"""Each returns the sampler that the parameters ask for; None if it is off."""


class Arrangement(Struct, frozen=True):
    """A request's samplers. `penalties` come first, directly after the biases.

    `steps` are all the rest where the chain can take them; else the `edits` change the logits of
    the whole row, `head` finds its candidates, and `stages` work on these. `memory` is the last
    stage, if that has a state.
    """

    penalties: LogitBias | None
    steps: Steps | None
    edits: tuple[Edit, ...] = ()
    head: Steady = Steady()
    stages: tuple[Stage, ...] = ()
    memory: Remembering | None = None


def arranged(params: SamplingParams, model: Model) -> Arrangement:
    """The samplers of these parameters, in their order."""
    is_greedy = params.temperature == 0.0
    memory = None if is_greedy else mirostat(params, model)
    min_keep = params.min_keep if params.min_keep > 1 and not is_greedy else 0
    parts = _parts(params, model)
    first = parts[0] if parts and isinstance(parts[0], LogitBias) else None
    parts = parts[1:] if first else parts
    shared = [part for part in parts if isinstance(part, Shared)]
    is_plain = len(shared) == len(parts) and _is_rising(shared) and not min_keep
    if is_plain and memory is None:
        return Arrangement(first, _plain(shared))
    edits = tuple(part for part in takewhile(_is_edit, parts) if isinstance(part, Edit))
    stages = _stages(parts[len(edits) :], min_keep)
    first_stage = stages[0] if stages else None
    head = first_stage if isinstance(first_stage, Steady) else Steady()
    stages = [stage for stage in stages if stage is not head]
    if memory is not None:
        stages.append(memory)
    return Arrangement(first, None, edits, head, tuple(stages), memory)


def _parts(params: SamplingParams, model: Model) -> list[Part]:
    if params.mirostat:  # llama.cpp: it takes the place of all but the temperature
        return _not_off(standard.plain_temperature(params))
    return _not_off(*(MAKERS[name](params, model) for name in params.samplers))


def _not_off(*parts: Part | None) -> list[Part]:
    return [part for part in parts if part is not None]


def _is_edit(part: Part) -> bool:
    return isinstance(part, Edit)


def _is_rising(shared: Sequence[Shared]) -> bool:
    """Whether the chain takes these steps in this order, each of them once."""
    places = [Steps._fields.index(step.step) for step in shared]
    return all(before < after for before, after in pairwise(places))


def _plain(shared: Sequence[Shared]) -> Steps:
    steps = OFF._replace(**{step.step: step.value for step in shared})
    if steps.temperature == 0.0 or steps.top_k == 1:
        return GREEDY
    return steps._replace(temperature=max(steps.temperature, LEAST_TEMPERATURE))


def _stages(parts: Iterable[Part], min_keep: int) -> list[Stage]:
    """The stages of these parts: steps that the chain can take together are one."""
    stages: list[Stage] = []
    together: list[Shared] = []

    def close() -> None:
        if together:
            steps = OFF._replace(**{step.step: step.value for step in together})
            stages.append(Steady(steps, min_keep))
            together.clear()

    for part in parts:
        if isinstance(part, Shared) and part.value == 0.0 and part.step == "temperature":
            close()
            stages.append(Steady(GREEDY))
        elif isinstance(part, Shared):
            if not _is_rising([*together, part]):
                close()
            together.append(part)
        else:
            close()
            stages.append(part if isinstance(part, Stage) else Edited(part))
    close()
    return stages


class Edited(Struct, frozen=True):
    """An edit of the tokens that are left of a row. Implements `Stage`."""

    edit: Edit

    def apply(self, row: Row, moment: Moment) -> Row:
        plan = self.edit.plan(moment.history, moment.n_history).among(row.ids)
        changed, logits = plan.on(row.logits.astype(np.float32)), row.logits.copy()
        logits[changed.places] = changed.after
        return row.with_logits(logits)
