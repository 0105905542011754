"""`scripts/bench`: compares gpufc with another server and measures the front alone. See
DESIGN.md."""
