"""A load generator and its figures, for `gpufc-supervisor bench` and `scripts/bench`. See
DESIGN.md."""
