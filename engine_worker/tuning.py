"""Constants that measurements on one machine gave. Another machine is another table here.

Holds numbers and their units, and decides nothing. A constant that follows from a rule, from a
protocol or from how people read stays beside the code that uses it.
"""

from msgspec import Struct


class Pays(Struct, frozen=True, kw_only=True):
    """The numbers of rows of a step, and of threads, with which an optimisation pays."""

    least_rows: int = 1
    most_rows: int = 1 << 30
    least_threads: int = 1


class DeviceTuning(Struct, frozen=True, kw_only=True):
    """One row for each constant: its unit, its value on one H100, and the measurement.

    The row of an optimisation tells with which measured time it was compared.
    """

    machine: str = "one NVIDIA H100"
    layer_copy_s: float = 50e-6  # copying one layer of a KV stream to another stream
    prompt_token_s: float = 9e-6  # one prompt token, of any model
    prompt_parameter_s: float = 1.1e-14  # one prompt token, in addition, for each parameter
    placeholders: Pays = Pays(least_rows=8, most_rows=64)  # one row's time; a change of shape
    device_top_k: Pays = Pays(least_rows=16)  # the time of the same search on the host
    whole_replays_token_s: float = (
        6e-5  # one prompt token; a pass of a new shape takes as long as some 60
    )
    host_top_k: Pays = Pays(least_rows=16, least_threads=8)  # threads' waking; one numpy thread


H100 = DeviceTuning()
"""Used for every device. A slower device gains more from copies than this table says."""


class HostTuning(Struct, frozen=True, kw_only=True):
    """The same for computing on a CPU."""

    machine: str = "two cores of an AMD EPYC, 16 of an Intel Xeon"
    copied_bytes_per_s: float = 6e9  # a KV stream to another one; on the first machine
    operations_per_s: float = 4e10  # of one thread in a prompt, two for each parameter; on both


HOST = HostTuning()
