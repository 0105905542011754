"""Constants that measurements on one machine gave. Another machine is another table here.

Holds numbers and their units, and decides nothing. A constant that follows from a rule, from a
protocol or from how people read stays beside the code that uses it.
"""

from msgspec import Struct


class DeviceTuning(Struct, frozen=True, kw_only=True):
    """One row for each constant: its unit, its value on one H100, and the measurement."""

    machine: str = "one NVIDIA H100"
    layer_copy_s: float = 50e-6  # copying one layer of a KV stream to another stream
    prompt_token_s: float = 9e-6  # one prompt token, of any model
    prompt_parameter_s: float = 1.1e-14  # one prompt token, in addition, for each parameter
    least_with_placeholders: int = 8  # running sequences from which on a row more costs no time
    most_placeholder_rows: int = 64  # rows that take as long as one change of a pass's shape
    least_device_top_k_rows: int = 16  # rows that a device searches in less time than its host
    least_host_top_k_rows: int = 16  # rows that take longer to search than threads take to wake
    least_host_top_k_threads: int = 8  # threads of ggml's top-k that outrun one of numpy


H100 = DeviceTuning()
"""Used for every device. A slower device gains more from copies than this table says."""
