"""The texts of the systemd units. Pure.

scripts/deploy/systemd/ holds them as they are for a system service, for packagers.
"""

from msgspec import Struct

NAME = "gpufc"
SERVICE = f"{NAME}.service"
SOCKET = f"{NAME}.socket"

STATE = f"%S/private/{NAME}"
"""The state folder of a service with `DynamicUser`. `%S/gpufc` is a link to it, and a link is
refused as a runtime folder. Commands may use either."""

STOP_MARGIN_S = 15
"""What a stop may take beyond the time for running requests."""


class Place(Struct, frozen=True, kw_only=True):
    """Where a service is installed. `program` is the absolute path of `gpufc-supervisor`, `config`
    that of the TOML file, and `runtime_dir` may use systemd's specifiers. A `user` service runs as
    the user who installs it. `groups` own the devices of GPUs."""

    program: str = "/opt/gpufc/bin/gpufc-supervisor"
    config: str = "/etc/gpufc/gpufc.toml"
    runtime_dir: str = STATE
    user: bool = False
    stop_s: float = 30.0
    groups: tuple[str, ...] = ()


def service(place: Place) -> str:
    """The service's unit."""
    return "\n".join(
        [
            "# Written by `gpufc-supervisor install-service`.",
            "[Unit]",
            "Description=gpufc, local inference that survives its engine",
            *(() if place.user else ("Wants=network-online.target", "After=network-online.target")),
            "",
            "[Service]",
            "Type=notify",
            "NotifyAccess=main",
            f"ExecStart={place.program} start --config {place.config}"
            f" --runtime-dir {place.runtime_dir}",
            f"ExecReload={place.program} reload --runtime-dir {place.runtime_dir}",
            "# the front reports from its event loop; one that is stuck for so long is ended",
            "WatchdogSec=30",
            "# loading is not waited for: the front answers before the model is there",
            "TimeoutStartSec=60",
            f"TimeoutStopSec={place.stop_s + STOP_MARGIN_S:.0f}",
            "KillMode=mixed",
            "Restart=on-failure",
            "RestartSec=2",
            "# a faulty configuration or model would fail again",
            "RestartPreventExitStatus=2",
            "# an engine that runs out of memory is replaced by the front, which goes on",
            "OOMPolicy=continue",
            "LimitNOFILE=65536",
            "LimitMEMLOCK=infinity" if not place.user else "# LimitMEMLOCK is the user's",
            *_confinement(place),
            "",
            "[Install]",
            f"WantedBy={'default' if place.user else 'multi-user'}.target",
            "",
        ]
    )


def socket(place: Place, host: str, port: int) -> str:
    """The socket's unit: systemd listens, and clients wait while no front runs."""
    address = f"[{host}]" if ":" in host else host
    return "\n".join(
        [
            "# Written by `gpufc-supervisor install-service --socket`.",
            "[Unit]",
            "Description=gpufc's listening socket",
            "",
            "[Socket]",
            f"ListenStream={address}:{port}",
            "Backlog=4096",
            "NoDelay=true",
            "",
            "[Install]",
            "WantedBy=sockets.target",
            "",
        ]
    )


def _confinement(place: Place) -> list[str]:
    """What the service may not do. A user's manager cannot enforce most of it."""
    common = ["", "NoNewPrivileges=yes", "LockPersonality=yes", "UMask=0077"]
    if place.user:
        return common
    groups = [f"SupplementaryGroups={' '.join(place.groups)}"] if place.groups else []
    return [
        "",
        "DynamicUser=yes",
        f"StateDirectory={NAME}",
        "StateDirectoryMode=0700",
        *groups,
        *common[1:],
        "RemoveIPC=yes",
        "CapabilityBoundingSet=",
        "AmbientCapabilities=",
        "ProtectSystem=strict",
        "# models may lie in a home folder; `tmpfs` with BindReadOnlyPaths= is tighter",
        "ProtectHome=read-only",
        "PrivateTmp=yes",
        "ProtectProc=invisible",
        "ProcSubset=all",
        "ProtectKernelTunables=yes",
        "ProtectKernelModules=yes",
        "ProtectKernelLogs=yes",
        "ProtectControlGroups=yes",
        "ProtectClock=yes",
        "ProtectHostname=yes",
        "RestrictNamespaces=yes",
        "RestrictRealtime=yes",
        "RestrictSUIDSGID=yes",
        "RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6 AF_NETLINK",
        "SystemCallArchitectures=native",
        "SystemCallFilter=@system-service",
        "SystemCallFilter=~@privileged @obsolete",
        "# with these a worker confines itself further; systemd 252 leaves them out",
        "SystemCallFilter=landlock_create_ruleset landlock_add_rule landlock_restrict_self seccomp",
        "SystemCallErrorNumber=EPERM",
        "# GPUs: NVIDIA's, then the kernel's own drivers and ROCm",
        "DevicePolicy=closed",
        "DeviceAllow=char-nvidia-frontend rw",
        "DeviceAllow=char-nvidia-uvm rw",
        "DeviceAllow=char-nvidia rw",
        "DeviceAllow=char-drm rw",
        "DeviceAllow=char-kfd rw",
    ]
