"""Sampling parameters of one sequence, with llama.cpp's defaults, and their bounds.

`SamplingFields` are the parameters that a request or a model's configuration gives, under
llama-server's names. `SamplingParams` are those of a sequence, all of them known. A parameter
stands in both, and nowhere else between a client and its sampler.

The bounds are checked twice. The front answers 400 with the field's name. The worker's decoder
refuses the message, so that no other value reaches the engine even if the front is wrong.
"""

from collections.abc import Iterable
from enum import StrEnum
from typing import Annotated, Any

import msgspec
from msgspec import Meta, Struct, structs

Temperature = Annotated[float, Meta(ge=0.0, le=100.0)]
Fraction = Annotated[float, Meta(ge=0.0, le=1.0)]
Penalty = Annotated[float, Meta(ge=-2.0, le=2.0)]
Repeat = Annotated[float, Meta(gt=0.0, le=10.0)]
Factor = Annotated[float, Meta(ge=0.0, le=100.0)]
Count = Annotated[int, Meta(ge=0, le=1_000_000)]
Window = Annotated[int, Meta(ge=-1, le=1_000_000)]
Mirostat = Annotated[int, Meta(ge=0, le=2)]
Breaker = Annotated[str, Meta(max_length=256)]
Breakers = Annotated[list[Breaker], Meta(max_length=32)]
BreakersText = Annotated[str, Meta(max_length=8192)]
"""The same list as JSON text, with or without its brackets, as web interfaces have it."""

MAX_SAMPLERS = 32
"""Entries of `samplers`."""


class SamplerName(StrEnum):
    """llama.cpp's samplers that have a place in `samplers`."""

    PENALTIES = "penalties"
    DRY = "dry"
    TOP_N_SIGMA = "top_n_sigma"
    TOP_K = "top_k"
    TYPICAL_P = "typ_p"
    TOP_P = "top_p"
    MIN_P = "min_p"
    XTC = "xtc"
    TEMPERATURE = "temperature"


SAMPLERS = tuple(SamplerName)
"""llama.cpp's order."""

_LETTERS: dict[str, SamplerName | None] = {
    **dict(zip("edskypmxt", SAMPLERS, strict=True)),
    "a": None,
}
_FURTHER_NAMES: dict[str, SamplerName | None] = {
    "nucleus": SamplerName.TOP_P,
    "temp": SamplerName.TEMPERATURE,
    "typ": SamplerName.TYPICAL_P,
    "typical_p": SamplerName.TYPICAL_P,
    # clients list these by default; their own parameters are refused where they do something
    "adaptive_p": None,
    "tfs_z": None,
}


class WrongValue(ValueError):
    """A value of `field` that its type alone does not refuse."""

    def __init__(self, field: str, says: str) -> None:
        super().__init__(says)
        self.field = field


def samplers_of(given: list[str] | str) -> tuple[SamplerName, ...]:
    """An order of samplers from a list of names, or from a text with a letter for each.

    Names are read as llama.cpp reads them: in any case, with `_`, `-` or nothing between words.
    Raises `WrongValue` for an unknown one.
    """
    if len(given) > MAX_SAMPLERS:
        raise WrongValue("samplers", f"at most {MAX_SAMPLERS} samplers")
    known = _LETTERS if isinstance(given, str) else _NAMES
    words = list(given) if isinstance(given, str) else [name.lower() for name in given]
    if "typ_p" in words:  # clients list its old name as well
        words = [word for word in words if word != "typical_p"]
    for word in words:
        if word not in known:
            wanted = "".join(_LETTERS) if isinstance(given, str) else ", ".join(SAMPLERS)
            raise WrongValue("samplers", f"{word[:64]!r} is no sampler; they are {wanted}")
    return tuple(sampler for word in words if (sampler := known[word]) is not None)


def breakers_of(given: list[str] | str) -> tuple[str, ...]:
    """DRY's breakers from a list, or from the same list as JSON text. Raises `WrongValue`."""
    if not isinstance(given, str):
        return tuple(given)
    text = given.strip()
    try:
        written = text if text.startswith("[") else f"[{text}]"
        return tuple(msgspec.json.decode(written, type=Breakers))
    except msgspec.MsgspecError:
        raise WrongValue(
            "dry_sequence_breakers", "a list of at most 32 texts, which may be JSON text"
        ) from None


def _spellings() -> dict[str, SamplerName | None]:
    names = {**{sampler.value: sampler for sampler in SAMPLERS}, **_FURTHER_NAMES}
    return {
        name.replace("_", between): sampler
        for name, sampler in names.items()
        for between in ("_", "-", "")
    }


_NAMES = _spellings()


