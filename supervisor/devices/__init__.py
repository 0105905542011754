"""Figures of the machine: host and accelerators, sampled outside the event loop.

The front uses `monitor.DeviceMonitor`, which samples the sources `host` and `nvml`.
"""
