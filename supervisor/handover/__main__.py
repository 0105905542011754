"""`python -m supervisor.handover --fd N`, the name by which a front of any release starts the next.

The program is `supervisor.cli.take_over`.
"""

from gpufc.uncollected import uncollected

with uncollected():
    from supervisor.cli.take_over import run

if __name__ == "__main__":
    run()
