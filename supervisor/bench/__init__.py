"""Load generators and figures: `gpufc-supervisor bench` and `scripts/bench`. See DESIGN.md."""