class SamplingFields(Struct, kw_only=True):
    """The sampling parameters that are given, under llama-server's names. None: not given."""

    temperature: Temperature | None = None
    top_k: Window | None = None
    top_p: Fraction | None = None
    min_p: Fraction | None = None
    typical_p: Fraction | None = None
    repeat_penalty: Repeat | None = None
    repeat_last_n: Window | None = None
    frequency_penalty: Penalty | None = None
    presence_penalty: Penalty | None = None
    ignore_eos: bool | None = None
    top_n_sigma: Annotated[float, Meta(ge=-1.0, le=100.0)] | None = None
    min_keep: Count | None = None
    samplers: list[str] | str | None = None
    dynatemp_range: Factor | None = None
    dynatemp_exponent: Factor | None = None
    xtc_probability: Fraction | None = None
    xtc_threshold: Fraction | None = None
    dry_multiplier: Factor | None = None
    dry_base: Factor | None = None
    dry_allowed_length: Count | None = None
    dry_penalty_last_n: Window | None = None
    dry_sequence_breakers: Breakers | BreakersText | None = None
    mirostat: Mirostat | None = None
    mirostat_tau: Factor | None = None
    mirostat_eta: Factor | None = None


class SamplingDefaults(
    SamplingFields, kw_only=True, forbid_unknown_fields=True, omit_defaults=True
):
    """A model's configured defaults, which a request's own values go before."""

    def __post_init__(self) -> None:
        if self.samplers is not None:
            samplers_of(self.samplers)
        if self.dry_sequence_breakers is not None:
            breakers_of(self.dry_sequence_breakers)


class SamplingParams(Struct, frozen=True, array_like=True):
    """Parameters of one sequence. Fixed when the request is accepted; a replay uses the same ones.

    `temperature` 0 is greedy. `top_n_sigma` 0, `top_k` 0, `top_p` 1, `min_p` 0, `typical_p` 1,
    `dynatemp_range` 0, `xtc_probability` 0, `dry_multiplier` 0, `mirostat` 0 and neutral penalties
    switch their step off. `repeat_last_n` and `dry_penalty_last_n` count prompt tokens too; -1
    means the whole context. `logit_bias` holds (token id, bias) pairs; -100 or less bans the token.
    """

    seed: Annotated[int, Meta(ge=0, le=2**63 - 1)]
    temperature: Temperature = 0.8
    top_k: Count = 40
    top_p: Fraction = 0.95
    min_p: Fraction = 0.05
    typical_p: Fraction = 1.0
    repeat_penalty: Repeat = 1.0
    repeat_last_n: Window = 64
    frequency_penalty: Penalty = 0.0
    presence_penalty: Penalty = 0.0
    logit_bias: Annotated[tuple[tuple[int, float], ...], Meta(max_length=1000)] = ()
    ignore_eos: bool = False
    top_n_sigma: Factor = 0.0
    min_keep: Count = 0
    samplers: Annotated[tuple[SamplerName, ...], Meta(max_length=MAX_SAMPLERS)] = SAMPLERS
    dynatemp_range: Factor = 0.0
    dynatemp_exponent: Factor = 1.0
    xtc_probability: Fraction = 0.0
    xtc_threshold: Fraction = 0.1
    dry_multiplier: Factor = 0.0
    dry_base: Factor = 1.75
    dry_allowed_length: Count = 2
    dry_penalty_last_n: Window = 64
    dry_sequence_breakers: Annotated[tuple[Breaker, ...], Meta(max_length=32)] = (
        *("\n", ":", '"', "*"),
    )
    mirostat: Mirostat = 0
    mirostat_tau: Factor = 5.0
    mirostat_eta: Factor = 0.1

    @classmethod
    def of(cls, seed: int, given: Iterable[SamplingFields], **others: Any) -> "SamplingParams":
        """The parameters that are `given`: by the first one that has a value, else the default.

        Raises `WrongValue`.
        """
        found: dict[str, Any] = {}
        for fields in given:
            for name in _GIVEN:
                value = getattr(fields, name)
                if value is not None:
                    found.setdefault(name, value)
        for name, read in _READ.items():
            if name in found:
                found[name] = read(found[name])
        if found.get("dry_base", 1.0) < 1.0:
            del found["dry_base"]  # llama-server: the default
        return cls(seed, **found, **others)


_GIVEN = tuple(field.name for field in structs.fields(SamplingFields))

_READ: dict[str, Any] = {
    "top_k": lambda k: max(0, k),  # llama-server: any value below 1 is off
    "top_n_sigma": lambda n: max(0.0, n),
    "samplers": samplers_of,
    "dry_sequence_breakers": breakers_of,
}
"""How a given value is read where it is not the parameter itself."""
