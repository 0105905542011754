"""How the engine works with a backend, decided once from the backend's facts.

`profile_of` is the only reader of `unified`, `can_cut`, `asynchronous`, `computes_beside` and
`wholly_on_device` outside the modules that make these facts. A new kind of device is a new branch
here.
"""

from enum import StrEnum

from msgspec import Struct

from engine_worker.tuning import H100, HOST, DeviceTuning, HostTuning
from gpufc.facts import ModelFacts


class Shape(StrEnum):
    """The passes that the backend computes fast; `scheduling.policies` maps each kind to its
    `StepShape`."""

    MIXED = "mixed"
    """Prompts and next tokens in any mixture: one KV cache, or a CPU."""
    EQUAL = "equal"
    """Equally many tokens of each sequence: a device with a KV stream for each sequence."""
    FIXED = "fixed"
    """The same, and again and again of one shape: a device that has all layers as well."""


class Drafting(StrEnum):
    """The drafts that the backend can verify; `speculation.policies` maps each kind to the policy
    that decides when they pay."""

    NONE = "none"
    """None: the state cannot be cut."""
    ANY_LENGTH = "any_length"
    """Any: each further token of a step costs time, whatever the other steps had."""
    ONE_LENGTH = "one_length"
    """All of one length for many steps: the device captures a graph for each shape."""


class Profile(Struct, frozen=True, kw_only=True):
    """The decisions that follow from a backend's facts.

    `n_slots` KV slots: with `consecutive`, slots that run must have consecutive numbers to be
    computed in one pass, and a copy moves a whole KV stream at most; a prefix of fewer than
    `least_copied` tokens is then computed again. With `cuts_prefixes`, cells can be forgotten from
    any position on. With `one_a_pass`, a pass must have tokens of one sequence only. With
    `overlaps`, passes are computed while the engine thread does something else, and with
    `on_device` by a device.
    `prompt_token_s` is an estimate of the seconds of one prompt token; 0 where nothing is known.
    """

    shape: Shape
    drafting: Drafting
    n_slots: int
    consecutive: bool
    cuts_prefixes: bool
    one_a_pass: bool = False
    least_copied: int
    overlaps: bool
    on_device: bool
    prompt_token_s: float
    tuning: DeviceTuning

    @property
    def steps_ahead(self) -> bool:
        """Whether a step that can be foreseen is begun before it is planned."""
        return self.shape is Shape.FIXED or (self.overlaps and not self.on_device)


def profile_of(facts: ModelFacts, tuning: DeviceTuning = H100) -> Profile:
    """The profile of a model as it was loaded."""
    in_streams = not facts.unified
    return Profile(
        shape=_shape(facts),
        drafting=_drafting(facts),
        n_slots=facts.n_sequences,
        consecutive=in_streams and facts.can_cut,
        cuts_prefixes=facts.can_cut,
        one_a_pass=facts.one_a_pass,
        least_copied=least_copied(facts, tuning),
        overlaps=facts.asynchronous or facts.computes_beside,
        on_device=facts.asynchronous,
        prompt_token_s=prompt_token_s(facts, tuning),
        tuning=tuning,
    )


def least_copied(facts: ModelFacts, tuning: DeviceTuning, host: HostTuning = HOST) -> int:
    """The shortest prefix, in tokens, that is copied faster than it is computed again. Between KV
    streams on the host a copy moves all cells of one, those in use or not."""
    token_s = prompt_token_s(facts, tuning, host)
    if facts.asynchronous:
        return round(facts.n_layers * tuning.layer_copy_s / token_s)
    stream_bytes = facts.kv_cells // facts.n_sequences * facts.cell_bytes
    return round(stream_bytes / host.copied_bytes_per_s / token_s) if token_s else 0


def prompt_token_s(facts: ModelFacts, tuning: DeviceTuning, host: HostTuning = HOST) -> float:
    """The seconds for one token of a prompt, in a pass with many; 0 where nothing is known."""
    if facts.asynchronous:
        return tuning.prompt_token_s + facts.n_params * tuning.prompt_parameter_s
    return 2 * facts.n_params / (facts.n_threads * host.operations_per_s)


def _shape(facts: ModelFacts) -> Shape:
    if facts.unified or not facts.asynchronous:
        return Shape.MIXED
    return Shape.FIXED if facts.wholly_on_device and facts.can_cut else Shape.EQUAL


def _drafting(facts: ModelFacts) -> Drafting:
    if not facts.can_cut:
        return Drafting.NONE
    return Drafting.ONE_LENGTH if facts.wholly_on_device else Drafting.ANY_LENGTH
