"""Traces of requests, for OpenTelemetry.

`spans` decides what a trace has, from a request that has ended. `export` hands it to the library,
which the extra `otel` installs and which is imported only where `otlp_endpoint` is set.
"""
