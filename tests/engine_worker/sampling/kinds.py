"""Parameters that need samplers beyond the plain chain, each kind by a name."""

from typing import Any

from gpufc.sampling import samplers_of

RARE: dict[str, dict[str, Any]] = {
    "mirostat 1": {"mirostat": 1, "mirostat_eta": 0.5},
    "mirostat 2": {"mirostat": 2, "mirostat_eta": 0.5},
    "xtc": {"xtc_probability": 0.5, "xtc_threshold": 0.05},
    "dynamic temperature": {"dynatemp_range": 0.5},
    "dry": {"dry_multiplier": 2.0, "dry_allowed_length": 1},
    "dry, greedy": {"dry_multiplier": 2.0, "temperature": 0.0},
    "min_keep": {"min_keep": 3, "top_p": 0.1},
    "another order": {"samplers": samplers_of("tkxme"), "repeat_penalty": 1.5},
    "all of them": {
        "dry_multiplier": 1.0,
        "xtc_probability": 0.9,
        "dynatemp_range": 0.3,
        "min_keep": 2,
        "samplers": samplers_of("sdktxpe"),
        "presence_penalty": 0.5,
        "top_n_sigma": 2.0,
    },
}
