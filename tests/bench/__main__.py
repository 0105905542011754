"""`scripts/bench`."""

import signal
import sys

from tests.bench.command import main

if __name__ == "__main__":
    # as Ctrl-C does: else the server under measurement would stay
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    sys.exit(main())
