"""The command line of `scripts/chaos`."""

import argparse
import random
from collections.abc import Sequence
from pathlib import Path

DESCRIPTION = "Kill workers at chosen and at random moments, and judge every stream."
LANES = (
    "services at once; one that computes has 2 cores at least: --matrix, --hostile [3], "
    "--real-matrix, --kills, --real, --hangs, --replacements, --swaps, --upgrades [1]"
)


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """The options; without `--seed` there is a random one."""
    options = _parser().parse_args(arguments)
    if options.seed is None:
        options.seed = random.SystemRandom().randrange(1 << 32)
    return options


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="scripts/chaos", description=DESCRIPTION)
    parser.add_argument("--seed", type=int, help="of all dice; it is printed")
    parser.add_argument("--results", type=Path, metavar="FILE", help="append tables to this file")
    parser.add_argument(
        "--headline",
        action="store_true",
        help="the README's five figures: begin tests/chaos/RESULTS.md anew, update the README",
    )

    add = parser.add_argument_group("on the scripted engine").add_argument
    add("--matrix", action="store_true", help="the fault matrix")
    add("--kills", type=int, metavar="N", help="N random faults under load")
    add("--poison", type=int, metavar="N", help="N times a request that kills, among 32")
    add("--stalls", type=int, metavar="N", help="N honest requests beside clients that stop")
    add("--timing", type=int, metavar="N", help="N probes of what another key has asked")
    add("--crowding", type=int, metavar="N", help="N requests of a key beside another's flood")
    add("--floods", type=int, metavar="N", help="N kills under a flood of idle connections")
    add("--bodies", type=int, metavar="N", help="N times each kind of large body: the loop's lag")
    add("--never-loads", action="store_true", help="models that cannot be loaded")
    add("--models", type=int, metavar="S", help="S seconds of 3 models with memory for 2, kills")
    add("--loads", type=int, metavar="N", help="N loads and unloads: does anything grow?")
    add("--registered", type=int, metavar="N", help="N models, 4 workers: memory and lag")
    add("--replicas", type=int, metavar="S", help="S seconds of 2 workers, kills of one of them")
    add("--machines", type=int, metavar="N", help="N strikes at one of two machines with workers")
    add("--machine-matrix", action="store_true", help="each way for one of three machines to fail")
    add("--remote-workers", type=int, metavar="N", help="a front's memory with N workers of hosts")
    add("--outsiders", type=int, metavar="N", help="N requests beside peers without a key")
    add("--copies", type=int, metavar="MIB", help="streams beside the copy of a model to a machine")
    add("--restarts", type=int, metavar="N", help="N restarts: does anything grow?")

    add = parser.add_argument_group("on the real model").add_argument
    add("--real-matrix", action="store_true", help="the fault matrix, signals from outside")
    add("--real", type=int, metavar="N", help="N runs of 16 × 256 tokens, 3 kills each")
    add("--peer", type=Path, metavar="PATH", help="the same killer against this llama-server")
    add("--real-replicas", type=int, metavar="S", help="S seconds of 2 workers, as --replicas")
    add("--real-models", type=int, metavar="S", help="S seconds, as --models; needs --second")
    add("--peer-models", type=int, metavar="S", help="the same against --peer PATH")
    add("--returns", type=int, metavar="N", help="N kills of one stream: where the time goes")
    add("--real-machines", type=int, metavar="N", help="N strikes, as --machines")
    add("--real-crowding", type=int, metavar="N", help="the same as --crowding")
    add("--hangs", type=int, metavar="N", help="N stops for ever, and N of 5 s")
    add("--positions", choices=("exact", "fast"), help="a stream killed at each position")
    add("--shapes", choices=("exact", "fast"), help="bound answers, killed behind chunks")
    add("--bombs", type=int, metavar="N", help="N times each constraint that is hard to compile")
    add("--prefills", type=int, metavar="N", help="N prompts that fill the context, one thread")
    add("--hostile", type=int, metavar="N", help="N prompts of MiB under each large pre-tokenizer")
    add("--orphans", type=int, metavar="N", help="N times the front is killed")

    add = parser.add_argument_group("replacements").add_argument
    add("--replacements", type=int, metavar="N", help="N restarts on purpose under load")
    add("--swaps", type=int, metavar="N", help="N swaps between two models under load")
    add("--second", type=Path, metavar="FILE", help="--swaps, --real-models: another real model")
    add("--fake", action="store_true", help="with --replacements, --swaps: the fake backend")
    add("--upgrades", type=int, metavar="N", help="N upgrades of the front under load")
    add("--refusals", action="store_true", help="swaps under load that must be refused")

    add = parser.add_argument_group("how").add_argument
    add("--without-hangs", action="store_true", help="no cells that only the watchdog notices")
    add("--only-hangs", action="store_true", help="no other cells")
    add("--cells", default="", help="only cells whose name contains this")
    add("--full", action="store_true", help="with --shapes: behind each chunk")
    add("--lanes", type=int, metavar="N", help=LANES)
    add("--threads", type=int, metavar="N", help="CPU threads of the engine")
    add("--streams", type=int, default=8, metavar="N", help="with --real-replicas: clients at once")
    add("--devices", metavar="A;B", help="with --real-replicas: GPUs of each, as the key devices")
    add("--standby", default="warm", help="with --returns and --real-replicas: the kind of spare")
    add("--prompts", type=int, default=1, metavar="N", help="with --positions: of at most 4")
    return parser
