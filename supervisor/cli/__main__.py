"""`python -m supervisor.cli`: the same as `gpufc-supervisor`. What `start --detach` runs."""

from supervisor.cli import main

main()
