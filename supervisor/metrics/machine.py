"""The series of the fleet, the devices and the host."""

from collections import Counter
from collections.abc import Callable, Iterator

from prometheus_client import Metric

from supervisor.devices.snapshot import Device, Host
from supervisor.fleet.exit_reason import Reason
from supervisor.fleet.model_state import ModelPhase
from supervisor.fleet.states import WorkerState
from supervisor.metrics.figures import Figures
from supervisor.metrics.series import counter, gauge

HOST_STATES = ("joined", "shunned", "drained", "lost", "away")

_DEVICE: tuple[tuple[str, str, Callable[[Device], float | None]], ...] = (
    ("gpu_utilization_ratio", "The busy part of the time.", lambda one: one.utilization),
    ("gpu_memory_used_bytes", "Used memory.", lambda one: one.memory_used_bytes),
    ("gpu_memory_total_bytes", "All memory.", lambda one: one.memory_total_bytes),
    ("gpu_temperature_celsius", "Temperature.", lambda one: one.temperature_celsius),
    ("gpu_power_watts", "Power draw.", lambda one: one.power_watts),
    ("gpu_power_limit_watts", "The limit of the power draw.", lambda one: one.power_limit_watts),
    ("gpu_clock_hertz", "Clock of the processors.", lambda one: one.clock_hz),
    (
        *("gpu_pcie_receive_bytes_per_second", "Received over PCIe."),
        lambda one: one.pcie_received_bytes_per_s,
    ),
    (
        *("gpu_pcie_transmit_bytes_per_second", "Sent over PCIe."),
        lambda one: one.pcie_sent_bytes_per_s,
    ),
    (
        *("gpu_ecc_uncorrected_errors", "Errors of the memory since the driver was loaded."),
        lambda one: one.ecc_uncorrected_errors,
    ),
    ("gpu_throttled", "1 while the driver holds the clock back.", lambda one: bool(one.throttled)),
)

_HOST: tuple[tuple[str, str, Callable[[Host], float]], ...] = (
    (
        *("host_memory_available_bytes", "Memory that processes can still get."),
        lambda host: host.memory_available_bytes,
    ),
    (
        *("host_memory_total_bytes", "Memory of the machine, or of the cgroup if less."),
        lambda host: host.memory_total_bytes,
    ),
    (
        *("host_cpu_utilization_ratio", "The used part of all processors."),
        lambda host: host.cpu_percent / 100,
    ),
    (
        *("host_disk_free_bytes", "Free space on the disk of the runtime folder."),
        lambda host: host.disk_free_bytes,
    ),
)


def of_machine(figures: Figures) -> Iterator[Metric]:
    """Accelerators and host. A figure that a driver does not have is no series."""
    devices = figures.machine.devices if figures.machine else ()
    for name, text, read in _DEVICE:
        found = [([str(one.index), one.name, one.kind], read(one)) for one in devices]
        values = [(labels, value) for labels, value in found if value is not None]
        yield gauge(name, text, ["gpu", "name", "kind"], values)
    hosts = [figures.machine.host] if figures.machine else []
    for name, text, of_host in _HOST:
        yield gauge(name, text, [], [([], of_host(host)) for host in hosts])
    yield gauge(
        "alarm",
        "1 for each alarm in force.",
        ["kind", "subject"],
        [
            ([one.kind, one.subject], 1)
            for one in (figures.machine.alarms if figures.machine else ())
        ],
    )


def of_models(figures: Figures) -> Iterator[Metric]:
    """The served models, in memory or not."""
    yield gauge(
        "model_state",
        "1 for the state that the model is in.",
        ["model", "state"],
        [([row.name, state], row.state is state) for row in figures.models for state in ModelPhase],
    )
    yield counter(
        "model_loads",
        "Loads of a model's workers that were begun because it was wanted.",
        ["model"],
        [([row.name], row.n_loads) for row in figures.models],
    )


def of_workers(figures: Figures) -> Iterator[Metric]:
    """The engines and all processes."""
    workers = figures.workers
    yield counter(
        "engine_restarts",
        "Replacements of engines, by the end of the process before.",
        ["reason"],
        [([reason], figures.restarts.get(reason, 0)) for reason in Reason],
    )
    yield gauge(
        "worker_state",
        "1 for the state that the worker is in.",
        ["model", "worker", "state"],
        [
            ([row.model, row.name, state], row.state is state)
            for row in workers
            for state in WorkerState
        ],
    )
    yield gauge(
        "kv_cache_usage_ratio",
        "The used part of the KV cells.",
        ["model", "worker"],
        [
            ([row.model, row.name], row.engine.kv_cells_used / row.facts.kv_cells)
            for row in workers
            if row.engine and row.facts and row.facts.kv_cells
        ],
    )
    yield gauge(
        "process_resident_memory_bytes",
        "Resident memory: of the front, of each worker, of all spare processes.",
        ["role", "worker"],
        [
            (["front", ""], figures.front_rss_bytes),
            *((["worker", row.name], row.rss_bytes) for row in workers),
            (["spare", ""], sum(row.rss_bytes for row in figures.spares)),
        ],
    )


def of_hosts(figures: Figures) -> Iterator[Metric]:
    """The machines that may run workers. Without a cluster there is no such series."""
    if figures.hosts is None:
        return
    states = Counter(row.state for row in figures.hosts)
    yield gauge(
        "hosts",
        "Machines that may run workers, by state.",
        ["state"],
        [([state], states[state]) for state in HOST_STATES],
    )
    yield counter(
        "host_losses",
        "Losses of a machine or of its worker host.",
        ["machine"],
        [([row.machine], row.n_losses) for row in figures.hosts],
    )
    yield gauge(
        "worker_machine",
        "1 for the machine that the worker runs on.",
        ["model", "worker", "machine"],
        [([row.model, row.name, row.machine], 1) for row in figures.workers if row.machine],
    )
