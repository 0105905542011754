"""The connection between a front and the machines that run workers for it.

Used by both ends: `supervisor.fleet` in the front and `supervisor.worker_host` on the machine.
"""
