"""What the machine under the service looks like: host and accelerators, sampled off the event loop.

`monitor.DeviceMonitor` is what the front uses; `host` and `nvml` are the sources it samples.
"""
