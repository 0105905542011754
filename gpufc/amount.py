"""Bytes as a person reads them, the same in every message of both processes."""


def amount(n_bytes: float) -> str:
    """Such as `1.2 GiB`."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if abs(n_bytes) < 1024 or unit == "GiB":
            break
        n_bytes /= 1024
    return f"{n_bytes:,.0f} {unit}" if unit == "B" or n_bytes >= 100 else f"{n_bytes:.1f} {unit}"


def exact(n_bytes: int) -> str:
    """Such as `91,727,872 bytes (87.5 MiB)`, for two figures that may differ by little."""
    return f"{n_bytes:,} bytes ({amount(n_bytes)})" if n_bytes >= 1024 else f"{n_bytes} bytes"
