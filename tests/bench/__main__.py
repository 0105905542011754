"""`scripts/bench`."""

import signal
import sys

from tests.bench.command import main

if __name__ == "__main__":
    # as on Ctrl-C: otherwise the measured server would keep running
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    sys.exit(main())
