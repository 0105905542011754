"""`python -m engine_worker --boot-fd N`: started by the front, not by people."""

import argparse

from engine_worker.process import main

parser = argparse.ArgumentParser(prog="engine_worker", description=__doc__)
parser.add_argument(
    "--boot-fd", type=int, required=True, help="pipe that brings the boot message and then stays"
)
main(parser.parse_args().boot_fd)
