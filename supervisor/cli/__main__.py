"""`python -m supervisor.cli`: the same as `gpufc-supervisor`. `start --detach` runs it."""

from supervisor.cli import main

main()
