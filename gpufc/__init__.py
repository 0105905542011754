"""The vocabulary that the front and the engine worker share: configuration, errors, messages.

Nothing in this package does I/O on behalf of the service, and nothing here imports more than the
standard library and msgspec, so that both processes can afford it.
"""

__version__ = "0.1.0"
