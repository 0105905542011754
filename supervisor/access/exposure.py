"""What an address that other machines can reach needs. Pure."""

import ipaddress

from gpufc.config import AccessConfig


def is_loopback(address: str) -> bool:
    """Whether only this machine reaches a numeric address, with or without a scope."""
    return ipaddress.ip_address(address.partition("%")[0]).is_loopback


def lacks(access: AccessConfig) -> list[str]:
    """What the configuration lacks for such an address, as flags; empty if it is safe there."""
    keys = [] if access.keys_file else ["keys (--keys-file)"]
    tls = [] if access.tls_cert else ["TLS (--tls-cert, --tls-key)"]
    return keys + tls


def refusal(place: str, access: AccessConfig) -> str | None:
    """One line with the remedy for a front that would listen at `place`; None if it may."""
    missing = lacks(access)
    if not missing or access.insecure:
        return None
    return (
        f"{place} can be reached from other machines, which needs {' and '.join(missing)}; listen"
        " on 127.0.0.1, or say --insecure if a proxy or a network that you trust is in front"
    )


def warning(place: str, access: AccessConfig) -> str | None:
    """A line about what is missing where the operator has allowed it."""
    missing = lacks(access)
    return (
        f"warning: {place} can be reached from other machines without "
        + " and ".join(part.partition(" ")[0] for part in missing)
        if missing
        else None
    )
