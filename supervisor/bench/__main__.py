"""`scripts/bench`."""

import sys

from supervisor.bench.compare.command import main

if __name__ == "__main__":
    sys.exit(main())
