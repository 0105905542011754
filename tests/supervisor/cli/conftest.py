"""The control server for the tests of this folder."""

from tests.supervisor.control.control_server import server

__all__ = ["server"]
