"""`restart`: a new engine worker, while the front stays."""

import click

from gpufc.errors import StartError
from supervisor.cli.options import runtime_dir as find
from supervisor.cli.options import setting_options


@click.command("restart")
@click.argument("worker", required=False)
@click.option("--now", is_flag=True, help="kill the old worker rather than ask it to end")
@setting_options(["runtime_dir"])
def command(worker: str | None, now: bool, runtime_dir: str | None) -> None:
    """Replace the engine worker WORKER, or all one after another.

    The front stays and goes on taking requests. `status` names the workers. Returns when the new
    ones are ready; the exit code is 3 if one could not start.
    """
    from supervisor.cli.terminal import Progress
    from supervisor.control.client import ControlClient

    client = ControlClient(find(runtime_dir).control_socket)
    progress = Progress("restarting")
    try:
        for event in client.restart(worker, now):
            match event["event"]:
                case "failed":
                    raise StartError(f"the new worker could not start: {event['message']}")
                case "ready":
                    progress.end(
                        f"{event['worker']} is {event['state']}: pid {event['pid']}, "
                        f"epoch {event['epoch']}"
                    )
                case _:
                    progress.note(f"{event['worker']} {event['state']}")
    except BaseException:
        progress.end()
        raise
