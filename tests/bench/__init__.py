"""gpufc beside another server, and the front alone: `scripts/bench`. See ../DESIGN.md."""
