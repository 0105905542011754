"""`python -m engine_worker --boot-fd N`: the worker process. Started by the front only."""

import argparse
import contextlib
import ctypes
import importlib.util
import os
from pathlib import Path

from gpufc.uncollected import uncollected


def run() -> None:
    """Become a worker. Never returns."""
    parser = argparse.ArgumentParser(prog="engine_worker", description=__doc__)
    parser.add_argument(
        "--boot-fd",
        type=int,
        required=True,
        help="pipe that brings the boot message and then stays",
    )
    options = parser.parse_args()
    # numpy's BLAS is hardly used, and its threads would begin before the worker confines itself
    os.environ["OPENBLAS_NUM_THREADS"] = "1"
    _load_llama_first()
    with uncollected():
        from engine_worker.worker import main

    main(options.boot_fd)


def _load_llama_first() -> None:
    """Load llama.cpp, and with it its C++ runtime, before numpy and ZeroMQ load theirs.

    A process has one C++ runtime, the first one. An older one than llama.cpp was compiled with
    would keep llama.cpp from loading. Errors here are reported when the model is loaded.
    """
    spec = importlib.util.find_spec("llama_cpp")
    if spec is None or spec.origin is None:
        return
    default = Path(spec.origin).parent / "lib"
    folder = Path(os.environ.get("LLAMA_CPP_LIB_PATH", default))
    with contextlib.suppress(OSError):
        ctypes.CDLL(str(folder / "libllama.so"))


if __name__ == "__main__":
    run()
