"""How the engine works with a backend, decided once from the backend's facts.

`profile_of` is the only reader of `unified`, `can_cut`, `asynchronous` and `wholly_on_device`
outside the modules that make these facts. A new kind of device is a new branch here.
"""

from enum import StrEnum

from msgspec import Struct

from engine_worker.tuning import H100, DeviceTuning
from gpufc.facts import ModelFacts


class Shape(StrEnum):
    """How the passes of a step are formed. `scheduling.policies` maps each to its `StepShape`."""

    MIXED = "mixed"
    """Prompts and next tokens in any mixture: for one KV cache, and for a CPU."""
    EQUAL = "equal"
    """Prompts in chunks of equal length: for a device with a KV stream for each sequence."""
    FIXED = "fixed"
    """Equal chunks, then a last pass of one shape: for a device that has all layers as well."""


class Drafting(StrEnum):
    """When drafts are decided on; `speculator_for` maps each mode to its policy."""

    NONE = "none"
    PER_STEP = "per_step"
    """For every step anew: on processors where each further token of a step costs time."""
    PER_STRETCH = "per_stretch"
    """For a stretch of text, all of one length: on devices that capture a graph per shape."""


class Profile(Struct, frozen=True, kw_only=True):
    """The decisions that follow from a backend's facts.

    `n_slots` KV slots: with `consecutive`, slots that run must have consecutive numbers to be
    computed in one pass, and a copy moves a whole KV stream; a prefix of fewer than `least_copied`
    tokens is then computed again. With `cuts_prefixes`, cells can be forgotten from any position
    on. With `overlaps`, a device computes while the engine thread does something else.
    """

    shape: Shape
    drafting: Drafting
    n_slots: int
    consecutive: bool
    cuts_prefixes: bool
    least_copied: int
    overlaps: bool
    tuning: DeviceTuning


def profile_of(facts: ModelFacts, tuning: DeviceTuning = H100) -> Profile:
    """The profile of a model as it was loaded."""
    in_streams = not facts.unified
    return Profile(
        shape=_shape(facts),
        drafting=_drafting(facts),
        n_slots=facts.n_sequences,
        consecutive=in_streams and facts.can_cut,
        cuts_prefixes=facts.can_cut,
        least_copied=least_copied(facts, tuning) if facts.asynchronous else 0,
        overlaps=facts.asynchronous,
        tuning=tuning,
    )


def least_copied(facts: ModelFacts, tuning: DeviceTuning) -> int:
    """The shortest prefix, in tokens, that a device copies faster than it computes it again."""
    token_s = tuning.prompt_token_s + facts.n_params * tuning.prompt_parameter_s
    return round(facts.n_layers * tuning.layer_copy_s / token_s)


def _shape(facts: ModelFacts) -> Shape:
    if facts.unified or not facts.asynchronous:
        return Shape.MIXED
    return Shape.FIXED if facts.wholly_on_device and facts.can_cut else Shape.EQUAL


def _drafting(facts: ModelFacts) -> Drafting:
    if not facts.can_cut:
        return Drafting.NONE
    return Drafting.PER_STRETCH if facts.wholly_on_device else Drafting.PER_STEP
